//! No file names a folder of the machine that it was written on.

use crate::tree::{self, File, Tree};

/// Put together here, so that this file does not hold them.
const FOLDERS: [&str; 6] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
    concat!("/tmp/", "team"),
    concat!(r"\Us", r"ers\"),
];

fn violations(tree: &Tree) -> Vec<String> {
    tree.files.iter().flat_map(of_file).collect()
}

fn of_file(file: &File) -> Vec<String> {
    let places = FOLDERS.iter().flat_map(|folder| file.text.match_indices(folder));
    places
        .filter(|(at, _)| is_start(&file.text, *at))
        .map(|(at, folder)| format!("{}: names a developer's folder, `{folder}`", file.at(at)))
        .collect()
}

/// Whether a path starts here, and does not only go on.
fn is_start(text: &str, at: usize) -> bool {
    let before = text.get(..at).and_then(|before| before.chars().next_back());
    !before.is_some_and(|c| c.is_alphanumeric() || "._-~/}>)*".contains(c))
}

#[test]
fn no_file_names_a_developers_folder() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn a_developers_folder_is_caught_and_a_relative_path_is_not() {
    for folder in FOLDERS {
        let text = format!("see {folder}x");
        assert_eq!(violations(&Tree::of(&[("docs/a.md", &text)])).len(), 1, "{text}");
        let inside = format!("see target{folder}x");
        assert_eq!(violations(&Tree::of(&[("docs/a.md", &inside)])).len(), 0, "{inside}");
    }
}
