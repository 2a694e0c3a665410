//! A whole repository, read as a client would read it and a little more: every root, every role that the snapshot lists,
//! every release for every environment. What does not hold is named; what a client would stop at is an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io::Read as _,
};

use clap::Args;
use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    digest::Digest,
    id::Environment,
    manifest::Manifest,
    time::UnixMs,
    tuf::{
        chain::{Seen, TIMESTAMP_BYTES_MAX, fresh_snapshot, fresh_timestamp, pinned_root},
        document::Document,
        metadata::Targets,
        refusal::VerifyError,
        verify::{Offered, Trusted, verify},
        walk::Roles,
    },
};

use crate::repo::source::{Source, SourceError};

/// Most roots a repository may have: more than a root a day for two years.
const ROOTS_MAX: u64 = 1024;
const DOCUMENT_MAX: u64 = DOCUMENT_BYTES_MAX as u64;

/// Which releases are meant; without any word, all.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Only releases of this environment; repeat for more
    #[arg(long = "env", value_name = "ENV")]
    pub environments: Vec<Environment>,
    /// Only this release, by its name or SHA-256; repeat for more
    #[arg(long = "release", value_name = "NAME")]
    pub releases: Vec<String>,
}

/// What is trusted before anything is read.
#[derive(Clone, Debug)]
pub enum Anchor {
    /// The repository's own first root: it is shown, and a person compares it.
    FirstUse,
    /// This root; the repository must have it.
    Root(Vec<u8>),
    /// What an earlier copy had: nothing older is taken.
    Known(Box<Trusted>),
}

/// A targets role's document.
#[derive(Clone, Debug)]
pub struct RoleFile {
    /// Its name.
    pub role: String,
    /// Its version, as the snapshot lists it.
    pub version: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A release as it is listed for one environment.
#[derive(Clone, Debug)]
pub struct Listed {
    /// For whom.
    pub environment: Environment,
    /// Its digest.
    pub digest: Digest,
    /// What it is made of.
    pub manifest: Manifest,
    /// The manifest's bytes.
    pub bytes: Vec<u8>,
}

/// What was read.
#[derive(Debug)]
pub struct Collected {
    /// All roots, the first one first.
    pub roots: Vec<Vec<u8>>,
    /// What a client trusts afterwards.
    pub trusted: Trusted,
    /// The timestamp.
    pub timestamp: Vec<u8>,
    /// The snapshot's version and bytes.
    pub snapshot: (u64, Vec<u8>),
    /// The roles that it lists.
    pub roles: Vec<RoleFile>,
    /// The selected releases that hold.
    pub releases: Vec<Listed>,
    /// Listed paths and digests.
    pub listed: BTreeMap<String, Digest>,
    /// What does not hold, for people.
    pub problems: Vec<String>,
}

/// Why a repository cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// It cannot be read.
    #[error("reading the repository")]
    Source(#[from] SourceError),
    /// A file is missing.
    #[error("the repository has no {0}")]
    Absent(String),
    /// A client would refuse it.
    #[error("a client refuses the repository")]
    Refused(#[from] VerifyError),
    /// Another root than the one that is trusted.
    #[error(
        "the repository's root version {0} is another than the one trusted here: it belongs to another fleet, or was tampered with"
    )]
    OtherRoot(u64),
    /// More roots than any fleet has.
    #[error("the repository has more than {ROOTS_MAX} roots")]
    TooManyRoots,
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Selection {
    fn takes(&self, environment: &Environment, digest: Digest, name: &str) -> bool {
        let named = |wanted: &String| wanted == name || *wanted == digest.to_string();
        (self.environments.is_empty() || self.environments.contains(environment))
            && (self.releases.is_empty() || self.releases.iter().any(named))
    }
}

impl Collected {
    /// Reads what a client would, starting from `anchor`.
    pub fn read(
        source: &Source,
        anchor: &Anchor,
        selection: &Selection,
        now: UnixMs,
    ) -> Result<Self, CollectError> {
        let roots = read_roots(source)?;
        let trusted = trust(&roots, anchor)?;
        let timestamp = present(source, "timestamp.json", TIMESTAMP_BYTES_MAX as u64)?;
        let fresh = fresh_timestamp(trusted.root(), &timestamp, trusted.seen(), now)?;
        let version = fresh.get().snapshot().map_or(0, |meta| meta.version);
        let bytes = present(source, &format!("{version}.snapshot.json"), DOCUMENT_MAX)?;
        let snapshot = fresh_snapshot(trusted.root(), &bytes, &fresh, trusted.seen(), now)?;
        let mut roles = Vec::new();
        for (file, meta) in &snapshot.get().meta {
            let role = file.strip_suffix(".json").unwrap_or(file).to_owned();
            let bytes = present(source, &format!("{}.{file}", meta.version), DOCUMENT_MAX)?;
            roles.push(RoleFile { role, version: meta.version, bytes });
        }
        let documents: Vec<(String, Vec<u8>)> =
            roles.iter().map(|file| (file.role.clone(), file.bytes.clone())).collect();
        let mut walk = Roles::fresh(trusted.root(), &snapshot, &documents, now);
        walk.top()?;
        let mut problems = Vec::new();
        let listed = read_listed(&mut walk, &roles, &mut problems);
        let offered = Offered {
            roots: Vec::new(),
            timestamp: timestamp.clone(),
            snapshot: bytes.clone(),
            roles: documents.clone(),
            manifest: Vec::new(),
        };
        let seen = Seen::after(&fresh, &snapshot);
        let mut collected = Self {
            roots,
            trusted: Trusted::new(trusted.root_bytes().to_vec(), seen)?,
            timestamp,
            snapshot: (version, bytes),
            roles,
            releases: Vec::new(),
            listed,
            problems,
        };
        collected.read_releases(source, (&trusted, offered), selection, now)?;
        Ok(collected)
    }

