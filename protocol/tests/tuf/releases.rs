//! Releases: environments, endorsement by the makers of their parts, the counter, and what is installed.

use protocol::{
    digest::Digest,
    id::Environment,
    manifest::Manifest,
    tuf::{
        chain::pinned_root,
        metadata::Target,
        refusal::VerifyError,
        verify::{Offered, installed_release, newer_than, verify},
    },
};

use crate::repository::{EARLIER, NOW, Repository, keys, manifest, prod, refused};

const AGENT: &str = "agent/socle-agent-0.1.0-x86_64-linux";

#[test]
fn a_release_for_another_environment_is_not_one() {
    let mut repository = Repository::new();
    repository.role("targets").targets.clear();
    repository.list("targets", &"dev".parse::<Environment>().unwrap());
    refused(repository.verify(), "not listed at `env/prod/2027.1.1.json`");
    // Nor where a role that speaks for dev lists it under prod.
    repository.delegate("targets", "env-dev", &["env/dev/*"], true);
    repository.list("env-dev", &prod());
    refused(repository.verify(), "not signed for this environment");
    repository.delegate("targets", "env-prod", &["env/prod/*"], true);
    repository.list("env-prod", &prod());
    assert!(repository.verify().is_ok(), "promotion signs the same digest again");
}

#[test]
fn an_altered_misplaced_or_mismeasured_manifest_is_refused() {
    let mut repository = Repository::new();
    let genuine = repository.offer();
    let trusted = repository.trusted();
    let mut altered = repository.manifest.clone();
    altered.push(b' ');
    let offered = Offered { manifest: altered, ..genuine.clone() };
    refused(verify(&trusted, &offered, &prod(), NOW), "not listed");
    // The very bytes, listed under another release's name.
    let target = Target::of(&repository.manifest);
    repository.role("targets").targets.clear();
    repository.role("targets").targets.insert("env/prod/other.json".into(), target.clone());
    refused(repository.verify(), "not listed");
    let longer = Target { length: target.length + 1, ..target };
    repository.role("targets").targets.insert("env/prod/2027.1.1.json".into(), longer);
    assert!(matches!(repository.verify(), Err(VerifyError::Length { .. })));
}

#[test]
fn an_older_release_is_refused_and_the_same_one_too() {
    let (_, release) = Repository::new().verify().unwrap();
    newer_than(&release, 0).unwrap();
    for floor in [1, 2] {
        assert!(matches!(newer_than(&release, floor), Err(VerifyError::OldRelease { got: 1, .. })));
    }
}

#[test]
fn where_a_maker_has_a_role_its_files_need_its_signature() {
    let mut repository = Repository::new();
    repository.delegate("targets", "vendor", &["agent/*"], true);
    refused(repository.verify(), "`bin/socle-agent` is not endorsed");
    repository.role("vendor").targets.insert(AGENT.into(), Target::of(b"another agent"));
    refused(repository.verify(), "`bin/socle-agent` is not endorsed");
    repository.role("vendor").targets.insert(AGENT.into(), Target::of(b"agent"));
    let (_, release) = repository.verify().unwrap();
    assert_eq!(release.get().roles, ["targets", "vendor"]);

    repository.delegate("targets", "nlp", &["models/nlp/*"], true);
    refused(repository.verify(), "`models/faq/faq.json` is not endorsed");
    repository.role("nlp").targets.insert("models/nlp/faq.faq.json".into(), Target::of(b"faq"));
    assert!(repository.verify().is_ok());
    // A model that the team lists for another team's folder is not theirs to list.
    let nlp = repository.role("nlp");
    let target = nlp.targets.remove("models/nlp/faq.faq.json").unwrap();
    nlp.targets.insert("models/vision/faq.faq.json".into(), target);
    refused(repository.verify(), "not endorsed");
}

#[test]
fn an_endorsement_by_another_team_counts_as_one() {
    let mut repository = Repository::new();
    repository.delegate("targets", "nlp", &["models/nlp/*"], true);
    repository.delegate("targets", "vision", &["models/vision/*"], true);
    repository
        .role("vision")
        .targets
        .insert("models/vision/faq.faq.json".into(), Target::of(b"faq"));
    assert!(repository.verify().is_ok());
}

#[test]
fn what_is_installed_stays_usable_however_old_and_proves_nothing_else() {
    let mut repository = Repository::new();
    repository.role("targets").targets.clear();
    repository.delegate("targets", "env-prod", &["env/prod/*"], true);
    repository.list("env-prod", &prod());
    repository.role("targets").expires = EARLIER.into();
    repository.root.expires = EARLIER.into();
    let root = pinned_root(&repository.root_bytes()).unwrap();
    let Offered { roles, manifest: bytes, .. } = repository.offer();
    let release = installed_release(&root, &roles, &bytes).unwrap();
    assert_eq!(release.get().digest, Digest::of(&bytes));
    assert_eq!(release.get().environment, prod());

    let mut other = bytes.clone();
    other.push(b' ');
    refused(installed_release(&root, &roles, &other), "not listed");
    refused(installed_release(&root, &roles[1..], &bytes), "not listed");
    refused(installed_release(&root, &roles[..1], &bytes), "targets metadata is needed");
    repository.keys.insert("env-prod".into(), keys(1));
    refused(installed_release(&root, &repository.offer().roles, &bytes), "signed by 0 of the 1");
}

#[test]
fn a_manifest_that_is_signed_but_wrong_is_refused() {
    let mut repository = Repository::new();
    let broken = Manifest { schema: 2, ..manifest(2) };
    repository.manifest = broken.to_bytes().unwrap();
    let target = Target::of(&repository.manifest);
    repository.role("targets").targets.insert("env/prod/2027.1.2.json".into(), target);
    refused(repository.verify(), "schema 2");
}
