//! No import circle between the files of a crate.
//!
//! A file is a module. Its arrows are the paths in its code that start with `crate::`, `super::` or
//! `self::`, in `use` or elsewhere, each cut to the longest prefix that is a module. Test modules
//! are left out: a test may look at anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::rust;
use crate::tree::{self, Tree};

type Module = Vec<String>;
type Arrows = BTreeMap<Module, BTreeSet<Module>>;

fn violations(tree: &Tree) -> Vec<String> {
    let roots = tree.files.iter().filter(|file| file.name() == "Cargo.toml");
    let crates = roots.map(|file| file.folder()).filter(|folder| !folder.is_empty());
    crates
        .filter_map(|folder| circle(&arrows(tree, folder)).map(|circle| (folder, circle)))
        .map(|(folder, circle)| {
            let names: Vec<String> = circle.iter().map(name).collect();
            format!("{folder}: import circle {}", names.join(" → "))
        })
        .collect()
}

fn name(module: &Module) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

/// The arrows between the modules of one crate.
fn arrows(tree: &Tree, folder: &str) -> Arrows {
    let prefix = format!("{folder}/src/");
    let files = tree.of_kind("rs").filter_map(|file| {
        let module = module_of(file.path.strip_prefix(&prefix)?)?;
        Some((module, rust::without_tests(&rust::code(&file.text))))
    });
    let mut sources: BTreeMap<Module, String> = BTreeMap::new();
    for (module, code) in files {
        // A crate may have both lib.rs and main.rs: one root, nothing imports the second.
        sources.entry(module).or_default().push_str(&code);
    }
    let modules: BTreeSet<Module> = sources.keys().cloned().collect();
    let arrows_of = |module: &Module, code: &str| -> BTreeSet<Module> {
        let targets = paths(code).into_iter().filter_map(|path| absolute(module, &path));
        let known = targets.map(|path| longest_known(&modules, path));
        known.filter(|target| target != module).collect()
    };
    sources.iter().map(|(module, code)| (module.clone(), arrows_of(module, code))).collect()
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`; `lib.rs` and `main.rs` the root; programs under `bin/` are
/// crates of their own.
fn module_of(path: &str) -> Option<Module> {
    if path.starts_with("bin/") {
        return None;
    }
    let stem = path.strip_suffix(".rs")?;
    let mut parts: Module = stem.split('/').map(str::to_owned).collect();
    let is_parent = match parts.last().map(String::as_str) {
        Some("mod") => true,
        Some("lib" | "main") => parts.len() == 1,
        Some(_) | None => false,
    };
    if is_parent {
        parts.pop();
    }
    Some(parts)
}

/// From the crate's root; `None` for a path that does not start inside the crate.
fn absolute(module: &Module, path: &[String]) -> Option<Module> {
    let mut base = match path.first()?.as_str() {
        "crate" => Module::new(),
        "self" | "super" => module.clone(),
        _ => return None,
    };
    let mut rest = path.iter().peekable();
    while let Some(step) = rest.next_if(|step| ["crate", "self", "super"].contains(&step.as_str()))
    {
        if step == "super" {
            base.pop()?;
        }
    }
    base.extend(rest.cloned());
    Some(base)
}

fn longest_known(modules: &BTreeSet<Module>, mut path: Module) -> Module {
    while !path.is_empty() && !modules.contains(&path) {
        path.pop();
    }
    path
}

/// Every path in blanked code that starts with `crate`, `super` or `self`, use trees spread out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate", "super", "self"] {
        for at in rust::words(code, start) {
            let before = code.get(..at).unwrap_or_default().trim_end();
            let rest = code.get(at..).unwrap_or_default();
            // `pub(crate)` and `&self` are no paths.
            let is_path = rest.get(start.len()..).is_some_and(|rest| rest.starts_with("::"));
            if is_path && !before.ends_with("::") {
                spread(rest, &[], &mut found);
            }
        }
    }
    found
}

/// Reads one branch of a use tree after `prefix`; gives what follows it.
fn spread<'a>(text: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    let length = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(length);
    let mut path = prefix.to_vec();
    if !word.is_empty() {
        path.push(word.to_owned());
    }
    let Some(next) = rest.trim_start().strip_prefix("::").map(str::trim_start) else {
        found.push(path);
        return rest;
    };
    match next.strip_prefix('{') {
        Some(branches) => spread_all(branches, &path, found),
        None => spread(next, &path, found),
    }
}

fn spread_all<'a>(text: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut rest = text;
    loop {
        rest = spread(rest, prefix, found);
        // Past ` as name` and `*`, to the next branch or the end.
        let Some(at) = rest.find([',', '}']) else { return "" };
        let (mark, after) = rest.split_at(at).1.split_at(1);
        rest = after;
        if mark == "}" {
            return rest;
        }
    }
}

/// A circle, its first module again at its end.
fn circle(arrows: &Arrows) -> Option<Vec<Module>> {
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|start| search(arrows, start, &mut Vec::new(), &mut done))
}

fn search(
    arrows: &Arrows,
    at: &Module,
    way: &mut Vec<Module>,
    done: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    if let Some(first) = way.iter().position(|module| module == at) {
        let mut found = way.get(first..).unwrap_or_default().to_vec();
        found.push(at.clone());
        return Some(found);
    }
    if done.contains(at) {
        return None;
    }
    way.push(at.clone());
    let targets = arrows.get(at).into_iter().flatten();
    let found = targets.into_iter().find_map(|target| search(arrows, target, way, done));
    way.pop();
    done.insert(at.clone());
    found
}

#[test]
fn no_crate_has_an_import_circle() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn the_arrows_of_this_checkout_are_seen() {
    let tree = Tree::checkout();
    let seen = arrows(&tree, "xtask");
    let root = seen.get(&Module::new()).map(BTreeSet::len).unwrap_or_default();
    assert!(root > 5, "main.rs of xtask imports {root} modules: the rule sees nothing");
}

#[test]
fn use_trees_are_spread_out() {
    let code = "pub(crate) fn f(&self) {} use crate::{a::X, b::{self, c::*, D as E}}; fn f() { crate::g::h::<u8>(1) }";
    let found: Vec<String> = paths(code).iter().map(|path| path.join("::")).collect();
    for path in ["crate::a::X", "crate::b::self", "crate::b::c", "crate::b::D", "crate::g::h"] {
        assert!(found.iter().any(|other| other == path), "{path} not in {found:?}");
    }
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn a_circle_is_caught_and_named_and_a_test_may_look_anywhere() {
    let with = |a: &str, b: &str| {
        let tree = Tree::of(&[
            ("x/Cargo.toml", ""),
            ("x/src/lib.rs", "pub mod a;\npub mod b;"),
            ("x/src/a.rs", a),
            ("x/src/b/mod.rs", "pub mod c;"),
            ("x/src/b/c.rs", b),
        ]);
        violations(&tree)
    };
    assert_eq!(with("use crate::b::c::C;", "use crate::a::A;"), ["x: import circle a → b::c → a"]);
    assert_eq!(with("use crate::{b::{c::C}};", "fn f() { super::super::a::g() }").len(), 1);
    assert_eq!(with("use crate::b::c::C;", "// use crate::a::A;\n"), [""; 0]);
    let test = "#[cfg(test)]\nmod tests { use crate::a::A; }";
    assert_eq!(with("use crate::b::c::C;", test), [""; 0]);
}