    /// What the selected releases are made of: lengths by digest, the manifests included.
    pub fn objects(&self) -> BTreeMap<Digest, u64> {
        let mut objects = BTreeMap::new();
        for release in &self.releases {
            objects.insert(release.digest, release.bytes.len() as u64);
            let published = release.manifest.published();
            objects.extend(published.into_iter().map(|object| (object.sha256, object.length)));
        }
        objects
    }

    /// All metadata files by name, in the order in which they may be placed: the timestamp last, since with it a new
    /// state becomes visible.
    pub fn metadata(&self) -> Vec<(String, &[u8])> {
        let roots = self.roots.iter().zip(1_u64..);
        let mut files: Vec<(String, &[u8])> = roots
            .map(|(bytes, version)| (format!("{version}.root.json"), bytes.as_slice()))
            .collect();
        for RoleFile { role, version, bytes } in &self.roles {
            files.push((format!("{version}.{role}.json"), bytes));
        }
        files.push((format!("{}.snapshot.json", self.snapshot.0), &self.snapshot.1));
        files.push(("timestamp.json".to_owned(), &self.timestamp));
        files
    }

    fn read_releases(
        &mut self,
        source: &Source,
        (trusted, mut offered): (&Trusted, Offered),
        selection: &Selection,
        now: UnixMs,
    ) -> Result<(), CollectError> {
        for (path, digest) in self.listed.clone() {
            let Some((environment, name)) = release_path(&path) else { continue };
            if !selection.takes(&environment, digest, name) {
                continue;
            }
            let Some(reader) = source.object(&digest, DOCUMENT_MAX)? else {
                self.problems.push(format!("{path}: its manifest {digest} is missing"));
                continue;
            };
            let mut bytes = Vec::new();
            if let Err(error) = reader.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes) {
                self.problems
                    .push(format!("{path}: its manifest {digest} cannot be read: {error}"));
                continue;
            }
            offered.manifest = bytes;
            match verify(trusted, &offered, &environment, now) {
                Ok((_, release)) => {
                    let (manifest, bytes) =
                        (release.into_inner().manifest, std::mem::take(&mut offered.manifest));
                    self.releases.push(Listed { environment, digest, manifest, bytes });
                }
                Err(error) => self.problems.push(format!("{path}: {}", chain(&error))),
            }
        }
        Ok(())
    }
}

fn read_roots(source: &Source) -> Result<Vec<Vec<u8>>, CollectError> {
    let mut roots = Vec::new();
    for version in 1..=ROOTS_MAX {
        match source.metadata(&format!("{version}.root.json"), DOCUMENT_MAX)? {
            Some(bytes) => roots.push(bytes),
            None if version == 1 => return Err(CollectError::Absent("1.root.json".into())),
            None => return Ok(roots),
        }
    }
    Err(CollectError::TooManyRoots)
}

