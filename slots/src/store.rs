//! The content store: files named by their SHA-256, each written once, verified while it is written, and linked into
//! the slots that use it.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::{Path, PathBuf},
};

use protocol::{
    digest::{Digest, Hasher},
    manifest::{Manifest, Object},
};

use crate::{
    disk::{Disk, open_regular},
    layout::StateDir,
    verify::hash,
};

/// The content store of a device. The updater alone writes it; everyone may ask it.
#[derive(Clone, Copy)]
pub struct Store<'a> {
    disk: &'a dyn Disk,
    dir: &'a StateDir,
}

/// Why a file is not stored or linked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The content is not what its name says.
    #[error(
        "object {digest} is not what it should be ({found}): it was altered or cut on its way; it is fetched again"
    )]
    Altered {
        /// Name.
        digest: Digest,
        /// What was found instead.
        found: String,
    },
    /// It is not in the store.
    #[error("object {0} is not in the store and was not staged; it has to be fetched again")]
    Missing(Digest),
    /// The disk is full.
    #[error("the disk is full while storing object {digest}; free some space below {root}")]
    Full {
        /// Object.
        digest: Digest,
        /// State folder.
        root: PathBuf,
    },
    /// Reading the source.
    #[error("reading the content of object {digest}")]
    Source {
        /// Object.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// Anything else.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl<'a> Store<'a> {
    /// The store below `dir`.
    pub const fn new(disk: &'a dyn Disk, dir: &'a StateDir) -> Self {
        Self { disk, dir }
    }

    /// Where the file `digest` lies, or would lie.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string();
        self.dir.store().join("sha256").join(&hex[..2]).join(&hex)
    }

    /// Whether the file is there. What is there was whole and verified when it was stored.
    pub fn has(&self, digest: &Digest) -> bool {
        matches!(self.disk.length(&self.path(digest)), Ok(Some(_)))
    }

    /// What has to be fetched before `manifest` can be installed: for each file that is not here, what travels for it.
    pub fn missing(&self, manifest: &Manifest) -> Vec<Object> {
        let mut objects: Vec<Object> = manifest
            .files
            .iter()
            .filter(|file| !self.has(&file.sha256))
            .map(protocol::manifest::File::object)
            .filter(|object| !self.has(&object.sha256))
            .collect();
        objects.sort_by_key(|object| object.sha256);
        objects.dedup();
        objects
    }

    /// Stores `content` as `object`, if it is exactly that. Its bytes are durable before it has a name. Nothing happens
    /// when it is there already.
    pub fn add(&self, object: Object, content: &mut dyn Read) -> Result<(), StoreError> {
        let digest = object.sha256;
        if self.has(&digest) {
            return Ok(());
        }
        let part = self.dir.store().join("tmp").join(digest.to_string());
        let mut checked = Checked { content, hasher: Hasher::default(), length: 0, failed: false };
        // One byte more than allowed is read, so that content that is too long is noticed and not stored.
        let mut bounded = (&mut checked).take(object.length.saturating_add(1));
        let written = self.disk.write(&part, &mut bounded);
        let (failed, length) = (checked.failed, checked.length);
        let found = checked.hasher.finish();
        if let Err(source) = written {
            // The part may be what fills the disk.
            drop(self.disk.remove_file(&part));
            return Err(self.write_failed(digest, &part, source, failed));
        }
        if length != object.length || found != digest {
            self.done("removing", &part, self.disk.remove_file(&part))?;
            let found = format!("{length} bytes with SHA-256 {found}");
            return Err(StoreError::Altered { digest, found });
        }
        self.keep(&part, digest, 0o444)
    }

    /// Stores the file at `from`, if it is exactly `object`: sharing its blocks where the file system can, so that only
    /// hashing is left to do. What is hashed is the store's own file, which nobody else has open.
    pub fn add_file(&self, object: Object, from: &Path) -> Result<(), StoreError> {
        let digest = object.sha256;
        if self.has(&digest) {
            return Ok(());
        }
        let source = |source| StoreError::Source { digest, source };
        let part = self.dir.store().join("tmp").join(digest.to_string());
        if !self.disk.reflink(from, &part).map_err(source)? {
            let mut content = open_regular(from).map_err(source)?;
            return self.add(object, &mut content);
        }
        let length = self.done("looking at", &part, self.disk.length(&part))?.unwrap_or_default();
        let mut content = self.done("reading", &part, self.disk.open(&part))?;
        let found = self.done("reading", &part, hash(&mut *content))?;
        if length != object.length || found != digest {
            self.done("removing", &part, self.disk.remove_file(&part))?;
            let found = format!("{length} bytes with SHA-256 {found}");
            return Err(StoreError::Altered { digest, found });
        }
        self.keep(&part, digest, 0o444)
    }

    /// Makes `part`, whose content was checked to be `digest`, a file of the store. `part` lies on the same file system
    /// and is gone afterwards.
    fn keep(&self, part: &Path, digest: Digest, mode: u32) -> Result<(), StoreError> {
        self.done("setting the mode of", part, self.disk.set_mode(part, mode))?;
        self.done("syncing", part, self.disk.sync_file(part))?;
        let path = self.place(digest)?;
        // The name is not synced: a slot's own name for the file is, and a name that is lost here is fetched again.
        self.done("naming", &path, self.disk.rename(part, &path))
    }

    /// Takes a file that was made elsewhere on this file system into the store, under a second name. Its content must
    /// have been checked and synced.
    pub fn adopt(&self, file: &Path, digest: Digest) -> Result<(), StoreError> {
        if self.has(&digest) {
            return Ok(());
        }
        let path = self.place(digest)?;
        self.done("linking", &path, self.disk.hard_link(file, &path))
    }

    /// Gives the stored file another name, in a slot. Where the file system does not give one, the slot gets a file of
    /// its own, which shares its blocks if that is possible.
    pub fn link(&self, digest: &Digest, to: &Path) -> Result<(), StoreError> {
        if !self.has(digest) {
            return Err(StoreError::Missing(*digest));
        }
        let from = self.path(digest);
        match self.disk.hard_link(&from, to) {
            Err(error) if cannot_link(&error) => {
                self.done("copying", to, self.disk.clone_file(&from, to))?;
                self.done("setting the mode of", to, self.disk.set_mode(to, 0o444))?;
                self.done("syncing", to, self.disk.sync_file(to))
            }
            linked => self.done("linking", to, linked),
        }
    }

    /// Forgets a file that turned out to be damaged, so that it is fetched again.
    pub fn forget(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.path(digest);
        self.done("removing", &path, self.disk.remove_file(&path))
    }

    /// Removes what no slot uses and is not to be kept, and parts of what was interrupted. Returns how many files went.
    pub fn prune(&self, keep: &BTreeSet<Digest>) -> Result<usize, StoreError> {
        let (objects, parts) = (self.dir.store().join("sha256"), self.dir.store().join("tmp"));
        let mut removed = 0;
        for shard in self.done("listing", &objects, self.disk.list(&objects))? {
            let shard = objects.join(shard);
            for name in self.done("listing", &shard, self.disk.list(&shard))? {
                let kept = name.parse().is_ok_and(|digest| keep.contains(&digest));
                let path = shard.join(name);
                if !kept && self.done("looking at", &path, self.disk.links(&path))? == 1 {
                    self.done("removing", &path, self.disk.remove_file(&path))?;
                    removed += 1;
                }
            }
        }
        for name in self.done("listing", &parts, self.disk.list(&parts))? {
            let path = parts.join(name);
            self.done("removing", &path, self.disk.remove_file(&path))?;
        }
        Ok(removed)
    }

    fn place(&self, digest: Digest) -> Result<PathBuf, StoreError> {
        let path = self.path(&digest);
        let shard = path.parent().unwrap_or(&path);
        if self.disk.list(shard).is_err() {
            self.done("making", shard, self.disk.create_dir(shard))?;
        }
        Ok(path)
    }

    fn write_failed(
        &self,
        digest: Digest,
        part: &Path,
        source: io::Error,
        reading: bool,
    ) -> StoreError {
        if reading {
            StoreError::Source { digest, source }
        } else if source.kind() == io::ErrorKind::StorageFull {
            StoreError::Full { digest, root: self.dir.root().to_owned() }
        } else {
            StoreError::Io { doing: "writing", path: part.to_owned(), source }
        }
    }

    fn done<T>(
        &self,
        doing: &'static str,
        path: &Path,
        result: io::Result<T>,
    ) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Io { doing, path: path.to_owned(), source })
    }
}

