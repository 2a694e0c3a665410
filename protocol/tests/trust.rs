//! Root and targets metadata: what is accepted, and each attack that is refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use protocol::{
    digest::Digest,
    key::SigningKey,
    manifest::{Archive, File, Manifest, ManifestError, Policy, Requires, Role, SCHEMA},
    time::UnixMs,
    tuf::{
        document::{Document, DocumentError},
        metadata::{Key, Role as TufRole, Root, SPEC_VERSION, Target, Targets},
        early::{
            Floor, VerifyError, fresh_targets, listed_release, newer_than, newest_root,
            pinned_root, signed_targets,
        },
    },
};
use ring::rand::SystemRandom;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const LATER: &str = "2030-01-01T00:00:00Z";
const EARLIER: &str = "2020-01-01T00:00:00Z";

fn keys(count: usize) -> Vec<SigningKey> {
    let key = || SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
    (0..count).map(|_| SigningKey::from_pkcs8(&key()).unwrap()).collect()
}

fn role(keys: &[SigningKey], threshold: u32) -> TufRole {
    let id = |key: &SigningKey| Key::ed25519(&key.public()).id().unwrap();
    TufRole { keyids: keys.iter().map(id).collect(), threshold }
}

fn root(version: u64, root_keys: &[SigningKey], targets_keys: &[SigningKey]) -> Root {
    let keys = root_keys.iter().chain(targets_keys).map(|key| Key::ed25519(&key.public()));
    Root {
        kind: "root".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: LATER.into(),
        consistent_snapshot: true,
        keys: keys.map(|key| (key.id().unwrap(), key)).collect(),
        roles: BTreeMap::from([
            ("root".to_owned(), role(root_keys, 2)),
            ("targets".to_owned(), role(targets_keys, 2)),
        ]),
        other: BTreeMap::new(),
    }
}

fn targets(version: u64, manifests: &[&Manifest]) -> Targets {
    let target =
        |manifest: &&Manifest| (manifest.target_path(&"prod".parse().unwrap()), Target::of(&manifest.to_bytes().unwrap()));
    Targets {
        kind: "targets".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: LATER.into(),
        targets: manifests.iter().map(target).collect(),
        delegations: None,
        other: BTreeMap::new(),
    }
}

fn signed<T: serde::Serialize>(content: &T, keys: &[&SigningKey]) -> Vec<u8> {
    let mut document = Document::unsigned(content).unwrap();
    keys.iter().for_each(|key| document.sign(key).unwrap());
    document.to_bytes().unwrap()
}

fn manifest(counter: u64) -> Manifest {
    let digest = Digest::of(b"agent");
    Manifest {
        schema: SCHEMA,
        name: format!("2027.1.{counter}"),
        counter,
        created: "2027-01-01T00:00:00Z".into(),
        agent_version: "0.1.0".into(),
        requires: Requires { platform: "x86_64-linux".into(), memory_bytes: 1, disk_bytes: 1 },
        policy: Policy::standard(),
        files: vec![File {
            path: "bin/socle-agent".into(),
            role: Role::Agent,
            length: 5,
            sha256: digest,
            archive: Some(Archive { length: 9, sha256: Digest::of(b"archive") }),
            chunks: None,
        }],
    }
}

struct Fixture {
    root_keys: Vec<SigningKey>,
    targets_keys: Vec<SigningKey>,
    root: Vec<u8>,
}

fn fixture() -> Fixture {
    let (root_keys, targets_keys) = (keys(3), keys(3));
    let root = signed(&root(1, &root_keys, &targets_keys), &[&root_keys[0], &root_keys[2]]);
    Fixture { root_keys, targets_keys, root }
}

