//! Every kind, and the cases of a run.

use protocol::time::UnixMs;

use crate::attacks::{
    cases::Case,
    draft::DraftError,
    kinds::{delegations, encoding, kind::Kind, listings, signatures, times},
    scene::Scene,
};

/// Every kind, in a fixed order.
pub fn kinds() -> Vec<Kind> {
    let groups: [&[Kind]; 5] = [
        &times::KINDS,
        &signatures::KINDS,
        &delegations::KINDS,
        &listings::KINDS,
        &encoding::KINDS,
    ];
    groups.concat()
}

/// `count` cases that grow from `seed`, every kind in turn.
pub fn cases(seed: u64, count: u64, now: UnixMs) -> Result<Vec<Case>, DraftError> {
    // Whole seconds, since metadata writes no others.
    let now = UnixMs(now.0 - now.0 % 1000);
    let kinds = kinds();
    let numbered = (0..count).zip(kinds.iter().cycle());
    numbered.map(|(id, kind)| one(seed.wrapping_add(id), id, *kind, now)).collect()
}

fn one(seed: u64, id: u64, kind: Kind, now: UnixMs) -> Result<Case, DraftError> {
    let mut scene = Scene::new(seed, now)?;
    (kind.make)(&mut scene)?;
    scene.case(id, kind.name, seed)
}
