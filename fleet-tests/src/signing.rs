//! The keys of a fleet: a root and a targets role of three keys each, of which two must sign, and a controller.

use anyhow::Context as _;
use protocol::{
    key::SigningKey,
    time::UnixMs,
    tuf::{
        document::Document,
        metadata::{Key, Role, Root, SPEC_VERSION, Target, Targets},
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
        Ok(Self { root: three()?, targets: three()?, controller: new_key()? })
    }

    /// Root metadata of `version`, signed by two of its own keys.
    pub fn root(&self, version: u64) -> anyhow::Result<Vec<u8>> {
        let mut keys = std::collections::BTreeMap::new();
        let mut role = |signers: &[SigningKey]| -> anyhow::Result<Role> {
            let mut keyids = Vec::new();
            for signer in signers {
                let key = Key::ed25519(&signer.public());
                let id = key.id()?;
                keys.insert(id.clone(), key);
                keyids.push(id);
            }
            Ok(Role { keyids, threshold: 2 })
        };
        let roles =
            [("root".to_owned(), role(&self.root)?), ("targets".to_owned(), role(&self.targets)?)];
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
