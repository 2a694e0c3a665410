//! What is published now, as documents.

use std::collections::BTreeMap;

use protocol::{
    time::UnixMs,
    tuf::{
        chain::{Seen, fresh_snapshot, fresh_timestamp, pinned_root},
        document::Document,
        metadata::{Meta, Root, Snapshot},
        shape::is_role_name,
        verify::Trusted,
    },
    verified::Verified,
};

use crate::{
    catalogue::{self, Catalogue, RoleBytes},
    publication::{Publication, PublishError},
    store::{database::Store, releases::Metadata},
};

/// Snapshot and timestamp with their versions.
#[derive(Clone, Debug)]
pub struct OnlinePair {
    /// The snapshot.
    pub snapshot: (u64, Vec<u8>),
    /// The timestamp.
    pub timestamp: (u64, Vec<u8>),
}

/// The newest document of each role.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The root.
    pub root: Vec<u8>,
    /// Targets and delegated roles.
    pub roles: Vec<RoleBytes>,
    /// The snapshot, once something is published.
    pub snapshot: Option<Vec<u8>>,
    /// The timestamp, once something is published.
    pub timestamp: Option<Vec<u8>>,
}

impl OnlinePair {
    /// A pair that was signed elsewhere; whether it holds is checked with everything else.
    pub fn given(snapshot: Vec<u8>, timestamp: Vec<u8>) -> Result<Self, PublishError> {
        let version = |role: &str, bytes: &[u8]| {
            let (version, _) =
                end_of(bytes).ok_or_else(|| PublishError::Unreadable(role.to_owned()))?;
            Ok(version)
        };
        Ok(Self {
            snapshot: (version("snapshot", &snapshot)?, snapshot),
            timestamp: (version("timestamp", &timestamp)?, timestamp),
        })
    }
}

/// Version and expiry of a document.
pub fn end_of(bytes: &[u8]) -> Option<(u64, UnixMs)> {
    let document = Document::parse("the", bytes).ok()?;
    let version = document.signed.get("version")?.as_u64()?;
    let expires = UnixMs::from_rfc3339(document.signed.get("expires")?.as_str()?).ok()?;
    Some((version, expires))
}

impl Standing {
    /// What a device that followed everything so far trusts.
    pub fn trusted(&self) -> Result<Trusted, PublishError> {
        Trusted::new(self.root.clone(), self.seen()).map_err(PublishError::Refused)
    }

    /// The versions that such a device has seen.
    pub fn seen(&self) -> Seen {
        Seen {
            timestamp: self.timestamp_end().map_or(0, |(version, _)| version),
            snapshot: self.snapshot_end().map_or(0, |(version, _)| version),
            roles: self.seen_roles(),
        }
    }

    /// What `store` holds.
    pub async fn read(store: &Store) -> Result<Self, PublishError> {
        let newest = async |role| store.newest_metadata(role).await.map_err(PublishError::Store);
        Ok(Self {
            root: newest("root").await?.ok_or(PublishError::NoRoot)?,
            roles: store.newest_roles().await.map_err(PublishError::Store)?,
            snapshot: newest("snapshot").await?,
            timestamp: newest("timestamp").await?,
        })
    }

    /// The root, verified.
    pub fn trusted_root(&self) -> Result<Verified<Root>, PublishError> {
        pinned_root(&self.root).map_err(PublishError::Refused)
    }

    /// Version and expiry of the snapshot.
    pub fn snapshot_end(&self) -> Option<(u64, UnixMs)> {
        end_of(self.snapshot.as_deref()?)
    }

    /// Version and expiry of the timestamp.
    pub fn timestamp_end(&self) -> Option<(u64, UnixMs)> {
        end_of(self.timestamp.as_deref()?)
    }

    fn snapshot_content(&self) -> Option<Snapshot> {
        let document = Document::parse("snapshot", self.snapshot.as_deref()?).ok()?;
        serde_json::from_value(document.signed).ok()
    }

