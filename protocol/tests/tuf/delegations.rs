//! Delegated roles: order, paths, terminating, cycles, names.

use std::collections::BTreeMap;

use protocol::{
    digest::Digest,
    tuf::{
        metadata::{Meta, Target},
        refusal::VerifyError,
        verify::{resolve, verify},
    },
};

use crate::repository::{EARLIER, NOW, Repository, prod, refused, words};

/// What the walk for `path` finds: the content that was listed, or nothing.
fn found(repository: &Repository, path: &str) -> Result<Option<Target>, VerifyError> {
    resolve(&repository.trusted(), &repository.offer(), path, NOW).map(|(_, target)| target)
}

fn list(repository: &mut Repository, role: &str, path: &str, content: &str) {
    repository.role(role).targets.insert(path.into(), Target::of(content.as_bytes()));
}

fn of(content: &str) -> Option<Target> {
    Some(Target::of(content.as_bytes()))
}

#[test]
fn a_role_speaks_for_its_paths_and_for_no_other() {
    let mut repository = Repository::new();
    repository.delegate("targets", "team", &["models/team/*"], false);
    list(&mut repository, "team", "models/team/m.bin", "mine");
    list(&mut repository, "team", "agent/x", "not mine");
    list(&mut repository, "team", "models/team/deep/m.bin", "not mine");
    assert_eq!(found(&repository, "models/team/m.bin").unwrap(), of("mine"));
    assert_eq!(found(&repository, "agent/x").unwrap(), None);
    assert_eq!(found(&repository, "models/team/deep/m.bin").unwrap(), None);
    // A delegated role cannot give what it does not have.
    repository.delegate("team", "friend", &["agent/*", "models/*/*"], false);
    list(&mut repository, "friend", "agent/x", "not theirs");
    list(&mut repository, "friend", "models/team/n.bin", "theirs");
    list(&mut repository, "friend", "models/other/n.bin", "not theirs");
    assert_eq!(found(&repository, "agent/x").unwrap(), None);
    assert_eq!(found(&repository, "models/team/n.bin").unwrap(), of("theirs"));
    assert_eq!(found(&repository, "models/other/n.bin").unwrap(), None);
}

#[test]
fn the_first_that_lists_a_path_is_believed_depth_before_breadth() {
    let mut repository = Repository::new();
    repository.delegate("targets", "first", &["x/*"], false);
    repository.delegate("targets", "second", &["x/*"], false);
    repository.delegate("first", "child", &["x/*"], false);
    for (role, content) in [("second", "2"), ("child", "c"), ("first", "1"), ("targets", "t")] {
        list(&mut repository, role, "x/a", content);
        assert_eq!(found(&repository, "x/a").unwrap(), of(content), "{role}");
    }
}

#[test]
fn a_terminating_role_ends_the_search() {
    let mut repository = Repository::new();
    repository.delegate("targets", "first", &["x/*"], true);
    repository.delegate("targets", "second", &["*/*"], false);
    list(&mut repository, "second", "x/a", "2");
    list(&mut repository, "second", "y/a", "2");
    assert_eq!(found(&repository, "x/a").unwrap(), None);
    assert_eq!(found(&repository, "y/a").unwrap(), of("2"), "it ends it for its own paths only");
}

#[test]
fn hash_prefixes_choose_like_patterns() {
    let mut repository = Repository::new();
    repository.delegate("targets", "bin", &[], false);
    let digest = Digest::of(b"x/a").to_string();
    let role = &mut repository.role("targets").delegations.as_mut().unwrap().roles[0];
    role.paths = None;
    role.path_hash_prefixes = Some(vec![digest[..3].to_owned()]);
    list(&mut repository, "bin", "x/a", "a");
    list(&mut repository, "bin", "x/b", "b");
    assert_eq!(found(&repository, "x/a").unwrap(), of("a"));
    assert_eq!(found(&repository, "x/b").unwrap(), None);
}

#[test]
fn roles_that_delegate_in_a_circle_are_asked_once_and_many_are_too_many() {
    let mut repository = Repository::new();
    repository.delegate("targets", "a", &["x/*"], false);
    repository.delegate("a", "b", &["x/*"], false);
    repository.delegate("b", "a", &["x/*"], false);
    assert_eq!(found(&repository, "x/1").unwrap(), None);

    let mut repository = Repository::new();
    let mut before = "targets".to_owned();
    for number in 0..33 {
        let role = format!("r{number}");
        repository.delegate(&before, &role, &["x/*"], false);
        if number == 31 {
            list(&mut repository, &role, "x/near", "near");
        }
        before = role;
    }
    list(&mut repository, &before, "x/far", "far");
    assert_eq!(found(&repository, "x/near").unwrap(), of("near"));
    refused(found(&repository, "x/far"), "too many delegated roles");
}