#[test]
fn a_release_signed_by_two_of_three_is_genuine() {
    let f = fixture();
    let trusted = pinned_root(&f.root).unwrap();
    let release = manifest(1);
    let bytes = signed(&targets(1, &[&release]), &[&f.targets_keys[1], &f.targets_keys[2]]);
    let targets = fresh_targets(&trusted, &bytes, Floor::default(), NOW).unwrap();
    let manifest_bytes = release.to_bytes().unwrap();
    let genuine = listed_release(&targets, &manifest_bytes).unwrap();
    assert_eq!(genuine.get().manifest, release);
    assert_eq!(genuine.get().digest, Digest::of(&manifest_bytes));
    newer_than(&genuine, Floor { targets_version: 1, counter: 0 }).unwrap();
}

#[test]
fn too_few_signatures_are_refused() {
    let f = fixture();
    let trusted = pinned_root(&f.root).unwrap();
    let stranger = &keys(1)[0];
    let content = targets(1, &[&manifest(1)]);
    let key = &f.targets_keys[0];
    for signers in
        [vec![], vec![key], vec![key, key], vec![key, stranger], vec![key, &f.root_keys[0]]]
    {
        let refused = signed_targets(&trusted, &signed(&content, &signers));
        assert!(
            matches!(
                &refused,
                Err(VerifyError::Document {
                    source: DocumentError::Threshold { threshold: 2, .. },
                    ..
                })
            ),
            "{} signers: {refused:?}",
            signers.len()
        );
    }
}

#[test]
fn the_same_key_twice_counts_once() {
    let f = fixture();
    let trusted = pinned_root(&f.root).unwrap();
    let mut document = Document::unsigned(&targets(1, &[&manifest(1)])).unwrap();
    document.sign(&f.targets_keys[0]).unwrap();
    document.signatures.push(document.signatures[0].clone());
    assert!(signed_targets(&trusted, &document.to_bytes().unwrap()).is_err());
}

#[test]
fn the_same_key_under_two_ids_counts_once() {
    let (root_keys, targets_keys) = (keys(2), keys(1));
    let mut content = root(1, &root_keys, &targets_keys);
    let mut twin = Key::ed25519(&targets_keys[0].public());
    twin.other.insert("comment".into(), "again".into());
    let twin_id = twin.id().unwrap();
    content.keys.insert(twin_id.clone(), twin);
    content.roles.get_mut("targets").unwrap().keyids.push(twin_id.clone());
    let trusted = pinned_root(&signed(&content, &[&root_keys[0], &root_keys[1]])).unwrap();

    let mut document = Document::unsigned(&targets(1, &[&manifest(1)])).unwrap();
    document.sign(&targets_keys[0]).unwrap();
    let mut again = document.signatures[0].clone();
    again.keyid = twin_id;
    document.signatures.push(again);
    let refused = signed_targets(&trusted, &document.to_bytes().unwrap());
    assert!(matches!(
        refused,
        Err(VerifyError::Document { source: DocumentError::Threshold { valid: 1, .. }, .. })
    ));
}

#[test]
fn a_threshold_of_zero_accepts_nothing() {
    let (root_keys, targets_keys) = (keys(2), keys(2));
    let mut content = root(1, &root_keys, &targets_keys);
    content.roles.get_mut("targets").unwrap().threshold = 0;
    let trusted = pinned_root(&signed(&content, &[&root_keys[0], &root_keys[1]])).unwrap();
    assert!(signed_targets(&trusted, &signed(&targets(1, &[]), &[])).is_err());
}

#[test]
fn an_altered_document_is_refused() {
    let f = fixture();
    let trusted = pinned_root(&f.root).unwrap();
    let bytes = signed(&targets(7, &[&manifest(1)]), &[&f.targets_keys[0], &f.targets_keys[1]]);
    let altered = String::from_utf8(bytes).unwrap().replace("\"version\": 7", "\"version\": 8");
    assert!(altered.contains("\"version\": 8"));
    assert!(signed_targets(&trusted, altered.as_bytes()).is_err());
}

