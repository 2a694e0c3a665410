//! Every crate of others that the workspace names has its reason in docs/dependencies.md.

use toml::{Table, Value};

use crate::tree::{self, Tree};

const PAGE: &str = "docs/dependencies.md";

fn violations(tree: &Tree) -> Vec<String> {
    let Some(page) = tree.get(PAGE) else { return vec![format!("{PAGE} is not there")] };
    let Some(root) = tree.get("Cargo.toml") else { return vec!["no Cargo.toml".to_owned()] };
    let table: Table = match root.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![format!("Cargo.toml: {error}")],
    };
    let named = table
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(Value::as_table);
    named
        .into_iter()
        .flatten()
        .filter(|(_, said)| said.get("path").is_none())
        .filter(|(name, _)| !page.text.contains(&format!("`{name}`")))
        .map(|(name, _)| {
            format!("{PAGE}: says nothing of `{name}`: why, what it pulls in, instead")
        })
        .collect()
}

#[test]
fn every_dependency_has_its_reason() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn a_dependency_without_a_reason_is_caught() {
    let root = "[workspace.dependencies]\nours = { path = \"ours\" }\nserde = \"1\"\nring = \"0\"";
    let tree = |page: &str| Tree::of(&[("Cargo.toml", root), (PAGE, page)]);
    assert_eq!(violations(&tree("`serde` `ring`")), [""; 0]);
    assert_eq!(violations(&tree("`serde`, stirring")).len(), 1);
    assert_eq!(violations(&Tree::of(&[("Cargo.toml", root)])).len(), 1);
}