    /// Versions of the roles that the stored snapshot lists.
    pub fn seen_roles(&self) -> BTreeMap<String, u64> {
        let listed = self.snapshot_content().map(|snapshot| snapshot.meta).unwrap_or_default();
        listed.into_iter().map(|(name, meta)| (name, meta.version)).collect()
    }

    /// Whether a new device would accept the stored snapshot and timestamp: they are fresh and by the root's keys.
    pub fn online_holds(&self, now: UnixMs) -> bool {
        let (Ok(root), Some(timestamp), Some(snapshot)) =
            (self.trusted_root(), &self.timestamp, &self.snapshot)
        else {
            return false;
        };
        let seen = Seen::default();
        fresh_timestamp(&root, timestamp, &seen, now)
            .and_then(|timestamp| fresh_snapshot(&root, snapshot, &timestamp, &seen, now))
            .is_ok()
    }

    /// The stored snapshot, if it says just `meta`.
    pub fn kept_snapshot(&self, meta: &BTreeMap<String, Meta>) -> Option<(u64, UnixMs, Vec<u8>)> {
        let (version, end) = self.snapshot_end()?;
        (self.snapshot_content()?.meta == *meta)
            .then(|| (version, end, self.snapshot.clone().unwrap_or_default()))
    }

    /// The version that the next snapshot or timestamp gets.
    pub fn next_version(&self, role: &'static str) -> Result<u64, PublishError> {
        let end = if role == "snapshot" { self.snapshot_end() } else { self.timestamp_end() };
        let version = end.map_or(0, |(version, _)| version);
        version.checked_add(1).ok_or(PublishError::LastVersion(role))
    }

    /// Version of the stored top-level targets; 0 for none.
    pub fn targets_version(&self) -> u64 {
        let top = self.roles.iter().find(|(role, _)| role == "targets");
        top.and_then(|(_, bytes)| catalogue::content(bytes)).map_or(0, |targets| targets.version)
    }

    /// What a snapshot says of `roles`. A role once listed stays listed, as the specification asks.
    pub fn meta_of(&self, roles: &[RoleBytes]) -> Result<BTreeMap<String, Meta>, PublishError> {
        roles
            .iter()
            .map(|(role, bytes)| {
                let targets = catalogue::content(bytes)
                    .ok_or_else(|| PublishError::Unreadable(role.clone()))?;
                Ok((format!("{role}.json"), Meta::of(targets.version, bytes)))
            })
            .collect()
    }

    /// All roles with what is wanted in their place, and what of it is new.
    pub fn overlaid(
        &self,
        wanted: &Publication,
    ) -> Result<(Vec<RoleBytes>, Vec<Metadata>), PublishError> {
        let mut roles: BTreeMap<String, Vec<u8>> = self.roles.iter().cloned().collect();
        let mut new = Vec::new();
        let top = wanted.targets.iter().map(|bytes| ("targets".to_owned(), bytes.clone()));
        for (role, bytes) in top.chain(wanted.roles.iter().cloned()) {
            let unreadable = || PublishError::Unreadable(role.chars().take(80).collect());
            if role != "targets" && !is_role_name(&role) {
                return Err(unreadable());
            }
            let version = catalogue::content(&bytes).ok_or_else(unreadable)?.version;
            let known = roles.insert(role.clone(), bytes.clone());
            let known_version =
                known.as_deref().and_then(catalogue::content).map(|targets| targets.version);
            if known.as_deref() == Some(bytes.as_slice()) {
                continue;
            }
            if known_version == Some(version) {
                return Err(PublishError::SameVersion { role, version });
            }
            new.push(Metadata { role, version, bytes });
        }
        let roles: Vec<RoleBytes> = roles.into_iter().collect();
        if !roles.iter().any(|(role, _)| role == "targets") {
            return Err(PublishError::MissingRole("targets".into()));
        }
        let delegated = Catalogue::delegated(&roles);
        match delegated.keys().find(|name| !roles.iter().any(|(role, _)| role == *name)) {
            Some(missing) => Err(PublishError::MissingRole(missing.clone())),
            None => Ok((roles, new)),
        }
    }
}
