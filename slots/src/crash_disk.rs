//! A disk that loses power, fills up, and fails: what is not synced may be lost, whole or in part, in any combination.
//!
//! Every effect of an operation (a name appearing, 512 bytes of content, a length, permission bits) is durable only
//! after the sync that covers it. A power cut keeps any subset of the others. That is weaker than any real file system
//! promises, so what holds here holds there. Content that a sync failed to write is never made durable by a later one, as
//! on Linux, where the page cache takes such pages for clean.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::digest::Digest;

use crate::{
    crash_tree::{Body, Change, Node, SECTOR_BYTES, Tree, label, subsets, sync_label},
    disk::Disk,
    executable::{self, Executables},
    verify::{self, SlotError},
};

/// A modelled disk.
#[derive(Debug, Default)]
pub struct CrashDisk {
    inner: RefCell<Inner>,
}

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space is left.
    NoSpace,
    /// The device fails.
    Io,
    /// Half of what was to be written is written, then the device fails.
    Short,
}

/// How long it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// This once.
    Once,
    /// Until [`CrashDisk::heal`]: a full disk refuses what allocates, a failing one all that changes it.
    Sticky,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    seen: Tree,
    durable: Tree,
    pending: Vec<Pending>,
    next_file: u64,
    operations: usize,
    touches: usize,
    cut_after: Option<usize>,
    lie: Option<String>,
    syncs: usize,
    skipped_sync: Option<usize>,
    last: String,
    synced: BTreeSet<String>,
    fault: Option<Planned>,
    capacity_bytes: Option<u64>,
    unreadable: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Pending {
    change: Change,
    /// The sync that covered it failed: no later one will make it durable.
    doomed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    at: usize,
    fault: Fault,
    lasting: Lasting,
    struck: bool,
}

