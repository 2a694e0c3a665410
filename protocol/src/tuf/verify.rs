//! The client's verifier: `(what we trust, what we got, now) → what we trust now, what we may use`. Pure.
//!
//! It is made of the steps of [`crate::tuf::chain`] and the walk of [`crate::tuf::walk`]. Nothing of what it returns is
//! remembered unless every check passed: the caller stores [`Trusted`] then, and only then.

use std::collections::BTreeSet;

use crate::{
    digest::Digest,
    id::Environment,
    manifest::Manifest,
    time::UnixMs,
    tuf::{
        chain::{
            Seen, fresh_snapshot, fresh_timestamp, next_root, online_keys_changed, pinned_root,
        },
        document::{Document, Signers},
        metadata::{Hashed, Root, Target, Targets, hashed},
        refusal::{ROOTS_MAX, VerifyError},
        walk::{Found, RoleBytes, Roles},
    },
    verified::Verified,
};

/// Most teams whose endorsement of a model is looked for, in the order of their names.
const TEAMS_MAX: usize = 64;
/// Most environments of one name that are tried for an installed release.
const ENVIRONMENTS_MAX: usize = 64;

/// What a device trusts: the newest root, and the versions it has seen under it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trusted {
    root: Verified<Root>,
    root_bytes: Vec<u8>,
    seen: Seen,
}

/// What was fetched, none of it believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// Roots newer than the trusted one, oldest first.
    pub roots: Vec<Vec<u8>>,
    /// Timestamp metadata.
    pub timestamp: Vec<u8>,
    /// Snapshot metadata.
    pub snapshot: Vec<u8>,
    /// Targets metadata: `targets`, and delegated roles by name.
    pub roles: Vec<RoleBytes>,
    /// The release's manifest.
    pub manifest: Vec<u8>,
}

/// A release that is genuine and meant for this environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// SHA-256 of the manifest's bytes: the release's name everywhere.
    pub digest: Digest,
    /// What it is made of.
    pub manifest: Manifest,
    /// The environment it is signed for.
    pub environment: Environment,
    /// The targets roles that prove it, by name.
    pub roles: Vec<String>,
    /// Who signed for it: the role that lists it.
    pub signers: Signers,
}

impl Trusted {
    /// From what the device keeps: `root` was trusted before, `seen` under it.
    pub fn new(root: Vec<u8>, seen: Seen) -> Result<Self, VerifyError> {
        Ok(Self { root: pinned_root(&root)?, root_bytes: root, seen })
    }

    /// The root.
    pub const fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The root, byte for byte as received.
    pub fn root_bytes(&self) -> &[u8] {
        &self.root_bytes
    }

    /// The versions seen.
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Trust after walking through `newer` roots. What was seen is forgotten where the keys of snapshot or timestamp
    /// were replaced on the way.
    pub fn after_roots(&self, newer: &[Vec<u8>]) -> Result<Self, VerifyError> {
        if newer.len() > ROOTS_MAX {
            return Err(VerifyError::TooManyRoots(newer.len()));
        }
        newer.iter().try_fold(self.clone(), |trusted, bytes| {
            let root = next_root(&trusted.root, bytes)?;
            let changed = online_keys_changed(trusted.root.get(), root.get());
            let seen = if changed { Seen::default() } else { trusted.seen };
            Ok(Self { root, root_bytes: bytes.clone(), seen })
        })
    }
}

/// The release whose manifest is offered, if everything about it holds at `now`. When a role is missing that the walk
/// needs, the error is [`VerifyError::Wanted`]: add it and ask again.
pub fn verify(
    trusted: &Trusted,
    offered: &Offered,
    environment: &Environment,
    now: UnixMs,
) -> Result<(Trusted, Verified<Release>), VerifyError> {
    with_fresh_roles(trusted, offered, now, |roles| listed(roles, &offered.manifest, environment))
}

/// The target at `path`, found as the specification's client finds it; none if no role lists it.
pub fn resolve(
    trusted: &Trusted,
    offered: &Offered,
    path: &str,
    now: UnixMs,
) -> Result<(Trusted, Option<Target>), VerifyError> {
    with_fresh_roles(trusted, offered, now, |roles| {
        Ok(roles.walk(path)?.target.map(|(target, _)| target))
    })
}

