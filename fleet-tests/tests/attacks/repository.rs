//! A good repository with one release for `prod`, and a device that trusts its first root.

use std::collections::BTreeMap;

use fleet_tests::attacks::{
    ours,
    scene::{Delegation, Scene},
};
use protocol::{
    digest::Digest,
    time::UnixMs,
    tuf::{
        chain::Seen,
        refusal::VerifyError,
        verify::{Release, Trusted},
    },
    verified::Verified,
};
use serde_json::json;

pub(crate) const NOW: UnixMs = UnixMs(1_800_000_000_000);
pub(crate) const PATH: &str = "env/prod/2027.1.1.json";
pub(crate) const AGENT: &str = "agent/socle-agent-0.1.0-x86_64-linux";
pub(crate) const MODEL: &str = "models/support/faq.model.onnx";

pub(crate) type Answer = Result<(Trusted, Verified<Release>), VerifyError>;

/// The release's manifest.
pub(crate) fn manifest() -> Vec<u8> {
    manifest_of("2027.1.1", 1)
}

pub(crate) fn manifest_of(name: &str, counter: u64) -> Vec<u8> {
    let manifest = json!({
        "schema": 1, "name": name, "counter": counter, "created": "2027-01-01T00:00:00Z",
        "agent_version": "0.1.0",
        "requires": { "platform": "x86_64-linux", "memory_bytes": 1, "disk_bytes": 1 },
        "policy": {
            "tries": 3, "load_ms": 60_000, "golden_ms": 60_000, "probation_ms": 60_000,
            "probation_answers": 1,
        },
        "files": [
            {
                "path": "bin/socle-agent", "role": "agent", "length": 5,
                "sha256": Digest::of(b"agent").to_string(),
                "archive": { "length": 9, "sha256": Digest::of(b"archive!!").to_string() },
            },
            {
                "path": "models/faq/model.onnx", "role": "model", "length": 5,
                "sha256": Digest::of(b"model").to_string(),
            },
        ],
    });
    serde_json::to_vec_pretty(&manifest).unwrap()
}

/// Top-level targets list the release.
pub(crate) fn good() -> Scene {
    let mut scene = Scene::plain(NOW).unwrap();
    scene.list_file("targets", PATH, &manifest());
    assert!(first(&scene).is_ok(), "the repository is good before it is attacked");
    scene
}

/// The role `prod` lists the release.
pub(crate) fn delegated() -> Scene {
    let mut scene = Scene::plain(NOW).unwrap();
    let prod = role(&scene, "prod", &["env/prod/*"]);
    scene.add_role(prod, &[]).unwrap();
    scene.list_file("prod", PATH, &manifest());
    assert!(first(&scene).is_ok(), "the repository is good before it is attacked");
    scene
}

/// A delegation from targets to two keys, both of which must sign.
pub(crate) fn role(scene: &Scene, name: &str, paths: &[&str]) -> Delegation {
    let mut delegation = scene.delegation(name, paths);
    let first = 700 + 10 * scene.delegations.len() as u64;
    delegation.signers.keys = vec![first, first + 1];
    delegation.signers.threshold = 2;
    delegation
}

/// What a device trusts before it ever looked.
pub(crate) fn pinned(scene: &Scene) -> Trusted {
    let (root, _) = scene.before.first().unwrap_or(&scene.last).render().unwrap();
    Trusted::new(root, Seen::default()).unwrap()
}

pub(crate) fn files(scene: &Scene) -> BTreeMap<String, Vec<u8>> {
    scene.last.render().unwrap().1
}

/// A new device looks.
pub(crate) fn first(scene: &Scene) -> Answer {
    look(&pinned(scene), scene)
}

/// A device that trusts `trusted` looks for the release.
pub(crate) fn look(trusted: &Trusted, scene: &Scene) -> Answer {
    look_at(trusted, scene, NOW)
}

pub(crate) fn look_at(trusted: &Trusted, scene: &Scene, now: UnixMs) -> Answer {
    let prod = "prod".parse().unwrap();
    ours::release(trusted, &files(scene), &manifest(), &prod, now)
}

/// What a device trusts after it saw this.
pub(crate) fn after(scene: &Scene) -> Trusted {
    first(scene).unwrap().0
}

/// Fails unless `answer` is a refusal whose chain of reasons holds `words`.
pub(crate) fn refused(answer: &Answer, words: &str) {
    match answer {
        Ok((_, release)) => panic!("accepted release {}", release.get().digest),
        Err(error) => {
            let reasons = ours::chain(error);
            assert!(reasons.contains(words), "`{words}` is not in `{reasons}`");
        }
    }
}
