//! What may be published: roots that follow each other, and releases that the newest root's keys signed.

use std::sync::Arc;

use protocol::{
    digest::Digest,
    manifest::Object,
    time::UnixMs,
    tuf::{
        document::Document,
        early::{Floor, VerifyError, fresh_targets, listed_release, newest_root, pinned_root},
        metadata::{Root, Targets},
    },
    verified::Verified,
};
use tokio::sync::Mutex;

use crate::{
    artifacts::{ArtifactError, Artifacts},
    clock::Clock,
    store::{
        database::{Store, StoreError},
        releases::{Metadata, Release},
    },
};

/// Publishes. One at a time: what is checked must still hold when it is written.
#[derive(Clone)]
pub struct Publisher {
    store: Store,
    artifacts: Artifacts,
    clock: Clock,
    turn: Arc<Mutex<()>>,
}

/// Why something was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is nothing to check a release against.
    #[error("no root is published yet; publish metadata/1.root.json first")]
    NoRoot,
    /// The root, or what is signed under it.
    #[error("refused by the verifier")]
    Refused(#[source] VerifyError),
    /// A first root that is not the first.
    #[error("the first root published must have version 1, not {0}")]
    FirstRoot(u64),
    /// The same version with another content.
    #[error(
        "targets metadata version {0} is published already with another content; raise its version and sign it again"
    )]
    SameVersion(u64),
    /// A counter that does not grow.
    #[error(
        "release counter {got} is not above {newest} of the newest release; build it with a higher one"
    )]
    Counter {
        /// Newest published.
        newest: u64,
        /// Offered.
        got: u64,
    },
    /// A name that is taken.
    #[error("a release named `{0}` is published already with another content; choose another name")]
    Name(String),
    /// Objects that must be uploaded first.
    #[error("{} objects of the release are not uploaded", .0.len())]
    Missing(Vec<Digest>),
    /// The store.
    #[error("storing what is published")]
    Store(#[source] StoreError),
    /// The objects.
    #[error("storing the manifest")]
    Artifacts(#[source] ArtifactError),
}

impl Publisher {
    /// A publisher into `store` and `artifacts`.
    pub fn new(store: Store, artifacts: Artifacts, clock: Clock) -> Self {
        Self { store, artifacts, clock, turn: Arc::default() }
    }

    /// Publishes a root: the first one as it is (tokens pin it), later ones as successors. Returns its version.
    pub async fn root(&self, bytes: Vec<u8>) -> Result<u64, PublishError> {
        let _turn = self.turn.lock().await;
        let newest = self.newest("root").await?;
        let version = match newest {
            None => {
                let root = pinned_root(&bytes).map_err(PublishError::Refused)?;
                let version = root.get().version;
                if version == 1 { version } else { return Err(PublishError::FirstRoot(version)) }
            }
            Some(known) if known == bytes => return version_of(&known),
            Some(known) => {
                let trusted = pinned_root(&known).map_err(PublishError::Refused)?;
                let next = newest_root(trusted, std::slice::from_ref(&bytes))
                    .map_err(PublishError::Refused)?;
                next.get().version
            }
        };
        let mut writing = self.store.begin().await.map_err(PublishError::Store)?;
        let metadata = Metadata { role: "root", version, bytes };
        self.store
            .add_metadata(&mut writing, &metadata, self.clock.now())
            .await
            .map_err(PublishError::Store)?;
        self.store.commit(writing).await.map_err(PublishError::Store)?;
        Ok(version)
    }

    /// Publishes a release whose objects are all there.
    pub async fn release(
        &self,
        targets: Vec<u8>,
        manifest: Vec<u8>,
    ) -> Result<Release, PublishError> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let root = self.trusted_root().await?;
        let known = self.newest("targets").await?;
        let verified = self.targets(&root, &targets, known.as_deref(), now)?;
        let release = listed_release(&verified, &manifest).map_err(PublishError::Refused)?;
        let (digest, parsed) = (release.get().digest, &release.get().manifest);
        let published = self.store.releases().await.map_err(PublishError::Store)?;
        let again = published.iter().find(|other| other.digest == digest);
        if again.is_none() {
            let newest = published.iter().map(|other| other.counter).max().unwrap_or(0);
            if parsed.counter <= newest {
                return Err(PublishError::Counter { newest, got: parsed.counter });
            }
            if published.iter().any(|other| other.name == parsed.name) {
                return Err(PublishError::Name(parsed.name.clone()));
            }
        }
        self.complete(&parsed.published()).await?;
        let row = Release {
            digest,
            name: parsed.name.clone(),
            counter: parsed.counter,
            targets_version: verified.get().version,
            manifest_bytes: manifest.len() as u64,
            agent_version: parsed.agent_version.clone(),
            published_at: again.map_or(now, |release| release.published_at),
        };
        // The manifest is an object too: devices fetch it by the release's digest.
        self.artifacts.put_bytes(manifest).await.map_err(PublishError::Artifacts)?;
        let new = (known.as_deref() != Some(targets.as_slice())).then(|| Metadata {
            role: "targets",
            version: verified.get().version,
            bytes: targets,
        });
        let new_release = again.is_none().then_some(&row);
        self.write(new, new_release, (&published, verified.get()), now)
            .await
            .map_err(PublishError::Store)?;
        Ok(row)
    }

    fn targets(
        &self,
        root: &Verified<Root>,
        targets: &[u8],
        known: Option<&[u8]>,
        now: UnixMs,
    ) -> Result<Verified<Targets>, PublishError> {
        let floor = match known {
            None => 0,
            Some(known) => {
                // It was verified when it was stored. By the newest root it may not hold any more: its keys may have
                // been replaced since, which must not end publishing.
                stored_version(known).map_err(PublishError::Refused)?
            }
        };
        let floor = Floor { targets_version: floor, counter: 0 };
        let verified = fresh_targets(root, targets, floor, now).map_err(PublishError::Refused)?;
        let version = verified.get().version;
        if known.is_some_and(|known| version == floor.targets_version && known != targets) {
            return Err(PublishError::SameVersion(version));
        }
        Ok(verified)
    }

    async fn complete(&self, objects: &[Object]) -> Result<(), PublishError> {
        let mut missing = Vec::new();
        for object in objects {
            let length =
                self.artifacts.length(object.sha256).await.map_err(PublishError::Artifacts)?;
            if length != Some(object.length) {
                missing.push(object.sha256);
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(PublishError::Missing(missing)) }
    }

    async fn write(
        &self,
        metadata: Option<Metadata>,
        release: Option<&Release>,
        (published, targets): (&[Release], &Targets),
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let mut writing = self.store.begin().await?;
        if let Some(metadata) = metadata {
            self.store.add_metadata(&mut writing, &metadata, now).await?;
        }
        if let Some(release) = release {
            self.store.add_release(&mut writing, release).await?;
        }
        for other in published {
            let listed = targets.targets.values().any(|target| {
                target.sha256() == Some(other.digest) && target.length == other.manifest_bytes
            });
            if listed {
                self.store.relist_release(&mut writing, other.digest, targets.version).await?;
            }
        }
        self.store.commit(writing).await
    }

    async fn trusted_root(&self) -> Result<Verified<Root>, PublishError> {
        let bytes = self.newest("root").await?.ok_or(PublishError::NoRoot)?;
        pinned_root(&bytes).map_err(PublishError::Refused)
    }

    async fn newest(&self, role: &'static str) -> Result<Option<Vec<u8>>, PublishError> {
        self.store.newest_metadata(role).await.map_err(PublishError::Store)
    }
}

fn version_of(root: &[u8]) -> Result<u64, PublishError> {
    Ok(pinned_root(root).map_err(PublishError::Refused)?.get().version)
}

/// The version of targets metadata that we stored.
fn stored_version(stored: &[u8]) -> Result<u64, VerifyError> {
    let role = "targets";
    let document = Document::parse(role, stored)
        .map_err(|source| VerifyError::Document { role: role.to_owned(), source })?;
    serde_json::from_value::<Targets>(document.signed)
        .map(|targets| targets.version)
        .map_err(|source| VerifyError::Content { role: role.to_owned(), source })
}
