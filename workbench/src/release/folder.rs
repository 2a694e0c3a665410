//! A release on the operator's disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use protocol::digest::Digest;

use crate::files::FileError;

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

    /// All metadata of targets roles in the folder, by name.
    pub fn documents(&self) -> Result<Vec<PathBuf>, FileError> {
        let failed = |source| FileError::Read { path: self.0.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let json = path.extension().is_some_and(|end| end == "json");
            if json && path != self.manifest() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
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
