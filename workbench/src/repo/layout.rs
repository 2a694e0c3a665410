//! Where things lie in a repository folder: under the names that a controller serves them by, so that any web server
//! can take its place.

use std::{
    fs,
    path::{Path, PathBuf},
};

use protocol::digest::Digest;

use crate::files::FileError;

/// A repository folder: `metadata/`, `sha256/` and, for other clients of TUF, `targets/`.
#[derive(Clone, Debug)]
pub struct RepoFolder(PathBuf);

impl RepoFolder {
    /// The repository in `path`.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of metadata.
    pub fn metadata_folder(&self) -> PathBuf {
        self.0.join("metadata")
    }

    /// One metadata file.
    pub fn metadata(&self, file: &str) -> PathBuf {
        self.metadata_folder().join(file)
    }

    /// The folder of objects.
    pub fn objects(&self) -> PathBuf {
        self.0.join("sha256")
    }

    /// One object.
    pub fn object(&self, digest: &Digest) -> PathBuf {
        self.objects().join(digest.to_string())
    }

    /// A listed file under the name that consistent snapshots give it; none for a path that would lead elsewhere.
    pub fn target(&self, path: &str, digest: &Digest) -> Option<PathBuf> {
        let safe =
            |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\\');
        if !path.split('/').all(safe) {
            return None;
        }
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        Some(self.0.join("targets").join(folder).join(format!("{digest}.{file}")))
    }

    /// The newest version of each role that lies in the folder, with its file: `targets` → (7, …/7.targets.json).
    pub fn newest(&self) -> Result<Vec<(String, u64, PathBuf)>, FileError> {
        let folder = self.metadata_folder();
        let failed = |source| FileError::Read { path: folder.clone(), source };
        let mut found: Vec<(String, u64, PathBuf)> = Vec::new();
        if !folder.exists() {
            return Ok(found);
        }
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((version, role)) = versioned(name) else { continue };
            match found.iter_mut().find(|(other, ..)| other == role) {
                Some(known) if known.1 < version => *known = (role.to_owned(), version, path),
                Some(_) => {}
                None => found.push((role.to_owned(), version, path)),
            }
        }
        found.sort();
        Ok(found)
    }
}

/// `7.targets.json` → (7, `targets`).
pub fn versioned(file: &str) -> Option<(u64, &str)> {
    let (version, role) = file.strip_suffix(".json")?.split_once('.')?;
    Some((version.parse().ok()?, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_path_stays_in_the_folder() {
        let folder = RepoFolder::new(Path::new("/r"));
        let digest = Digest::of(b"x");
        let inside = folder.target("env/prod/r1.json", &digest).unwrap();
        assert_eq!(inside, Path::new(&format!("/r/targets/env/prod/{digest}.r1.json")));
        for path in ["../x", "/etc/x", "a//b", "a/./b", "a/..", "", "a\\b"] {
            assert_eq!(folder.target(path, &digest), None, "{path}");
        }
    }
}
