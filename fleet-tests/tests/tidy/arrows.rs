//! Which of our crates may import which: the table of the design, and no other arrow.

use toml::Value;

use crate::manifests::{self, Member};
use crate::tree::{self, Tree};

/// A crate and what it may import. fleet-tests may import all and stands apart.
const MAY_IMPORT: [(&str, &[&str]); 8] = [
    ("protocol", &[]),
    ("slots", &["protocol"]),
    ("gpu-kernels", &[]),
    ("engine", &["gpu-kernels", "protocol"]),
    ("agent", &["engine", "slots", "protocol"]),
    ("controller", &["protocol"]),
    ("workbench", &["engine", "protocol"]),
    ("xtask", &[]),
];

const IMPORTS_ALL: &str = "fleet-tests";

fn violations(tree: &Tree) -> Vec<String> {
    let members = manifests::members(tree);
    members.iter().flat_map(|member| of_member(member, &members)).collect()
}

fn of_member(member: &Member, members: &[Member]) -> Vec<String> {
    let folder = member.folder.as_str();
    let allowed = match MAY_IMPORT.iter().find(|(name, _)| *name == folder) {
        Some((_, allowed)) => *allowed,
        None if folder == IMPORTS_ALL => return Vec::new(),
        None => return vec![format!("{folder}: a crate that the table of arrows does not know")],
    };
    let ours = |name: &str| members.iter().any(|member| member.folder == name);
    let names = member.dependencies().into_iter().map(|(key, said)| {
        let package = said.get("package").and_then(Value::as_str);
        package.unwrap_or(key).to_owned()
    });
    names
        .filter(|name| ours(name) && !allowed.contains(&name.as_str()))
        .map(|name| format!("{folder} → {name}: not an arrow of the design"))
        .collect()
}

#[test]
fn crates_import_only_along_the_arrows_of_the_design() {
    let tree = Tree::checkout();
    let known = manifests::members(&tree).len();
    assert_eq!(known, MAY_IMPORT.len() + 1, "the table and the workspace name other crates");
    tree::assert_none(&violations(&tree));
}

#[test]
fn a_forbidden_arrow_is_caught_in_every_kind_of_dependency() {
    for (manifest, caught) in [
        ("[dependencies]\nprotocol.workspace = true", 0),
        ("[dependencies]\nslots.workspace = true", 1),
        ("[dev-dependencies]\nslots.workspace = true", 1),
        ("[build-dependencies]\nx = { package = \"slots\", workspace = true }", 1),
        ("[target.'cfg(unix)'.dependencies]\nslots.workspace = true", 1),
    ] {
        let tree = Tree::of(&[
            ("controller/Cargo.toml", manifest),
            ("protocol/Cargo.toml", ""),
            ("slots/Cargo.toml", ""),
        ]);
        assert_eq!(violations(&tree).len(), caught, "{manifest}");
    }
    let unknown = Tree::of(&[("extra/Cargo.toml", "")]);
    assert_eq!(violations(&unknown).len(), 1);
}
