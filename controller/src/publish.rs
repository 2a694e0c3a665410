//! What may be published: roots that follow each other, and metadata and releases that a device would accept. The
//! controller signs snapshot and timestamp over them, then looks at the whole as a device of each environment would;
//! nothing is stored before that succeeded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
};

use protocol::{
    digest::Digest,
    id::{Environment, FleetId},
    manifest::{Manifest, Object},
    time::UnixMs,
    tuf::{
        chain::{newest_root, pinned_root},
        document::Document,
        permit::{self, Holder, Permit, PermitError},
        refusal::VerifyError,
        verify::{Offered, Trusted, resolve, verify},
    },
};
use tokio::sync::Mutex;

use crate::{
    artifacts::Artifacts,
    catalogue::{self, Catalogue, RoleBytes},
    clock::Clock,
    metrics::Metrics,
    online::OnlineRoles,
    publication::{Publication, PublishError},
    published::{self, OnlinePair, Standing},
    store::{
        self,
        database::{Store, StoreError},
        releases::{Metadata, Release},
    },
};

/// Old snapshots and timestamps that stay to be fetched.
const ONLINE_KEPT: u32 = 16;
/// A path that no role lists: asking for it reads the top-level targets.
const NO_PATH: &str = "-";

/// Publishes. One at a time: what is checked must still hold when it is written.
#[derive(Clone)]
pub struct Publisher {
    store: Store,
    artifacts: Artifacts,
    clock: Clock,
    online: Arc<OnlineRoles>,
    metrics: Metrics,
    turn: Arc<Mutex<()>>,
    catalogue: Arc<RwLock<Arc<Catalogue>>>,
}

/// Where snapshot and timestamp stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnlineState {
    /// Whether the newest root names our keys.
    pub ours: bool,
    /// Version and end of the snapshot.
    pub snapshot: Option<(u64, UnixMs)>,
    /// Version and end of the timestamp.
    pub timestamp: Option<(u64, UnixMs)>,
}

impl Publisher {
    /// A publisher into `store` and `artifacts`.
    pub async fn open(
        store: Store,
        artifacts: Artifacts,
        online: Arc<OnlineRoles>,
        (clock, metrics): (Clock, Metrics),
    ) -> Result<Self, StoreError> {
        let catalogue = Catalogue::of(&store.newest_roles().await?);
        Ok(Self {
            store,
            artifacts,
            clock,
            online,
            metrics,
            turn: Arc::default(),
            catalogue: Arc::new(RwLock::new(Arc::new(catalogue))),
        })
    }

    /// What the published metadata lists.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes a root: the first one as it is (tokens pin it), later ones as successors, also of one that expired.
    /// Returns its version.
    pub async fn root(&self, bytes: Vec<u8>) -> Result<u64, PublishError> {
        let _turn = self.turn.lock().await;
        let newest = self.store.newest_metadata("root").await.map_err(PublishError::Store)?;
        let refused = PublishError::Refused;
        let version = match newest {
            None => {
                let version = pinned_root(&bytes).map_err(refused)?.get().version;
                if version == 1 { version } else { return Err(PublishError::FirstRoot(version)) }
            }
            Some(known) => {
                let trusted = pinned_root(&known).map_err(refused)?;
                if known == bytes {
                    return Ok(trusted.get().version);
                }
                newest_root(trusted, std::slice::from_ref(&bytes)).map_err(refused)?.get().version
            }
        };
        let mut writing = self.store.begin().await.map_err(PublishError::Store)?;
        let metadata = Metadata { role: "root".into(), version, bytes };
        self.store
            .add_metadata(&mut writing, &metadata, self.clock.now())
            .await
            .map_err(PublishError::Store)?;
        self.store.commit(writing).await.map_err(PublishError::Store)?;
        // Keys may have changed: what they signed is signed again at once.
        self.refreshed().await?;
        Ok(version)
    }

