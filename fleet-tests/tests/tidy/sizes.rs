//! One idea a file: no Rust file grows past what one reads at a sitting.

use crate::tree::{self, Tree};

const LINES_MAX: usize = 600;

fn violations(tree: &Tree) -> Vec<String> {
    tree.of_kind("rs")
        .map(|file| (file, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{}: {lines} lines, at most {LINES_MAX}: split it", file.path))
        .collect()
}

#[test]
fn no_file_is_too_long() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn one_line_too_many_is_caught() {
    let caught = |lines: usize| violations(&Tree::of(&[("x/src/a.rs", &"\n".repeat(lines))])).len();
    assert_eq!((caught(LINES_MAX), caught(LINES_MAX + 1)), (0, 1));
}
