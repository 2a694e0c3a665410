//! The keys of a fleet: a root and a targets role of three keys each, of which two must sign, and a controller with its
//! key for snapshots and timestamps.

use anyhow::Context as _;
use protocol::{
    key::SigningKey,
    time::UnixMs,
    tuf::{
        document::Document,
        metadata::{Key, Meta, Role, Root, SPEC_VERSION, Snapshot, Target, Targets, Timestamp},
    },
};
use ring::rand::SystemRandom;

/// When the metadata made here expires.
pub const EXPIRES: UnixMs = UnixMs(4_070_908_800_000);

/// The keys of a fleet.
#[derive(Debug)]
pub struct FleetKeys {
    /// Root keys.
    pub root: Vec<SigningKey>,
    /// Targets keys.
    pub targets: Vec<SigningKey>,
    /// The controller's key.
    pub controller: SigningKey,
    /// Signs snapshots and timestamps.
    pub online: SigningKey,
}

/// What the controller signs about targets metadata.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Timestamp metadata.
    pub timestamp: Vec<u8>,
    /// Snapshot metadata.
    pub snapshot: Vec<u8>,
}

/// A new key.
pub fn new_key() -> anyhow::Result<SigningKey> {
    let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).context("making a key")?;
    SigningKey::from_pkcs8(&pkcs8).context("reading a key")
}

impl FleetKeys {
    /// New keys.
    pub fn new() -> anyhow::Result<Self> {
        let three = || (0..3).map(|_| new_key()).collect::<anyhow::Result<Vec<_>>>();
        Ok(Self { root: three()?, targets: three()?, controller: new_key()?, online: new_key()? })
    }

    /// Root metadata of `version`, signed by two of its own keys.
    pub fn root(&self, version: u64) -> anyhow::Result<Vec<u8>> {
        let mut keys = std::collections::BTreeMap::new();
        let mut role = |signers: &[SigningKey], threshold| -> anyhow::Result<Role> {
            let mut keyids = Vec::new();
            for signer in signers {
                let key = Key::ed25519(&signer.public());
                let id = key.id()?;
                keys.insert(id.clone(), key);
                keyids.push(id);
            }
            Ok(Role { keyids, threshold })
        };
        let online = std::slice::from_ref(&self.online);
        let roles = [
            ("root".to_owned(), role(&self.root, 2)?),
            ("targets".to_owned(), role(&self.targets, 2)?),
            ("snapshot".to_owned(), role(online, 1)?),
            ("timestamp".to_owned(), role(online, 1)?),
        ];
        let root = Root {
            kind: "root".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires: EXPIRES.to_rfc3339(),
            consistent_snapshot: true,
            roles: roles.into(),
            keys,
            other: std::collections::BTreeMap::new(),
        };
        signed(&root, self.root.iter().take(2))
    }

    /// Targets metadata of `version` that lists one manifest, signed by `signers` of the targets keys.
    pub fn targets(
        &self,
        version: u64,
        path: &str,
        manifest: &[u8],
        signers: usize,
    ) -> anyhow::Result<Vec<u8>> {
        let targets = Targets {
            kind: "targets".into(),
            delegations: None,
            spec_version: SPEC_VERSION.into(),
            version,
            expires: EXPIRES.to_rfc3339(),
            targets: [(path.to_owned(), Target::of(manifest))].into(),
            other: std::collections::BTreeMap::new(),
        };
        signed(&targets, self.targets.iter().take(signers))
    }

    /// Snapshot and timestamp metadata of `version` that list `targets` of the same version.
    pub fn listing(&self, version: u64, targets: &[u8]) -> anyhow::Result<Listing> {
        let expires = EXPIRES.to_rfc3339();
        let roles = [("targets".to_owned(), Meta::of(version, targets))];
        let snapshot = signed(&Snapshot::of(version, expires.clone(), roles), [&self.online])?;
        let timestamp = Timestamp::of(version, expires, Meta::of(version, &snapshot));
        Ok(Listing { timestamp: signed(&timestamp, [&self.online])?, snapshot })
    }
}

/// A TUF document with `content`, signed by `keys`.
pub fn signed<'a, T: serde::Serialize>(
    content: &T,
    keys: impl IntoIterator<Item = &'a SigningKey>,
) -> anyhow::Result<Vec<u8>> {
    let mut document = Document::unsigned(content)?;
    for key in keys {
        document.sign(key)?;
    }
    Ok(document.to_bytes()?)
}
