//! Every `unsafe` says above it why it is sound.

use crate::rust;
use crate::tree::{self, File, Tree};

fn violations(tree: &Tree) -> Vec<String> {
    tree.of_kind("rs").flat_map(of_file).collect()
}

fn of_file(file: &File) -> Vec<String> {
    let code = rust::code(&file.text);
    rust::words(&code, "unsafe")
        .filter(|at| !is_attribute(&code, *at) && !is_explained(file, *at))
        .map(|at| format!("{}: `unsafe` without a `SAFETY:` comment above it", file.at(at)))
        .collect()
}

/// `#[unsafe(no_mangle)]` and the like.
fn is_attribute(code: &str, at: usize) -> bool {
    code.get(..at).is_some_and(|before| before.trim_end().ends_with('['))
}

/// The lines right above, comments and attributes, hold `SAFETY:` or a doc's `# Safety`.
fn is_explained(file: &File, at: usize) -> bool {
    let before = file.text.get(..at).unwrap_or_default();
    let mut lines = before.lines().rev();
    // The line of `unsafe` itself, up to it; then the lines of the statement it stands in.
    let own = if before.ends_with('\n') { None } else { lines.next() };
    let says = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    own.is_some_and(says)
        || lines
            .map(str::trim)
            .take_while(|line| {
                line.starts_with("//") || line.starts_with('#') || line.ends_with('=')
            })
            .any(says)
}

#[test]
fn unsafe_code_is_explained() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn an_unexplained_unsafe_is_caught() {
    for (text, caught) in [
        ("// SAFETY: both live.\nunsafe { f() }", 0),
        ("// SAFETY: both live,\n// and long.\n#[x]\nunsafe impl Send for A {}", 0),
        ("/// # Safety\n/// Alone.\npub unsafe fn f() {}", 0),
        ("// SAFETY: far away.\nlet a = 1;\nunsafe { f() }", 1),
        ("unsafe { f() }", 1),
        ("// unsafe in words\n#[unsafe(no_mangle)]\nlet unsafe_code = \"unsafe\";", 0),
    ] {
        assert_eq!(violations(&Tree::of(&[("x/src/a.rs", text)])).len(), caught, "{text}");
    }
}