/// Walks from the anchor through all newer roots.
fn trust(roots: &[Vec<u8>], anchor: &Anchor) -> Result<Trusted, CollectError> {
    let mut trusted = match anchor {
        Anchor::FirstUse => {
            let first = roots.first().cloned().unwrap_or_default();
            Trusted::new(first, Seen::default())?
        }
        Anchor::Root(bytes) => Trusted::new(bytes.clone(), Seen::default())?,
        Anchor::Known(known) => (**known).clone(),
    };
    // Those before the anchor are served to devices that start from them; they must lead to it.
    let mut before = pinned_root(roots.first().map_or(&[], Vec::as_slice))?;
    let version = trusted.root().get().version;
    for bytes in roots.iter().skip(1) {
        before = protocol::tuf::chain::next_root(&before, bytes)?;
    }
    let at = usize::try_from(version).unwrap_or(usize::MAX);
    if version == 0 || roots.get(at - 1).map(Vec::as_slice) != Some(trusted.root_bytes()) {
        return Err(CollectError::OtherRoot(version));
    }
    for bytes in roots.iter().skip(at) {
        trusted = trusted.after_roots(std::slice::from_ref(bytes))?;
    }
    Ok(trusted)
}

fn present(source: &Source, file: &str, max: u64) -> Result<Vec<u8>, CollectError> {
    source.metadata(file, max)?.ok_or_else(|| CollectError::Absent(file.to_owned()))
}

/// What roles list, as far as a client that asks for the path comes to the same file. The rest is named.
fn read_listed(
    walk: &mut Roles<'_>,
    roles: &[RoleFile],
    problems: &mut Vec<String>,
) -> BTreeMap<String, Digest> {
    let mut listed = BTreeMap::new();
    let mut broken = BTreeSet::new();
    let reachable = reachable(roles);
    for RoleFile { role, bytes, .. } in roles {
        // A role that nobody delegates to any more stays in the snapshot; no client reads it.
        if !reachable.contains(role) {
            continue;
        }
        let Some(targets) = content(bytes) else {
            problems.push(format!("{role}.json is not targets metadata"));
            continue;
        };
        // Patterns of delegated roles, as a path: asking for one reads the role, though it list nothing yet.
        let probes = targets.delegations.iter().flat_map(|all| &all.roles);
        let probes = probes
            .filter_map(|role| role.paths.as_ref()?.first().map(|p| p.replace(['*', '?'], "0")));
        for path in probes.chain(targets.targets.keys().cloned()).collect::<Vec<_>>() {
            let mine = targets.targets.get(&path);
            match walk.walk(&path) {
                Err(error) => {
                    let text = chain(&error);
                    if broken.insert(text.clone()) {
                        problems.push(format!("{path}: {text}"));
                    }
                }
                Ok(found) => match (mine, found.target) {
                    (Some(_), None) => problems.push(format!(
                        "{role} lists `{path}`, for which nobody trusts it: no client believes it"
                    )),
                    (Some(mine), Some((target, by))) if *mine != target => problems.push(format!(
                        "{role} lists `{path}`, but {} is asked first and lists another file",
                        by.role()
                    )),
                    (_, Some((target, _))) => {
                        listed.extend(target.sha256().map(|digest| (path.clone(), digest)));
                    }
                    (None, None) => {}
                },
            }
        }
    }
    listed
}

/// The roles to which a way of delegations leads.
fn reachable(roles: &[RoleFile]) -> BTreeSet<String> {
    let mut waiting = vec!["targets".to_owned()];
    let mut found = BTreeSet::new();
    while let Some(role) = waiting.pop() {
        let document = roles.iter().find(|file| file.role == role);
        if found.insert(role) {
            let targets = document.and_then(|file| content(&file.bytes));
            let delegated = targets.and_then(|targets| targets.delegations);
            waiting.extend(delegated.into_iter().flat_map(|all| all.roles).map(|role| role.name));
        }
    }
    found
}

fn content(bytes: &[u8]) -> Option<Targets> {
    serde_json::from_value(Document::parse("targets", bytes).ok()?.signed).ok()
}

/// `env/prod/r1.json` → (prod, `r1`).
fn release_path(path: &str) -> Option<(Environment, &str)> {
    let (environment, file) = path.strip_prefix("env/")?.split_once('/')?;
    let name = file.strip_suffix(".json").filter(|name| !name.contains('/'))?;
    Some((environment.parse().ok()?, name))
}