#[test]
fn old_expired_foreign_and_endless_metadata_is_refused() {
    let f = fixture();
    let trusted = pinned_root(&f.root).unwrap();
    let sign = |content: &Targets| signed(content, &[&f.targets_keys[0], &f.targets_keys[1]]);
    let floor = Floor { targets_version: 5, counter: 3 };

    let older = fresh_targets(&trusted, &sign(&targets(4, &[])), floor, NOW);
    assert!(matches!(older, Err(VerifyError::Rollback { floor: 5, got: 4, .. })));

    let expired = Targets { expires: EARLIER.into(), ..targets(5, &[]) };
    assert!(matches!(
        fresh_targets(&trusted, &sign(&expired), floor, NOW),
        Err(VerifyError::Expired { .. })
    ));
    assert!(signed_targets(&trusted, &sign(&expired)).is_ok(), "what is installed stays usable");

    let kind = Targets { kind: "snapshot".into(), ..targets(5, &[]) };
    assert!(matches!(signed_targets(&trusted, &sign(&kind)), Err(VerifyError::Kind { .. })));

    let endless = vec![b' '; 2 * 1024 * 1024];
    assert!(matches!(
        signed_targets(&trusted, &endless),
        Err(VerifyError::Document { source: DocumentError::TooLarge { .. }, .. })
    ));
    assert!(signed_targets(&trusted, b"{").is_err());
}

#[test]
fn an_older_release_and_an_unlisted_one_are_refused() {
    let f = fixture();
    let trusted = pinned_root(&f.root).unwrap();
    let release = manifest(3);
    let bytes = signed(&targets(5, &[&release]), &[&f.targets_keys[0], &f.targets_keys[1]]);
    let targets = signed_targets(&trusted, &bytes).unwrap();
    let genuine = listed_release(&targets, &release.to_bytes().unwrap()).unwrap();
    let refused = newer_than(&genuine, Floor { targets_version: 5, counter: 3 });
    assert!(matches!(refused, Err(VerifyError::OldRelease { floor: 3, got: 3, .. })));

    let mut altered = release.to_bytes().unwrap();
    altered.push(b' ');
    assert!(matches!(listed_release(&targets, &altered), Err(VerifyError::NotListed(_))));
}

#[test]
fn roots_rotate_one_step_at_a_time_and_only_with_the_old_keys() {
    let f = fixture();
    let trusted = pinned_root(&f.root).unwrap();
    let new_keys = keys(3);
    let second = root(2, &new_keys, &f.targets_keys);
    let both = [&f.root_keys[0], &f.root_keys[1], &new_keys[0], &new_keys[1]];
    let rotated = newest_root(trusted.clone(), &[signed(&second, &both)]).unwrap();
    assert_eq!(rotated.get().version, 2);

    for signers in [&both[..2], &both[2..]] {
        assert!(newest_root(trusted.clone(), &[signed(&second, signers)]).is_err());
    }
    let skipped = root(3, &new_keys, &f.targets_keys);
    let refused = newest_root(trusted, &[signed(&skipped, &both)]);
    assert!(matches!(refused, Err(VerifyError::RootSequence { trusted: 1, got: 3 })));
}

#[test]
fn a_manifest_cannot_reach_outside_its_slot() {
    let good = manifest(1);
    for path in [
        "bin/other",
        "models/../x",
        "models/a/../b",
        "/etc/passwd",
        "models/a",
        "models/a/b/c",
        "models/A/b",
        "models/a/.hidden",
        "",
    ] {
        let mut bad = good.clone();
        bad.files[0].path = path.into();
        bad.files[0].role = Role::Model;
        bad.files[0].archive = None;
        assert!(matches!(bad.check(), Err(ManifestError::Path(_))), "{path:?}");
    }
    let mut twice = good.clone();
    twice.files.push(twice.files[0].clone());
    assert!(matches!(twice.check(), Err(ManifestError::Order(_))));
    let mut bare = good.clone();
    bare.files[0].archive = None;
    assert!(matches!(bare.check(), Err(ManifestError::Archive(_))));
    let mut lax = good;
    lax.policy.probation_answers = 0;
    assert!(matches!(lax.check(), Err(ManifestError::Policy(_))));
}
