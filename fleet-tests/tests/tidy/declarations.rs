//! `lib.rs` and `mod.rs` declare and do nothing else: no re-exports, no code.

use crate::rust;
use crate::tree::{self, Tree};

fn violations(tree: &Tree) -> Vec<String> {
    // Under `tests/` a `mod.rs` is how cargo lets test programs share code.
    let sources = tree.of_kind("rs").filter(|file| file.path.contains("/src/"));
    let parents = sources.filter(|file| ["lib.rs", "mod.rs"].contains(&file.name()));
    parents
        .flat_map(|file| {
            let code = rust::code(&file.text);
            let found =
                extra(&code).map(|item| format!("{}: does more than declare: {item}", file.path));
            found.collect::<Vec<_>>()
        })
        .collect()
}

/// The items that are not `mod name;`, attributes taken away.
fn extra(code: &str) -> impl Iterator<Item = String> {
    let bare = without_attributes(code);
    let items: Vec<String> = bare.split_inclusive(';').map(|item| item.trim().to_owned()).collect();
    items.into_iter().filter(|item| !item.is_empty() && !is_declaration(item)).map(|item| {
        let first = item.lines().next().unwrap_or_default();
        format!("`{first}`")
    })
}

fn is_declaration(item: &str) -> bool {
    let Some(item) = item.strip_suffix(';') else { return false };
    let words: Vec<&str> = item.split_whitespace().collect();
    let is_name =
        |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '#');
    match words.as_slice() {
        ["mod", name] | ["pub", "mod", name] => is_name(name),
        [visibility, "mod", name] => visibility.starts_with("pub(") && is_name(name),
        _ => false,
    }
}

fn without_attributes(code: &str) -> String {
    let mut out = String::new();
    let mut depth = 0_usize;
    let mut characters = code.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '#' if depth == 0 => {
                while characters.peek().is_some_and(|next| *next != '[') {
                    characters.next();
                }
            }
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            other if depth == 0 => out.push(other),
            _ => {}
        }
    }
    out
}

#[test]
fn parents_only_declare() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn a_reexport_or_code_in_a_parent_is_caught() {
    for (text, caught) in [
        ("//! Doc.\n#![deny(x)]\n\n/// A.\npub mod a;\n#[cfg(test)]\nmod b;\npub(crate) mod c;", 0),
        ("pub mod a;\npub use a::A;", 1),
        ("pub mod a { pub fn f() {} }", 1),
        ("pub mod a;\nfn main() {}", 1),
        ("pub mod a;\nconst B: &str = \";\";", 1),
    ] {
        for path in ["x/src/lib.rs", "x/src/y/mod.rs"] {
            assert_eq!(violations(&Tree::of(&[(path, text)])).len(), caught, "{text}");
        }
    }
}
