//! A disk that loses power: what is not synced may be lost, whole or in part, in any combination.
//!
//! Every effect of an operation (a name appearing, 512 bytes of content, a length) is durable only after the sync that
//! covers it. A power cut keeps any subset of the others. That is weaker than any real file system promises, so what
//! holds here holds there.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::disk::Disk;

const SECTOR_BYTES: usize = 512;
/// Up to this many undurable effects, every subset is a state after the cut; above, a selection.
const EXHAUSTIVE: usize = 8;

/// A modelled disk.
#[derive(Debug, Default)]
pub struct CrashDisk {
    inner: RefCell<Inner>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    seen: Tree,
    durable: Tree,
    pending: Vec<Change>,
    next_file: u64,
    operations: usize,
    syncs: usize,
    cut_after: Option<usize>,
    skipped_sync: Option<usize>,
    free_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tree {
    names: BTreeMap<PathBuf, Node>,
    files: BTreeMap<u64, Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Name { path: PathBuf, node: Option<Node> },
    Rename { from: PathBuf, to: PathBuf, node: Node },
    Length { file: u64, length: usize },
    Data { file: u64, offset: usize, bytes: Vec<u8> },
}

impl CrashDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses power after `operations` more changing operations: all later ones fail.
    pub fn cut_after(&self, operations: usize) {
        let mut inner = self.inner.borrow_mut();
        inner.cut_after = Some(inner.operations.saturating_add(operations));
    }

    /// Changing operations done so far.
    pub fn operations(&self) -> usize {
        self.inner.borrow().operations
    }

    /// Syncs done so far.
    pub fn syncs(&self) -> usize {
        self.inner.borrow().syncs
    }

    /// Lies about the sync with this number (counted from 0, from the disk's first): it does nothing. A test that does
    /// not notice proves nothing.
    pub fn skip_sync(&self, number: usize) {
        self.inner.borrow_mut().skipped_sync = Some(number);
    }

    /// Limits what may still be allocated.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.inner.borrow_mut().free_bytes = Some(bytes);
    }

    /// The same disk, independent of this one, with power.
    pub fn copy(&self) -> Self {
        let mut inner = self.inner.borrow().clone();
        inner.cut_after = None;
        Self { inner: RefCell::new(inner) }
    }

    /// Disks as they may be found after the power cut. `seed` picks among the subsets when there are too many.
    pub fn after_power_cut(&self, seed: u64) -> Vec<Self> {
        let inner = self.inner.borrow();
        let n = inner.pending.len();
        let mut masks: Vec<Vec<bool>> = Vec::new();
        if n <= EXHAUSTIVE {
            masks.extend((0..1_u32 << n).map(|mask| (0..n).map(|i| mask >> i & 1 == 1).collect()));
        } else {
            masks.extend((0..=n).map(|end| (0..n).map(|i| i < end).collect()));
            masks.extend((0..n).map(|only| (0..n).map(|i| i == only).collect()));
            masks.extend((0..n).map(|but| (0..n).map(|i| i != but).collect()));
            let mut random = seed | 1;
            masks.extend((0..16).map(|_| {
                (0..n)
                    .map(|_| {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        random & 1 == 1
                    })
                    .collect()
            }));
        }
        masks.iter().map(|mask| inner.found(mask)).collect()
    }

    fn changing<T>(&self, operation: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.inner.borrow_mut();
        if inner.cut_after.is_some_and(|limit| inner.operations >= limit) {
            return Err(io::Error::other("power cut"));
        }
        inner.operations += 1;
        operation(&mut inner)
    }
}

impl Inner {
    fn found(&self, mask: &[bool]) -> CrashDisk {
        let mut tree = self.durable.clone();
        for (change, _) in self.pending.iter().zip(mask).filter(|(_, kept)| **kept) {
            tree.apply(change);
        }
        tree.drop_orphans();
        let inner = Self {
            seen: tree.clone(),
            durable: tree,
            next_file: self.next_file,
            free_bytes: self.free_bytes,
            ..Self::default()
        };
        CrashDisk { inner: RefCell::new(inner) }
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        self.pending.push(change);
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.seen.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.seen.files.get(&self.file(path)?).cloned().unwrap_or_default())
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if parent == Path::new("/") => Ok(()),
            Some(parent) if self.seen.names.get(parent) == Some(&Node::Folder) => Ok(()),
            Some(_) | None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn put(&mut self, file: u64, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let length = self.seen.files.get(&file).map_or(0, Vec::len);
        let end = offset + bytes.len();
        if end > length {
            let grown = (end - length) as u64;
            if let Some(free) = &mut self.free_bytes {
                *free = free.checked_sub(grown).ok_or(io::ErrorKind::StorageFull)?;
            }
            self.change(Change::Length { file, length: end });
        }
        let mut at = offset;
        while at < end {
            let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            let bytes = bytes[at - offset..next - offset].to_vec();
            self.change(Change::Data { file, offset: at, bytes });
            at = next;
        }
        Ok(())
    }