/// Whether a second name is what the file system does not give.
fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::Unsupported
            | io::ErrorKind::PermissionDenied
    )
}

/// Hashes what passes through it.
struct Checked<'a> {
    content: &'a mut dyn Read,
    hasher: Hasher,
    length: u64,
    failed: bool,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer).inspect_err(|error| {
            self.failed = error.kind() != io::ErrorKind::Interrupted;
        })?;
        if let Some(piece) = buffer.get(..read) {
            self.hasher.update(piece);
        }
        self.length += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crash_disk::CrashDisk, disk::RealDisk};

    fn object(content: &[u8]) -> Object {
        Object { sha256: Digest::of(content), length: content.len() as u64 }
    }

    fn disk() -> (CrashDisk, StateDir) {
        let (disk, dir) = (CrashDisk::new(), StateDir::new("/s"));
        dir.prepare(&disk).unwrap();
        (disk, dir)
    }

    #[test]
    fn only_exactly_what_is_named_is_stored() {
        let (disk, dir) = disk();
        let store = Store::new(&disk, &dir);
        for wrong in [&b"abcd"[..], b"ab", b"abd", b""] {
            let refused = store.add(object(b"abc"), &mut &wrong[..]).unwrap_err();
            assert!(matches!(refused, StoreError::Altered { .. }), "{refused}");
            assert!(!store.has(&Digest::of(b"abc")));
        }
        store.add(object(b"abc"), &mut &b"abc"[..]).unwrap();
        assert!(store.has(&Digest::of(b"abc")));
        assert_eq!(disk.list(&dir.store().join("tmp")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_full_disk_is_said_so_and_leaves_no_part() {
        let (disk, dir) = disk();
        disk.set_capacity_bytes(10);
        let content = [7; 100];
        let refused = Store::new(&disk, &dir).add(object(&content), &mut &content[..]).unwrap_err();
        assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
        assert_eq!(disk.list(&dir.store().join("tmp")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn prune_keeps_what_a_slot_links() {
        let (disk, dir) = disk();
        let store = Store::new(&disk, &dir);
        store.add(object(b"used"), &mut &b"used"[..]).unwrap();
        store.add(object(b"unused"), &mut &b"unused"[..]).unwrap();
        store.add(object(b"awaited"), &mut &b"awaited"[..]).unwrap();
        store.link(&Digest::of(b"used"), &dir.slots().join("x")).unwrap();
        assert_eq!(store.prune(&[Digest::of(b"awaited")].into()).unwrap(), 1);
        assert!(store.has(&Digest::of(b"used")) && store.has(&Digest::of(b"awaited")));
        assert!(!store.has(&Digest::of(b"unused")));
    }

    #[test]
    fn a_staged_file_is_stored_only_if_it_is_a_file_and_the_right_one() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, dir) = (RealDisk, StateDir::new(folder.path()));
        dir.prepare(&disk).unwrap();
        let store = Store::new(&disk, &dir);
        let staged = dir.staged_object(&Digest::of(b"abc"));
        let add = || store.add_file(object(b"abc"), &staged);
        assert!(matches!(add(), Err(StoreError::Source { .. })));
        std::os::unix::fs::symlink("/etc/hostname", &staged).unwrap();
        assert!(matches!(add(), Err(StoreError::Source { .. })));
        disk.remove_file(&staged).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &staged, kind, mode, 0).unwrap();
        assert!(matches!(add(), Err(StoreError::Source { .. })));
        disk.remove_file(&staged).unwrap();
        disk.write(&staged, &mut &b"abd"[..]).unwrap();
        assert!(matches!(add(), Err(StoreError::Altered { .. })));
        disk.write(&staged, &mut &b"abc"[..]).unwrap();
        add().unwrap();
        assert!(store.has(&Digest::of(b"abc")));
        // What was staged can be written still; what is stored is another file.
        disk.write_at(&staged, 0, b"x").unwrap();
        assert_eq!(disk.read(&store.path(&Digest::of(b"abc")), 10).unwrap(), b"abc");
    }
}
