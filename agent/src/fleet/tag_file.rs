//! Which object a part is the beginning of, as its server tagged it: one small file beside the part, so that a download
//! goes on after a restart only if the server still has the same.

use std::{io, path::PathBuf};

use protocol::digest::Digest;
use slots::{
    disk::{Disk, RealDisk},
    layout::StateDir,
};

const BYTES_MAX: u64 = 4096;

/// The tag file of one object.
#[derive(Debug)]
pub struct TagFile(PathBuf);

impl TagFile {
    /// The tag file of `digest`.
    pub fn of(state: &StateDir, digest: &Digest) -> Self {
        Self(state.staged_objects().join(Self::name(digest)))
    }

    /// Its name in the staging area.
    pub fn name(digest: &Digest) -> String {
        format!("{digest}.tag")
    }

    /// The tag that the server at `base` gave. A file that cannot be read is as good as none: the digest decides.
    pub fn read(&self, base: &str) -> Option<String> {
        let bytes = RealDisk.read(&self.0, BYTES_MAX).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (tag, from) = text.split_once('\n')?;
        (from == base && tag.len() > 2).then(|| tag.to_owned())
    }

    /// Remembers the tag; none forgets it. It need not be durable.
    pub fn write(&self, base: &str, tag: Option<&str>) -> io::Result<()> {
        match tag {
            Some(tag) => {
                RealDisk.write(&self.0, &mut format!("{tag}\n{base}").as_bytes()).map(|_| ())
            }
            None => self.remove(),
        }
    }

    /// Forgets it.
    pub fn remove(&self) -> io::Result<()> {
        RealDisk.remove_file(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_counts_for_its_own_server_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        state.prepare(&RealDisk).unwrap();
        let file = TagFile::of(&state, &Digest::of(b"x"));
        assert_eq!(file.read("https://a"), None);
        file.write("https://a", Some("\"t\"")).unwrap();
        assert_eq!(file.read("https://a").as_deref(), Some("\"t\""));
        assert_eq!(file.read("https://b"), None);
        file.write("https://a", None).unwrap();
        assert_eq!(file.read("https://a"), None);
    }
}