/// What an operation does to the disk; decides which faults can meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Allocate,
    Overwrite,
    Free,
    Sync,
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

    /// Operations done so far, reading ones too.
    pub fn touches(&self) -> usize {
        self.inner.borrow().touches
    }

    /// Lets the operation after `touches` more go wrong.
    pub fn fail_after(&self, touches: usize, fault: Fault, lasting: Lasting) {
        let mut inner = self.inner.borrow_mut();
        let at = inner.touches.saturating_add(touches);
        inner.fault = Some(Planned { at, fault, lasting, struck: false });
    }

    /// Whether the planned fault met an operation.
    pub fn struck(&self) -> bool {
        self.inner.borrow().fault.is_some_and(|planned| planned.struck)
    }

    /// Ends every fault.
    pub fn heal(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.fault = None;
        inner.capacity_bytes = None;
        inner.unreadable = None;
    }

    /// Reading this file fails from now on.
    pub fn make_unreadable(&self, path: &Path) {
        self.inner.borrow_mut().unreadable = Some(path.to_owned());
    }

    /// Limits what all files together may hold.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.inner.borrow_mut().capacity_bytes = Some(bytes);
    }

    /// Bytes that all files together hold.
    pub fn used_bytes(&self) -> u64 {
        self.inner.borrow().seen.used_bytes()
    }

    /// Lies about the syncs with this label: they do nothing. A test that does not notice proves nothing.
    pub fn leave_out(&self, label: &str) {
        self.inner.borrow_mut().lie = Some(label.to_owned());
    }

    /// Syncs that did not fail, so far.
    pub fn syncs(&self) -> usize {
        self.inner.borrow().syncs
    }

    /// Lies about one sync, counted from zero: [`Self::leave_out`] for a test whose syncs are few.
    pub fn skip_sync(&self, number: usize) {
        self.inner.borrow_mut().skipped_sync = Some(number);
    }

    /// The labels of all syncs so far: what was done to what, the same for both slots and for every object.
    pub fn synced(&self) -> BTreeSet<String> {
        self.inner.borrow().synced.clone()
    }

    /// Forgets the labels so far.
    pub fn forget_synced(&self) {
        self.inner.borrow_mut().synced.clear();
    }

    /// The same disk, independent of this one, with power and without faults.
    pub fn copy(&self) -> Self {
        let copy = self.twin();
        copy.inner.borrow_mut().cut_after = None;
        copy.heal();
        copy
    }

    /// The same disk, independent of this one, in the same trouble.
    pub fn twin(&self) -> Self {
        Self { inner: RefCell::new(self.inner.borrow().clone()) }
    }

    /// Destroys what a file holds, at once and for good, as a defect of the medium does.
    pub fn destroy(&self, path: &Path) {
        let mut inner = self.inner.borrow_mut();
        let Ok(file) = inner.file(path) else { return };
        inner.pending.retain(|pending| !pending.change.is_of_file(file));
        let length = inner.seen.files.get(&file).map_or(0, |body| body.bytes.len());
        let body = Body { bytes: Arc::new(vec![0x5a; length]), mode: 0o600 };
        inner.seen.files.insert(file, body.clone());
        inner.durable.files.insert(file, body);
    }

    /// The same for two disks that hold the same, durable or not.
    pub fn fingerprint(&self) -> u64 {
        self.inner.borrow().seen.fingerprint()
    }

    /// Disks as they may be found after the power cut. `seed` picks among the subsets when there are too many.
    pub fn after_power_cut(&self, seed: u64) -> Vec<Self> {
        let inner = self.inner.borrow();
        subsets(inner.pending.len(), seed).iter().map(|mask| inner.found(mask)).collect()
    }

    fn reading<T>(
        &self,
        path: &Path,
        operation: impl FnOnce(&Inner) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut inner = self.inner.borrow_mut();
        if inner.meets(Kind::Read).is_some() || inner.unreadable.as_deref() == Some(path) {
            return Err(device());
        }
        operation(&inner)
    }

    fn changing<T>(
        &self,
        kind: Kind,
        operation: impl FnOnce(&mut Inner, Option<Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut inner = self.inner.borrow_mut();
        if inner.cut_after.is_some_and(|limit| inner.operations >= limit) {
            return Err(io::Error::other("power cut"));
        }
        inner.operations += 1;
        let met = inner.meets(kind);
        operation(&mut inner, met)
    }

    fn simple(
        &self,
        kind: Kind,
        operation: impl FnOnce(&mut Inner) -> io::Result<()>,
    ) -> io::Result<()> {
        self.changing(kind, |inner, fault| match fault {
            Some(fault) => Err(error_of(fault)),
            None => operation(inner),
        })
    }
}

fn device() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::NoSpace => io::ErrorKind::StorageFull.into(),
        Fault::Io | Fault::Short => device(),
    }
}

impl Inner {
    /// The fault that this operation meets.
    fn meets(&mut self, kind: Kind) -> Option<Fault> {
        let number = self.touches;
        self.touches += 1;
        let planned = self.fault.as_mut()?;
        let applies = match (planned.fault, planned.lasting) {
            (Fault::NoSpace, Lasting::Sticky) => kind == Kind::Allocate,
            (Fault::NoSpace, Lasting::Once) => !matches!(kind, Kind::Read | Kind::Free),
            (Fault::Short, _) => matches!(kind, Kind::Allocate | Kind::Overwrite),
            (Fault::Io, Lasting::Sticky) => kind != Kind::Read,
            (Fault::Io, Lasting::Once) => true,
        };
        let due = match planned.lasting {
            Lasting::Once => number == planned.at,
            Lasting::Sticky => number >= planned.at,
        };
        (due && applies).then(|| {
            planned.struck = true;
            planned.fault
        })
    }