/// The release that is installed with these documents: signatures count, age does not, because falling back to what is
/// on the disk must work however old it is. Nor does the environment: it was held against the device's own when the
/// release was installed, and a device that is enrolled elsewhere keeps running until it is told otherwise.
pub fn installed_release(
    root: &Verified<Root>,
    documents: &[RoleBytes],
    manifest: &[u8],
) -> Result<Verified<Release>, VerifyError> {
    let digest = Digest::of(manifest);
    let parsed = parsed(digest, manifest)?;
    let mut roles = Roles::installed(root, documents);
    roles.top()?;
    let mut refused =
        VerifyError::NotListed { digest, path: format!("env/*/{}.json", parsed.name) };
    for environment in environments(documents, &parsed) {
        match listed(&mut roles, manifest, &environment) {
            Ok(release) => return Ok(release),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Holds if `release` is newer than all that this device committed.
pub fn newer_than(release: &Verified<Release>, floor: u64) -> Result<(), VerifyError> {
    let Release { digest, manifest, .. } = release.get();
    if manifest.counter > floor {
        Ok(())
    } else {
        Err(VerifyError::OldRelease { digest: *digest, floor, got: manifest.counter })
    }
}

fn with_fresh_roles<T>(
    trusted: &Trusted,
    offered: &Offered,
    now: UnixMs,
    ask: impl FnOnce(&mut Roles<'_>) -> Result<T, VerifyError>,
) -> Result<(Trusted, T), VerifyError> {
    let trusted = trusted.after_roots(&offered.roots)?;
    let timestamp = fresh_timestamp(&trusted.root, &offered.timestamp, &trusted.seen, now)?;
    let snapshot =
        fresh_snapshot(&trusted.root, &offered.snapshot, &timestamp, &trusted.seen, now)?;
    let mut roles = Roles::fresh(&trusted.root, &snapshot, &offered.roles, now);
    let answer = ask(&mut roles)?;
    let seen = Seen::after(&timestamp, &snapshot);
    Ok((Trusted { seen, ..trusted }, answer))
}

/// The release, if the walk for its path ends at exactly its bytes. Its name says where to look; nothing else of the
/// manifest is believed before.
fn listed(
    roles: &mut Roles<'_>,
    manifest: &[u8],
    environment: &Environment,
) -> Result<Verified<Release>, VerifyError> {
    roles.top()?;
    let digest = Digest::of(manifest);
    let parsed = parsed(digest, manifest)?;
    let path = parsed.target_path(environment);
    let Found { target, .. } = roles.walk(&path)?;
    let (target, signers) = target
        .filter(|(target, _)| {
            target.sha256() == Some(digest) && hashed(&target.hashes, manifest) == Hashed::Same
        })
        .ok_or(VerifyError::NotListed { digest, path })?;
    let (signed, got) = (target.length, manifest.len() as u64);
    if signed != got {
        return Err(VerifyError::Length { digest, signed, got });
    }
    endorsed(roles, digest, &parsed)?;
    let environment = environment.clone();
    let roles = roles.used();
    Ok(Verified::new(Release { digest, manifest: parsed, environment, roles, signers }))
}

/// Holds if each maker who has a role of its own signed for what it made: the agent under `agent/`, models under
/// `models/<team>/`. Where nobody has such a role, the release's own signature is enough.
fn endorsed(roles: &mut Roles<'_>, digest: Digest, manifest: &Manifest) -> Result<(), VerifyError> {
    let top = roles.top()?;
    let teams = teams(&top);
    for file in &manifest.files {
        let (kind, paths) = match file.path.strip_prefix("models/") {
            None => {
                let (version, platform) = (&manifest.agent_version, &manifest.requires.platform);
                ("agent", vec![format!("agent/socle-agent-{version}-{platform}")])
            }
            Some(rest) => {
                let name = rest.replacen('/', ".", 1);
                (
                    "models",
                    teams
                        .iter()
                        .take(TEAMS_MAX)
                        .map(|team| format!("models/{team}/{name}"))
                        .collect(),
                )
            }
        };
        let signed = Target::named(file.sha256, file.length);
        let mut asked = delegates(&top, kind);
        let mut found = false;
        for path in paths {
            let Found { target, delegated } = roles.walk(&path)?;
            asked |= delegated.contains(kind);
            found |= target.is_some_and(|(target, _)| {
                target.length == signed.length && target.sha256() == signed.sha256()
            });
        }
        if asked && !found {
            let kind = if kind == "agent" { "agent/" } else { "models/" };
            return Err(VerifyError::NotEndorsed { digest, file: file.path.clone(), kind });
        }
    }
    Ok(())
}

/// Whether `targets` delegates paths below `folder` by name.
fn delegates(targets: &Targets, folder: &str) -> bool {
    patterns(targets)
        .any(|pattern| pattern.split_once('/').is_some_and(|(first, _)| first == folder))
}

/// Who makes models: the second segment of what is delegated or listed below `models/`.
fn teams(targets: &Targets) -> BTreeSet<String> {
    let listed = targets.targets.keys().map(String::as_str);
    patterns(targets)
        .chain(listed)
        .filter_map(|path| {
            let (team, _) = path.strip_prefix("models/")?.split_once('/')?;
            (!team.contains(['*', '?'])).then(|| team.to_owned())
        })
        .collect()
}

fn patterns(targets: &Targets) -> impl Iterator<Item = &str> {
    let roles = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
    roles.flat_map(|role| role.paths.iter().flatten()).map(String::as_str)
}

/// The environments for which any of `documents` says it lists the manifest. The walk decides whether it is so.
fn environments(documents: &[RoleBytes], manifest: &Manifest) -> BTreeSet<Environment> {
    let end = format!("/{}.json", manifest.name);
    let mut environments = BTreeSet::new();
    for (role, bytes) in documents {
        let Ok(document) = Document::parse(role, bytes) else { continue };
        let Some(targets) = document.signed.get("targets").and_then(|targets| targets.as_object())
        else {
            continue;
        };
        let named = targets.keys().filter_map(|path| {
            path.strip_prefix("env/")?.strip_suffix(end.as_str())?.parse::<Environment>().ok()
        });
        environments.extend(named.take(ENVIRONMENTS_MAX));
    }
    environments
}

fn parsed(digest: Digest, manifest: &[u8]) -> Result<Manifest, VerifyError> {
    Manifest::parse(manifest).map_err(|source| VerifyError::Manifest { digest, source })
}