    fn sync(&mut self, covered: impl Fn(&Change) -> bool) {
        let number = self.syncs;
        self.syncs += 1;
        if self.skipped_sync == Some(number) {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        for change in pending {
            if covered(&change) {
                self.durable.apply(&change);
            } else {
                self.pending.push(change);
            }
        }
    }
}

impl Tree {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Name { path, node: Some(node) } => {
                self.names.insert(path.clone(), *node);
            }
            Change::Name { path, node: None } => {
                self.names.remove(path);
            }
            Change::Rename { from, to, node } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *node);
            }
            Change::Length { file, length } => {
                self.files.entry(*file).or_default().resize(*length, 0);
            }
            Change::Data { file, offset, bytes } => {
                let content = self.files.entry(*file).or_default();
                // Content beyond a length that was lost is lost with it.
                for (i, byte) in bytes.iter().enumerate() {
                    if let Some(place) = content.get_mut(offset + i) {
                        *place = *byte;
                    }
                }
            }
        }
    }

    /// A name whose folder was lost is lost too.
    fn drop_orphans(&mut self) {
        let folders: Vec<PathBuf> = self
            .names
            .iter()
            .filter(|(_, node)| **node == Node::Folder)
            .map(|(path, _)| path.clone())
            .collect();
        let reachable = |path: &Path| {
            path.ancestors().skip(1).all(|ancestor| {
                ancestor == Path::new("/")
                    || ancestor == Path::new("")
                    || folders.iter().any(|folder| folder == ancestor)
            })
        };
        self.names.retain(|path, _| reachable(path));
    }
}

impl Disk for CrashDisk {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let bytes = self.inner.borrow().content(path)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::other(format!("longer than the {bytes_max} bytes allowed")));
        }
        Ok(bytes)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(io::Cursor::new(self.inner.borrow().content(path)?)))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        match self.inner.borrow().content(path) {
            Ok(content) => Ok(Some(content.len() as u64)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn links(&self, path: &Path) -> io::Result<u64> {
        let inner = self.inner.borrow();
        let node = Node::File(inner.file(path)?);
        Ok(inner.seen.names.values().filter(|other| **other == node).count() as u64)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner.borrow();
        if inner.seen.names.get(folder) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = inner.seen.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.changing(|inner| {
            inner.parent_exists(path)?;
            match inner.seen.names.get(path) {
                Some(Node::Folder) => Ok(()),
                Some(Node::File(_)) => Err(io::ErrorKind::AlreadyExists.into()),
                None => {
                    inner.change(Change::Name { path: path.into(), node: Some(Node::Folder) });
                    Ok(())
                }
            }
        })
    }

    fn write(&self, path: &Path, content: &mut dyn Read) -> io::Result<u64> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.changing(|inner| {
            inner.parent_exists(path)?;
            let file = match inner.file(path) {
                Ok(file) => {
                    inner.change(Change::Length { file, length: 0 });
                    file
                }
                Err(_) => {
                    let file = inner.next_file;
                    inner.next_file += 1;
                    let node = Some(Node::File(file));
                    inner.change(Change::Name { path: path.into(), node });
                    file
                }
            };
            inner.put(file, 0, &bytes)?;
            Ok(bytes.len() as u64)
        })
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.changing(|inner| {
            let file = inner.file(path)?;
            let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
            inner.put(file, offset, bytes)
        })
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.changing(|inner| {
            let synced = inner.file(path)?;
            inner.sync(|change| match change {
                Change::Length { file, .. } | Change::Data { file, .. } => *file == synced,
                Change::Name { .. } | Change::Rename { .. } => false,
            });
            Ok(())
        })
    }

    fn sync_data(&self, path: &Path) -> io::Result<()> {
        self.changing(|inner| {
            let synced = inner.file(path)?;
            inner.sync(|change| matches!(change, Change::Data { file, .. } if *file == synced));
            Ok(())
        })
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.changing(|inner| {
            if folder != Path::new("/") && inner.seen.names.get(folder) != Some(&Node::Folder) {
                return Err(io::ErrorKind::NotFound.into());
            }
            inner.sync(|change| match change {
                Change::Name { path, .. } => path.parent() == Some(folder),
                Change::Rename { from, to, .. } => {
                    from.parent() == Some(folder) || to.parent() == Some(folder)
                }
                Change::Length { .. } | Change::Data { .. } => false,
            });
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changing(|inner| {
            inner.parent_exists(to)?;
            let node = Node::File(inner.file(from)?);
            inner.change(Change::Rename { from: from.into(), to: to.into(), node });
            Ok(())
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changing(|inner| {
            inner.parent_exists(to)?;
            let node = Some(Node::File(inner.file(from)?));
            inner.change(Change::Name { path: to.into(), node });
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.changing(|inner| {
            if inner.seen.names.contains_key(path) {
                inner.change(Change::Name { path: path.into(), node: None });
            }
            Ok(())
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.changing(|inner| {
            let inside: Vec<PathBuf> =
                inner.seen.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
            for path in inside.into_iter().rev() {
                inner.change(Change::Name { path, node: None });
            }
            Ok(())
        })
    }

    fn set_mode(&self, path: &Path, _mode: u32) -> io::Result<()> {
        self.inner.borrow().file(path).map(|_| ())
    }
}
