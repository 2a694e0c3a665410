//! Where a manifest's files may lie.

use protocol::manifest::{ManifestError, Role};

use crate::repository::manifest;

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
