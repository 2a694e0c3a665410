//! Targets roles: read with their checks, and asked in order about one path (TUF specification, section 5.6).
//!
//! The walk is pre-order: a role before those it delegates to, those in the order written. Each role is visited once;
//! a terminating one that speaks for the path ends the search whether or not it lists it. A role on the way that
//! cannot be had or does not verify ends the walk with an error: what it might have said is not skipped.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use crate::{
    cbor::DOCUMENT_BYTES_MAX,
    time::UnixMs,
    tuf::{
        chain::{as_listed, by_root, content, fresh, meets, parse},
        document::Signers,
        metadata::{Root, Snapshot, Target, Targets},
        refusal::{ROLES_MAX, VerifyError},
    },
    verified::Verified,
};

/// Most roles whose documents are read for one release, over all its walks.
pub const ROLES_READ_MAX: usize = 64;

/// A targets role's document as received: `targets` or a delegated role, and its bytes.
pub type RoleBytes = (String, Vec<u8>);

/// What a role's document is held against beside its signatures.
#[derive(Clone, Copy, Debug)]
enum Held<'a> {
    /// The snapshot that lists it, and the present.
    Fresh(&'a Verified<Snapshot>, UnixMs),
    /// Nothing: it belongs to an installed release, which must stay usable however old it is.
    Installed,
}

/// The targets roles that are at hand.
#[derive(Debug)]
pub struct Roles<'a> {
    root: &'a Verified<Root>,
    offered: BTreeMap<&'a str, &'a [u8]>,
    held: Held<'a>,
    /// Roles read so far, by delegator and name: who delegates decides whose keys count.
    read: BTreeMap<(String, String), Rc<Targets>>,
}

/// The end of a walk.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The target and who signs for it, if a role lists the path.
    pub target: Option<(Target, Signers)>,
    /// The first path segments that roles on the way delegate by name (`agent`, `models`, `env`).
    pub delegated: BTreeSet<String>,
}

impl<'a> Roles<'a> {
    /// Roles that must be fresh: exactly as `snapshot` lists them, and not expired.
    pub fn fresh(
        root: &'a Verified<Root>,
        snapshot: &'a Verified<Snapshot>,
        offered: &'a [RoleBytes],
        now: UnixMs,
    ) -> Self {
        Self::new(root, offered, Held::Fresh(snapshot, now))
    }

    /// Roles of an installed release: signatures count, age does not.
    pub fn installed(root: &'a Verified<Root>, offered: &'a [RoleBytes]) -> Self {
        Self::new(root, offered, Held::Installed)
    }

    fn new(root: &'a Verified<Root>, offered: &'a [RoleBytes], held: Held<'a>) -> Self {
        let offered =
            offered.iter().map(|(role, bytes)| (role.as_str(), bytes.as_slice())).collect();
        Self { root, offered, held, read: BTreeMap::new() }
    }

    /// The top-level targets.
    pub fn top(&mut self) -> Result<Rc<Targets>, VerifyError> {
        self.role("root", &by_root(self.root.get(), "targets")?)
    }

    /// Which roles were read so far, `targets` among them.
    pub fn used(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.read.keys().map(|(_, role)| role).collect();
        names.into_iter().cloned().collect()
    }

    /// Asks the roles about `path`.
    pub fn walk(&mut self, path: &str) -> Result<Found, VerifyError> {
        let mut to_visit = vec![("root".to_owned(), by_root(self.root.get(), "targets")?)];
        let (mut visited, mut delegated) = (BTreeSet::new(), BTreeSet::new());
        while let Some((delegator, signers)) = to_visit.pop() {
            if visited.contains(signers.role()) {
                continue;
            }
            if visited.len() > ROLES_MAX {
                return Err(VerifyError::TooManyRoles(path.to_owned()));
            }
            let targets = self.role(&delegator, &signers)?;
            visited.insert(signers.role().to_owned());
            if let Some(delegations) = &targets.delegations {
                let patterns =
                    delegations.roles.iter().flat_map(|role| role.paths.iter().flatten());
                delegated.extend(patterns.filter_map(|p| Some(p.split_once('/')?.0.to_owned())));
            }
            if let Some(target) = targets.targets.get(path) {
                return Ok(Found { target: Some((target.clone(), signers)), delegated });
            }
            let Some(delegations) = &targets.delegations else { continue };
            let mut children = Vec::new();
            for role in delegations.roles.iter().filter(|role| role.speaks_for(path)) {
                let child = Signers::of_delegation(delegations, role);
                children.push((signers.role().to_owned(), child));
                if role.terminating {
                    to_visit.clear();
                    break;
                }
            }
            // The last pushed is visited first.
            to_visit.extend(children.into_iter().rev());
        }
        Ok(Found { target: None, delegated })
    }

    fn role(&mut self, delegator: &str, signers: &Signers) -> Result<Rc<Targets>, VerifyError> {
        let key = (delegator.to_owned(), signers.role().to_owned());
        if let Some(known) = self.read.get(&key) {
            return Ok(Rc::clone(known));
        }
        if self.read.len() >= ROLES_READ_MAX {
            return Err(VerifyError::TooManyRoles(signers.role().to_owned()));
        }
        let targets = Rc::new(self.verified(signers)?);
        self.read.insert(key, Rc::clone(&targets));
        Ok(targets)
    }

    fn verified(&self, signers: &Signers) -> Result<Targets, VerifyError> {
        let (role, by) = (signers.role(), "snapshot");
        let listed = match self.held {
            Held::Fresh(snapshot, _) => {
                let meta = snapshot.get().role(role);
                Some(meta.ok_or_else(|| VerifyError::Unlisted { role: role.to_owned(), by })?)
            }
            Held::Installed => None,
        };
        let bytes = self.offered.get(role).ok_or_else(|| VerifyError::Wanted {
            role: role.to_owned(),
            version: listed.map_or(0, |meta| meta.version),
            bytes_max: listed
                .and_then(|meta| usize::try_from(meta.length?).ok())
                .map_or(DOCUMENT_BYTES_MAX, |length| length.min(DOCUMENT_BYTES_MAX)),
        })?;
        if let Some(meta) = listed {
            as_listed(role, by, meta, bytes)?;
        }
        let document = parse(role, bytes)?;
        meets(&document, signers)?;
        let targets: Targets = content(role, "targets", &document)?;
        match (self.held, listed) {
            (Held::Fresh(_, now), Some(meta)) => {
                if targets.version != meta.version {
                    let (listed, got) = (meta.version, targets.version);
                    return Err(VerifyError::Version { role: role.to_owned(), by, listed, got });
                }
                fresh(role, &targets, now)?;
            }
            (Held::Fresh(..), None) | (Held::Installed, _) => {}
        }
        Ok(targets)
    }
}
