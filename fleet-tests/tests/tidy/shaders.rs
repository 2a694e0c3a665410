//! A shader stands beside the code that launches it, and some test names it.

use crate::rust;
use crate::tree::{self, File, Tree};

fn violations(tree: &Tree) -> Vec<String> {
    tree.of_kind("wgsl").flat_map(|shader| of_shader(tree, shader)).collect()
}

fn of_shader(tree: &Tree, shader: &File) -> Vec<String> {
    let stem = shader.path.trim_end_matches(".wgsl");
    let name = stem.rsplit('/').next().unwrap_or_default();
    let mut found = Vec::new();
    if tree.get(&format!("{stem}.rs")).is_none() {
        found.push(format!("{}: no launch code `{name}.rs` beside it", shader.path));
    }
    if !tree.of_kind("rs").any(|file| tests_of(file).is_some_and(|tests| names(tests, name))) {
        found.push(format!("{}: no test names `{name}`", shader.path));
    }
    found
}

/// A file's tests: all of it under `tests/`, else from its first test on.
fn tests_of(file: &File) -> Option<&str> {
    let first = ["#[cfg(test)]", "#[test]"].iter().filter_map(|mark| file.text.find(mark)).min()?;
    let in_tests = file.path.contains("/tests/");
    file.text.get(if in_tests { 0 } else { first }..)
}

fn names(text: &str, name: &str) -> bool {
    rust::words(text, name).next().is_some()
}

#[test]
fn every_shader_has_launch_code_and_a_test() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn a_shader_without_launch_code_or_test_is_caught() {
    let shader = ("g/src/matmul.wgsl", "");
    let launch = ("g/src/matmul.rs", "fn matmul() {}");
    let tested = ("g/src/matmul.rs", "#[cfg(test)]\nmod tests { use super::matmul; }");
    let test = ("g/tests/oracle.rs", "use g::matmul;\n#[test]\nfn f() {}");
    let other = ("g/tests/oracle.rs", "#[test]\nfn matmul_all() {}");
    for (files, caught) in [
        (vec![shader], 2),
        (vec![shader, launch], 1),
        (vec![shader, launch, other], 1),
        (vec![shader, launch, test], 0),
        (vec![shader, tested], 0),
    ] {
        assert_eq!(violations(&Tree::of(&files)).len(), caught, "{files:?}");
    }
}