    /// Publishes metadata, and the release if there is one, whose objects are all there.
    pub async fn publish(&self, wanted: Publication) -> Result<Option<Release>, PublishError> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        if wanted.targets.is_none() && wanted.roles.is_empty() && wanted.manifest.is_none() {
            return Err(PublishError::Empty);
        }
        let standing = Standing::read(&self.store).await?;
        let (roles, new) = standing.overlaid(&wanted)?;
        let pair = match wanted.online {
            Some((snapshot, timestamp)) if !self.ours(&standing)? => {
                OnlinePair::given(snapshot, timestamp)?
            }
            Some(_) | None => self.signed(&standing, &roles, now)?,
        };
        let trusted = standing.trusted()?;
        let mut offered = Offered {
            roots: Vec::new(),
            timestamp: pair.timestamp.1.clone(),
            snapshot: pair.snapshot.1.clone(),
            roles: roles.clone(),
            manifest: wanted.manifest.unwrap_or_default(),
        };
        walk_everywhere(&trusted, &offered, &new, now)?;
        let listing = Catalogue::of(&roles);
        let release = if offered.manifest.is_empty() {
            None
        } else {
            let row = self.checked(&trusted, &offered, &listing, now).await?;
            // The manifest is an object too: devices fetch it by the release's digest.
            let manifest = std::mem::take(&mut offered.manifest);
            self.artifacts.put_bytes(manifest).await.map_err(PublishError::Artifacts)?;
            Some(row)
        };
        self.write(&standing, new, &pair, (release.as_ref(), &listing), now)
            .await
            .map_err(PublishError::Store)?;
        self.note(&pair);
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(listing);
        Ok(release)
    }

    /// Publishes a permit for a device to install an older release, if those who sign for the release allow it. The
    /// device checks it again.
    pub async fn permit(
        &self,
        bytes: Vec<u8>,
        fleet: &FleetId,
    ) -> Result<store::permits::Permit, PublishError> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let written = Document::parse(permit::KIND, &bytes)
            .map_err(|source| PublishError::Permit(PermitError::Signatures(source)))?;
        let written: Permit = serde_json::from_value(written.signed)
            .map_err(|source| PublishError::Permit(PermitError::Content(source)))?;
        let digest = written.release;
        let standing = Standing::read(&self.store).await?;
        let known = self.store.release(&digest.to_string()).await.map_err(PublishError::Store)?;
        let known = known.ok_or(PublishError::NoRelease(digest))?;
        let device = self.store.device(written.device).await.map_err(PublishError::Store)?;
        let device = device.ok_or(PublishError::NoDevice(written.device))?;
        let manifest = self.artifacts.bytes(digest).await.map_err(PublishError::Artifacts)?;
        let offered = Offered {
            roots: Vec::new(),
            timestamp: standing.timestamp.clone().unwrap_or_default(),
            snapshot: standing.snapshot.clone().unwrap_or_default(),
            roles: standing.roles.clone(),
            manifest,
        };
        let (_, release) = verify(&standing.trusted()?, &offered, &device.environment, now)
            .map_err(PublishError::Refused)?;
        let holder = Holder { fleet, device: device.id };
        let holds =
            permit::permitted(&release, &bytes, holder, now).map_err(PublishError::Permit)?;
        let expires_at = UnixMs::from_rfc3339(&holds.get().expires)
            .map_err(|source| PublishError::Permit(PermitError::Expiry(source)))?;
        let object = self.artifacts.put_bytes(bytes).await.map_err(PublishError::Artifacts)?;
        let kept = store::permits::Permit {
            digest: object,
            device: device.id,
            release: known.digest,
            expires_at,
        };
        self.store.add_permit(&kept, now).await.map_err(PublishError::Store)?;
        Ok(kept)
    }

    /// Signs timestamp, and snapshot, again where they are due; whether it did. To be called every now and then.
    pub async fn refresh(&self) -> Result<bool, PublishError> {
        let _turn = self.turn.lock().await;
        self.refreshed().await
    }

    /// Where snapshot and timestamp stand.
    pub async fn online_state(&self) -> Result<OnlineState, PublishError> {
        match Standing::read(&self.store).await {
            Ok(standing) => Ok(OnlineState {
                ours: self.ours(&standing)?,
                snapshot: standing.snapshot_end(),
                timestamp: standing.timestamp_end(),
            }),
            Err(PublishError::NoRoot) => Ok(OnlineState::default()),
            Err(other) => Err(other),
        }
    }

    async fn refreshed(&self) -> Result<bool, PublishError> {
        let now = self.clock.now();
        let standing = Standing::read(&self.store).await?;
        if standing.roles.is_empty() || !self.ours(&standing)? {
            return Ok(false);
        }
        let due = standing
            .timestamp_end()
            .is_none_or(|(_, end)| self.online.timestamp_due(end, now))
            || standing.snapshot_end().is_none_or(|(_, end)| self.online.snapshot_due(end, now))
            || !standing.online_holds(now);
        if !due {
            return Ok(false);
        }
        let pair = self.signed(&standing, &standing.roles, now)?;
        let mut writing = self.store.begin().await.map_err(PublishError::Store)?;
        self.write_online(&mut writing, &standing, &pair, now)
            .await
            .map_err(PublishError::Store)?;
        self.store.commit(writing).await.map_err(PublishError::Store)?;
        self.note(&pair);
        Ok(true)
    }

    fn ours(&self, standing: &Standing) -> Result<bool, PublishError> {
        Ok(self.online.named_by(standing.trusted_root()?.get()))
    }

    /// The next timestamp, and a snapshot of `roles`: the stored one where it says the same and holds for long.
    fn signed(
        &self,
        standing: &Standing,
        roles: &[RoleBytes],
        now: UnixMs,
    ) -> Result<OnlinePair, PublishError> {
        if !self.ours(standing)? {
            return Err(PublishError::NotOurs);
        }
        let meta = standing.meta_of(roles)?;
        let kept = standing.kept_snapshot(&meta).filter(|(_, end, _)| {
            !self.online.snapshot_due(*end, now) && standing.online_holds(now)
        });
        let snapshot = match kept {
            Some((version, _, bytes)) => (version, bytes),
            None => {
                let version = standing.next_version("snapshot")?;
                (version, self.online.snapshot(version, meta, now).map_err(PublishError::Sign)?)
            }
        };
        let version = standing.next_version("timestamp")?;
        let timestamp = self
            .online
            .timestamp(version, (snapshot.0, &snapshot.1), now)
            .map_err(PublishError::Sign)?;
        Ok(OnlinePair { snapshot, timestamp: (version, timestamp) })
    }

    /// The release as it will be stored, if a device of at least one environment accepts it.
    async fn checked(
        &self,
        trusted: &Trusted,
        offered: &Offered,
        listing: &Catalogue,
        now: UnixMs,
    ) -> Result<Release, PublishError> {
        let digest = Digest::of(&offered.manifest);
        let manifest = Manifest::parse(&offered.manifest)
            .map_err(|source| PublishError::Refused(VerifyError::Manifest { digest, source }))?;
        let mut environments = BTreeSet::new();
        let mut refused = VerifyError::NotListed {
            digest,
            path: format!("env/<environment>/{}.json", manifest.name),
        };
        for environment in listing.environments(&manifest.name, digest) {
            match verify(trusted, offered, &environment, now) {
                Ok(_) => drop(environments.insert(environment)),
                Err(error) => refused = error,
            }
        }
        if environments.is_empty() {
            return Err(PublishError::Refused(refused));
        }
        let published = self.store.releases().await.map_err(PublishError::Store)?;
        let again = published.iter().find(|other| other.digest == digest);
        if again.is_none() {
            let newest = published.iter().map(|other| other.counter).max().unwrap_or(0);
            if manifest.counter <= newest {
                return Err(PublishError::Counter { newest, got: manifest.counter });
            }
            if published.iter().any(|other| other.name == manifest.name) {
                return Err(PublishError::Name(manifest.name));
            }
        }
        self.complete(&manifest.published()).await?;
        let top = offered.roles.iter().find(|(role, _)| role == "targets");
        let top = top.and_then(|(_, bytes)| catalogue::content(bytes));
        Ok(Release {
            digest,
            name: manifest.name,
            counter: manifest.counter,
            targets_version: top.map_or(0, |targets| targets.version),
            manifest_bytes: offered.manifest.len() as u64,
            agent_version: manifest.agent_version,
            published_at: again.map_or(now, |release| release.published_at),
            environments,
        })
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
        standing: &Standing,
        new: Vec<Metadata>,
        pair: &OnlinePair,
        (release, listing): (Option<&Release>, &Catalogue),
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let published = self.store.releases().await?;
        let top = new.iter().find(|metadata| metadata.role == "targets");
        let version = top.map_or_else(|| standing.targets_version(), |metadata| metadata.version);
        let mut writing = self.store.begin().await?;
        for metadata in &new {
            self.store.add_metadata(&mut writing, metadata, now).await?;
        }
        self.write_online(&mut writing, standing, pair, now).await?;
        let mut listed: BTreeMap<Digest, BTreeSet<Environment>> = published
            .iter()
            .map(|other| (other.digest, listing.environments(&other.name, other.digest)))
            .collect();
        if let Some(release) = release {
            if !listed.contains_key(&release.digest) {
                self.store.add_release(&mut writing, release).await?;
            }
            // Here a device's whole check counts, not the list alone.
            listed.insert(release.digest, release.environments.clone());
        }
        for (digest, environments) in &listed {
            self.store.relist_release(&mut writing, *digest, (version, environments)).await?;
        }
        self.store.commit(writing).await
    }

    async fn write_online(
        &self,
        writing: &mut crate::store::database::Writing,
        standing: &Standing,
        pair: &OnlinePair,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let OnlinePair { snapshot, timestamp } = pair;
        for (role, (version, bytes), known) in [
            ("snapshot", snapshot, &standing.snapshot),
            ("timestamp", timestamp, &standing.timestamp),
        ] {
            if known.as_deref() != Some(bytes.as_slice()) {
                let (role, version, bytes) = (role.to_owned(), *version, bytes.clone());
                let metadata = Metadata { role, version, bytes };
                self.store.add_metadata(writing, &metadata, now).await?;
            }
        }
        self.store.forget_online(writing, ONLINE_KEPT).await
    }

    fn note(&self, pair: &OnlinePair) {
        if let Some((version, end)) = published::end_of(&pair.timestamp.1) {
            self.metrics.timestamp(version, end);
        }
    }
}

/// Reads every role once as a device would, so that one that does not verify is refused before it is stored. A
/// delegated role that was stored before and has expired since is its keepers' matter: it does not hold up the others.
fn walk_everywhere(
    trusted: &Trusted,
    offered: &Offered,
    new: &[Metadata],
    now: UnixMs,
) -> Result<(), PublishError> {
    let probes = Catalogue::delegated(&offered.roles);
    let paths = probes.values().flatten().map(String::as_str);
    for path in std::iter::once(NO_PATH).chain(paths) {
        match resolve(trusted, offered, path, now) {
            Err(VerifyError::Expired { role, expires })
                if role != "targets"
                    && probes.contains_key(&role)
                    && !new.iter().any(|metadata| metadata.role == role) =>
            {
                tracing::warn!(role, "expired at {expires}; its keepers should sign it again");
            }
            other => drop(other.map_err(PublishError::Refused)?),
        }
    }
    Ok(())
}
