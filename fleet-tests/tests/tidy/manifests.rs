//! The Cargo.toml files: every member shares the workspace's lints, and takes every dependency
//! with the one set of features that the root declares.

use toml::{Table, Value};

use crate::tree::{self, Tree};

const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// A member of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its folder, which is its name.
    pub(crate) folder: String,
    /// Its Cargo.toml.
    pub(crate) table: Table,
}

impl Member {
    /// Every dependency of every kind and target: its key and what is said of it.
    pub(crate) fn dependencies(&self) -> Vec<(&str, &Value)> {
        let targets = self.table.get("target").and_then(Value::as_table);
        let scopes = targets.into_iter().flat_map(|t| t.values()).filter_map(Value::as_table);
        scopes
            .chain([&self.table])
            .flat_map(|scope| KINDS.iter().filter_map(|kind| scope.get(*kind)))
            .filter_map(Value::as_table)
            .flatten()
            .map(|(key, value)| (key.as_str(), value))
            .collect()
    }
}

/// The members: every folder of the root with a Cargo.toml in it. A package deeper down stands outside the workspace.
pub(crate) fn members(tree: &Tree) -> Vec<Member> {
    let manifests = tree.files.iter().filter(|file| file.name() == "Cargo.toml");
    manifests
        .filter(|file| !file.folder().is_empty() && !file.folder().contains('/'))
        .map(|file| {
            let table = file.text.parse();
            assert!(table.is_ok(), "{}: {table:?}", file.path);
            Member { folder: file.folder().to_owned(), table: table.unwrap_or_default() }
        })
        .collect()
}

fn violations(tree: &Tree) -> Vec<String> {
    members(tree).iter().flat_map(of_member).collect()
}

fn of_member(member: &Member) -> Vec<String> {
    let folder = &member.folder;
    let is_true = |value: Option<&Value>| value.and_then(Value::as_bool) == Some(true);
    let mut found = Vec::new();
    if !is_true(member.table.get("lints").and_then(|lints| lints.get("workspace"))) {
        found.push(format!("{folder}/Cargo.toml: lacks `[lints] workspace = true`"));
    }
    for (name, said) in member.dependencies() {
        let more = said.get("features").is_some() || said.get("default-features").is_some();
        if !is_true(said.get("workspace")) || more {
            found.push(format!(
                "{folder}/Cargo.toml: `{name}` must be `{name}.workspace = true`, its version and \
                 features declared once in the root"
            ));
        }
    }
    found
}

#[test]
fn members_take_lints_and_dependencies_from_the_workspace() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn a_member_with_its_own_features_or_without_lints_is_caught() {
    for (manifest, caught) in [
        ("[lints]\nworkspace = true\n[dependencies]\na.workspace = true", 0),
        ("[dependencies]\na.workspace = true", 1),
        ("[lints]\nworkspace = true\n[dependencies]\na = \"1\"", 1),
        (
            "[lints]\nworkspace = true\n[dev-dependencies]\na = { workspace = true, features = [] }",
            1,
        ),
        ("[lints]\nworkspace = true\n[target.'cfg(unix)'.dependencies]\na = \"1\"", 1),
    ] {
        let tree = Tree::of(&[("x/Cargo.toml", manifest)]);
        assert_eq!(violations(&tree).len(), caught, "{manifest}");
    }
}