    fn found(&self, mask: &[bool]) -> CrashDisk {
        let mut tree = self.durable.clone();
        for (pending, _) in self.pending.iter().zip(mask).filter(|(_, kept)| **kept) {
            tree.apply(&pending.change);
        }
        tree.drop_orphans();
        let inner = Self {
            seen: tree.clone(),
            durable: tree,
            next_file: self.next_file,
            lie: self.lie.clone(),
            ..Self::default()
        };
        CrashDisk { inner: RefCell::new(inner) }
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        self.pending.push(Pending { change, doomed: false });
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.seen.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn body(&self, path: &Path) -> io::Result<Body> {
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
        let length = self.seen.files.get(&file).map_or(0, |body| body.bytes.len());
        let end = offset + bytes.len();
        if end > length {
            let grown = (end - length) as u64;
            if self.capacity_bytes.is_some_and(|all| self.seen.used_bytes() + grown > all) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.change(Change::Length { file, length: end });
        }
        let mut at = offset;
        while at < end {
            let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            let bytes: Arc<[u8]> = bytes[at - offset..next - offset].into();
            self.change(Change::Data { file, offset: at, bytes });
            at = next;
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.parent_exists(path)?;
        self.last = label("write", path);
        let file = match self.file(path) {
            Ok(file) => {
                self.change(Change::Length { file, length: 0 });
                file
            }
            Err(_) => {
                let file = self.next_file;
                self.next_file += 1;
                let node = Some(Node::File(file));
                self.change(Change::Name { path: path.into(), node });
                file
            }
        };
        self.put(file, 0, bytes)
    }

    fn sync(
        &mut self,
        what: &str,
        path: &Path,
        fault: Option<Fault>,
        covered: impl Fn(&Change) -> bool,
    ) -> io::Result<()> {
        let label = sync_label(what, path, &self.last);
        if let Some(fault) = fault {
            // Names are in the journal of the file system: it aborts, or they are written the next time.
            let content = |change: &Change| {
                covered(change) && !matches!(change, Change::Name { .. } | Change::Rename { .. })
            };
            for pending in self.pending.iter_mut().filter(|pending| content(&pending.change)) {
                pending.doomed = true;
            }
            return Err(error_of(fault));
        }
        let lied = self.lie.as_ref() == Some(&label) || self.skipped_sync == Some(self.syncs);
        self.syncs += 1;
        self.synced.insert(label);
        if lied {
            return Ok(());
        }
        let mut left: Vec<Pending> = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if covered(&pending.change) && !pending.doomed {
                self.durable.apply(&pending.change);
                left.retain(|older| !(older.doomed && older.change.is_covered_by(&pending.change)));
            } else {
                left.push(pending);
            }
        }
        self.pending = left;
        Ok(())
    }

    /// A sync of overwritten content that failed: the page cache is dropped, so what is read from now on is what the
    /// device holds, which is any part of it.
    fn sync_data_failed(&mut self, file: u64) {
        let parity = self.touches % 3;
        let mut left = Vec::new();
        for (i, pending) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if !pending.change.is_of_file(file) {
                left.push(pending);
            } else if (i + parity).is_multiple_of(3) {
                self.durable.apply(&pending.change);
            }
        }
        self.pending = left;
        if let Some(body) = self.durable.files.get(&file) {
            self.seen.files.insert(file, body.clone());
        }
    }
}