#[test]
fn a_role_on_the_way_that_does_not_verify_is_not_skipped() {
    type Change = fn(&mut Repository);
    let cases: [(Change, &str); 4] = [
        (|r| r.role("first").expires = EARLIER.into(), "first metadata expired"),
        (
            |r| drop(r.keys.insert("first".into(), crate::repository::keys(1))),
            "first metadata is signed by 0 of the 1",
        ),
        (|r| drop(r.roles.remove("first")), "snapshot metadata does not list first"),
        (
            |r| drop(r.snapshot.meta.insert("first.json".into(), Meta::of(1, b"other"))),
            "first metadata is not the file",
        ),
    ];
    for (change, expected) in cases {
        let mut repository = Repository::new();
        repository.delegate("targets", "first", &["x/*"], false);
        repository.delegate("targets", "second", &["x/*"], false);
        list(&mut repository, "second", "x/a", "2");
        assert_eq!(found(&repository, "x/a").unwrap(), of("2"));
        change(&mut repository);
        refused(found(&repository, "x/a"), expected);
    }
}

#[test]
fn a_role_that_was_not_brought_is_asked_for_by_version_and_size() {
    let mut repository = Repository::new();
    repository.roles.get_mut("targets").unwrap().targets.clear();
    repository.delegate("targets", "env-prod", &["env/prod/*"], true);
    repository.delegate("targets", "team", &["elsewhere/*"], false);
    repository.list("env-prod", &prod());
    repository.role("env-prod").version = 6;
    let mut offered = repository.offer_without(&["targets", "env-prod", "team"]);
    let whole = repository.offer();
    let mut asked = vec![];
    let release = loop {
        match verify(&repository.trusted(), &offered, &prod(), NOW) {
            Ok((_, release)) => break release,
            Err(VerifyError::Wanted { role, version, bytes_max }) => {
                let bytes = whole.roles.iter().find(|(name, _)| *name == role).unwrap().1.clone();
                assert_eq!(bytes_max, bytes.len());
                asked.push((role.clone(), version));
                offered.roles.push((role, bytes));
            }
            Err(error) => panic!("{}", words::<()>(Err(error))),
        }
    };
    assert_eq!(asked, [("targets".to_owned(), 1), ("env-prod".to_owned(), 6)]);
    assert_eq!(release.get().roles, ["env-prod", "targets"]);
}

#[test]
fn the_keys_are_those_that_the_delegator_names() {
    let mut repository = Repository::new();
    repository.delegate("targets", "team", &["x/*"], false);
    list(&mut repository, "team", "x/a", "a");
    assert_eq!(found(&repository, "x/a").unwrap(), of("a"));
    // Signed by a key that another role of the same document has.
    repository.delegate("targets", "other", &["y/*"], false);
    let stolen = repository.keys.remove("other").unwrap();
    repository.keys.insert("other".into(), crate::repository::keys(1));
    repository.keys.insert("team".into(), stolen);
    refused(found(&repository, "x/a"), "team metadata is signed by 0 of the 1");
}

#[test]
fn a_document_with_a_strange_delegation_is_refused_whole() {
    type Change = fn(&mut protocol::tuf::metadata::DelegatedRole);
    let cases: [(Change, &str); 8] = [
        (|role| role.name = "../x".into(), "cannot be a delegated role"),
        (|role| role.name = "a/b".into(), "cannot be a delegated role"),
        (|role| role.name = "snapshot".into(), "cannot be a delegated role"),
        (|role| role.threshold = 0, "threshold of 0"),
        (|role| role.keyids.push(role.keyids[0].clone()), "names a key id twice"),
        (|role| role.paths = None, "either paths or path_hash_prefixes"),
        (|role| role.path_hash_prefixes = Some(vec![]), "either paths or path_hash_prefixes"),
        (|role| role.paths = Some(vec!["x/[ab]".into()]), "only * and ? are understood"),
    ];
    for (change, expected) in cases {
        let mut repository = Repository::new();
        repository.delegate("targets", "team", &["x/*"], false);
        change(&mut repository.role("targets").delegations.as_mut().unwrap().roles[0]);
        refused(repository.verify(), expected);
    }
    let mut twice = Repository::new();
    twice.delegate("targets", "team", &["x/*"], false);
    twice.delegate("targets", "team", &["y/*"], false);
    refused(twice.verify(), "delegates to team twice");
    let mut succinct = Repository::new();
    succinct.delegate("targets", "team", &["x/*"], false);
    let delegations = succinct.role("targets").delegations.as_mut().unwrap();
    delegations.other = BTreeMap::from([("succinct_roles".to_owned(), serde_json::json!({}))]);
    refused(succinct.verify(), "succinct_roles");
}

#[test]
fn unused_roles_may_be_broken() {
    let mut repository = Repository::new();
    repository.delegate("targets", "team", &["elsewhere/*"], false);
    repository.role("team").expires = EARLIER.into();
    repository.keys.insert("team".into(), crate::repository::keys(1));
    assert!(repository.verify().is_ok());
}
