//! Links between our own pages lead somewhere: to a file or folder of the tree, and to a heading.

use crate::tree::{self, File, Tree};

fn violations(tree: &Tree) -> Vec<String> {
    tree.of_kind("md").flat_map(|page| of_page(tree, page)).collect()
}

fn of_page(tree: &Tree, page: &File) -> Vec<String> {
    let broken = |target: &&String| !leads_somewhere(tree, page, target);
    let targets = targets(&prose(&page.text));
    targets.iter().filter(broken).map(|t| format!("{}: broken link `{t}`", page.path)).collect()
}

fn leads_somewhere(tree: &Tree, page: &File, target: &str) -> bool {
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { Some(page.path.clone()) } else { resolve(page.folder(), path) };
    let Some(path) = path.filter(|path| tree.has(path)) else { return false };
    let found = tree.get(&path).filter(|file| file.name().ends_with(".md"));
    match found {
        Some(file) if !heading.is_empty() => headings(&file.text).iter().any(|h| h == heading),
        Some(_) | None => true,
    }
}

/// A path relative to a folder (or, with a leading `/`, to the root) without `.` and `..`; `None`
/// if it leaves the tree.
fn resolve(folder: &str, path: &str) -> Option<String> {
    let base = if path.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The page without its code, fenced or inline.
fn prose(text: &str) -> String {
    let mut out = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let outside = line.split('`').step_by(2);
            out.extend(outside);
            out.push('\n');
        }
    }
    out
}

/// What `[…](target)`, `[…]: target`, `src="target"` and `href="target"` name, as far as it is ours.
fn targets(prose: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (mark, end) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
        for (at, _) in prose.match_indices(mark) {
            let rest = prose.get(at + mark.len()..).unwrap_or_default();
            let inside = rest.split(end).next().unwrap_or_default();
            found.extend(inside.split_whitespace().next().map(str::to_owned));
        }
    }
    let definitions = prose.lines().filter(|line| line.starts_with('['));
    let named = definitions.filter_map(|line| line.split_once("]: "));
    found.extend(named.filter_map(|(_, rest)| rest.split_whitespace().next()).map(str::to_owned));
    let others = ["http://", "https://", "mailto:"];
    found.retain(|target| !others.iter().any(|scheme| target.starts_with(scheme)));
    found
}

/// The names that headings get: lower case, spaces to dashes, other punctuation gone, the second
/// of a name with `-1`.
fn headings(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced || !line.starts_with('#') {
            continue;
        }
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let before = found.iter().filter(|other| **other == name).count();
        found.push(if before == 0 { name } else { format!("{name}-{before}") });
    }
    found
}

#[test]
fn links_between_our_pages_lead_somewhere() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn a_broken_link_is_caught_and_code_is_not_read() {
    for (text, caught) in [
        ("[b](b.md) [c](../README.md) [d](../slots) [e](https://x/y) [f](./b.md#a-title)", 0),
        ("[b](gone.md)", 1),
        ("[b](../../README.md)", 1),
        ("[b](b.md#no-title)", 1),
        ("![p](gone.svg \"title\")", 1),
        ("<img src=\"gone.svg\">", 1),
        ("[b]: gone.md\n", 1),
        ("`[b](gone.md)`\n```\n[b](gone.md)\n```\n", 0),
        ("# Here it is!\n[b](#here-it-is) [c](#there)", 1),
    ] {
        let tree = Tree::of(&[
            ("docs/a.md", text),
            ("docs/b.md", "# Top\n## A title\n"),
            ("README.md", ""),
            ("slots/src/lib.rs", ""),
        ]);
        assert_eq!(violations(&tree).len(), caught, "{text}");
    }
}
