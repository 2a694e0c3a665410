//! A release on the operator's disk.

use std::path::{Path, PathBuf};

use protocol::digest::Digest;

/// The folder that `socle release build` makes.
#[derive(Clone, Debug)]
pub struct ReleaseFolder(PathBuf);

impl ReleaseFolder {
    /// The release in `path`.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The manifest.
    pub fn manifest(&self) -> PathBuf {
        self.0.join("manifest.json")
    }

    /// Targets metadata that lists this release and those before it.
    pub fn targets(&self) -> PathBuf {
        self.0.join("targets.json")
    }

    /// Metadata of `role` that lists this release: `targets.json`, or that of a role which targets delegates to.
    pub fn document(&self, role: &str) -> PathBuf {
        self.0.join(format!("{role}.json"))
    }

    /// Where the objects lie.
    pub fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// What travels under `digest`.
    pub fn object(&self, digest: &Digest) -> PathBuf {
        self.objects().join(digest.to_string())
    }
}