impl Disk for CrashDisk {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let bytes = self.reading(path, |inner| inner.body(path))?.bytes;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::other(format!("longer than the {bytes_max} bytes allowed")));
        }
        Ok(bytes.to_vec())
    }

    fn read_at(&self, path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let bytes = self.reading(path, |inner| inner.body(path))?.bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(bytes_max).min(bytes.len());
        Ok(bytes.get(start..end).unwrap_or_default().to_vec())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        let bytes = self.reading(path, |inner| inner.body(path))?.bytes;
        Ok(Box::new(io::Cursor::new(bytes.to_vec())))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        match self.reading(path, |inner| inner.body(path)) {
            Ok(body) => Ok(Some(body.bytes.len() as u64)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn links(&self, path: &Path) -> io::Result<u64> {
        self.reading(path, |inner| {
            let node = Node::File(inner.file(path)?);
            Ok(inner.seen.names.values().filter(|other| **other == node).count() as u64)
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.reading(folder, |inner| {
            if inner.seen.names.get(folder) != Some(&Node::Folder) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let inside = inner.seen.names.keys().filter(|path| path.parent() == Some(folder));
            Ok(inside
                .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
                .collect())
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.simple(Kind::Allocate, |inner| {
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
        self.changing(Kind::Allocate, |inner, fault| match fault {
            Some(fault @ (Fault::NoSpace | Fault::Short)) => {
                inner.write(path, bytes.get(..bytes.len() / 2).unwrap_or_default())?;
                Err(error_of(fault))
            }
            Some(fault @ Fault::Io) => Err(error_of(fault)),
            None => inner.write(path, &bytes).map(|()| bytes.len() as u64),
        })
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.changing(Kind::Overwrite, |inner, fault| {
            let file = inner.file(path)?;
            let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
            match fault {
                Some(fault @ Fault::Short) => {
                    inner.put(file, offset, bytes.get(..bytes.len() / 2).unwrap_or_default())?;
                    Err(error_of(fault))
                }
                Some(fault @ (Fault::NoSpace | Fault::Io)) => Err(error_of(fault)),
                None => inner.put(file, offset, bytes),
            }
        })
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.changing(Kind::Sync, |inner, fault| {
            let synced = inner.file(path)?;
            inner.sync("sync_file", path, fault, |change| change.is_of_file(synced))
        })
    }

    fn sync_data(&self, path: &Path) -> io::Result<()> {
        self.changing(Kind::Sync, |inner, fault| {
            let synced = inner.file(path)?;
            if let Some(fault) = fault {
                inner.sync_data_failed(synced);
                return Err(error_of(fault));
            }
            inner.sync("sync_data", path, None, |change| {
                matches!(change, Change::Data { .. }) && change.is_of_file(synced)
            })
        })
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.changing(Kind::Sync, |inner, fault| {
            if folder != Path::new("/") && inner.seen.names.get(folder) != Some(&Node::Folder) {
                return Err(io::ErrorKind::NotFound.into());
            }
            inner.sync("sync_dir", folder, fault, |change| change.is_of_folder(folder))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.simple(Kind::Allocate, |inner| {
            inner.parent_exists(to)?;
            let node = Node::File(inner.file(from)?);
            inner.change(Change::Rename { from: from.into(), to: to.into(), node });
            inner.last = label("rename", to);
            Ok(())
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.simple(Kind::Allocate, |inner| {
            inner.parent_exists(to)?;
            let node = Some(Node::File(inner.file(from)?));
            inner.change(Change::Name { path: to.into(), node });
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.simple(Kind::Free, |inner| {
            if inner.seen.names.contains_key(path) {
                inner.change(Change::Name { path: path.into(), node: None });
                inner.last = label("remove", path);
            }
            Ok(())
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.simple(Kind::Free, |inner| {
            for path in inner.seen.below(path).into_iter().rev() {
                inner.change(Change::Name { path: path.into(), node: None });
            }
            Ok(())
        })
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.simple(Kind::Overwrite, |inner| {
            let file = inner.file(path)?;
            inner.change(Change::Mode { file, mode });
            Ok(())
        })
    }
}

impl Executables for CrashDisk {
    type Opened = ();

    fn open_executable(&self, path: &Path, expected: &Digest) -> Result<(), SlotError> {
        let unreadable = |source| SlotError::Unreadable { path: path.to_owned(), source };
        let body = self.reading(path, |inner| inner.body(path)).map_err(unreadable)?;
        let found = verify::hash(&mut body.bytes.as_slice()).map_err(unreadable)?;
        executable::is_executable(path, body.mode, &found, expected)
    }
}
