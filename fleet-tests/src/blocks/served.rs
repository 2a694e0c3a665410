//! Disks as files of a FUSE file system, and the process that serves them until its orders end.
//!
//! It is a process of its own that never touches what is mounted on its disks: a thread that waits for a disk its own
//! process serves could not be ended by any signal. Nor does it live in the mount namespace of what is mounted there:
//! the last process of a namespace unmounts what is left in it while it ends, and would wait for itself. When this
//! process ends, however it does, the kernel fails what still waits for it.

use std::{
    ffi::OsStr,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
    sync::{Arc, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::blocks::{
    orders::Answer,
    shelf::{Drive, DriveError, Shelf},
};

/// Nothing changes but by us.
const UNCHANGED: Duration = Duration::from_secs(3600);
const FIRST_INODE: u64 = 2;
const THREADS: usize = 2;

/// The file system: one file for each disk, named by its number.
struct Served(Arc<Shelf>);

/// Serves `disks` disks of `bytes` bytes at `folder`, and follows the orders that come in on standard input, a socket,
/// until it is closed.
pub fn serve(folder: &Path, disks: usize, bytes: u64) -> anyhow::Result<()> {
    let shelf = Arc::new(Shelf::new(disks, bytes)?);
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("socle-disks".into())];
    config.n_threads = Some(THREADS);
    let session = fuser::spawn_mount(Served(Arc::clone(&shelf)), folder, &config)
        .with_context(|| format!("mounting a FUSE file system at {}", folder.display()))?;

    let orders = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut answers = orders.try_clone().context("sharing the socket")?;
    send(&mut answers, &Answer::Done)?;
    for line in BufReader::new(orders).lines() {
        let order = serde_json::from_str(&line.context("reading an order")?)?;
        send(&mut answers, &shelf.follow(order))?;
    }
    // Busy when something is still mounted on a disk; then the end of this process ends it.
    drop(session);
    Ok(())
}

fn send(to: &mut UnixStream, answer: &Answer) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    to.write_all(&line).context("answering")
}

impl Served {
    fn drive(&self, inode: INodeNo) -> Result<MutexGuard<'_, Drive>, Errno> {
        let disk = inode.0.checked_sub(FIRST_INODE).and_then(|disk| usize::try_from(disk).ok());
        disk.and_then(|disk| self.0.drive(disk)).ok_or(Errno::ENOENT)
    }

    fn attributes(&self, inode: INodeNo) -> Result<FileAttr, Errno> {
        let (kind, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0),
            file => self.drive(file).map(|_| (FileType::RegularFile, self.0.bytes()))?,
        };
        Ok(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o600,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

fn errno(error: DriveError) -> Errno {
    match error {
        DriveError::Fault => Errno::EIO,
        DriveError::PastEnd(_) => Errno::EFBIG,
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
        let inode = number.filter(|_| parent == INodeNo::ROOT);
        let inode = inode.and_then(|number| number.checked_add(FIRST_INODE));
        match inode.ok_or(Errno::ENOENT).and_then(|inode| self.attributes(INodeNo(inode))) {
            Ok(found) => reply.entry(&UNCHANGED, &found, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Ok(found) => reply.attr(&UNCHANGED, &found),
            Err(error) => reply.error(error),
        }
    }

    /// A disk's size stays; everything else of a file's attributes means nothing here.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.attributes(inode) {
            Ok(found) if size.is_none_or(|size| size == found.size) => {
                reply.attr(&UNCHANGED, &found);
            }
            Ok(_) => reply.error(Errno::EPERM),
            Err(error) => reply.error(error),
        }
    }

    /// Past the page cache: every request of the disk above arrives here when it is made.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = |mut drive: MutexGuard<'_, Drive>| drive.read(offset, size as usize);
        match self.drive(inode).and_then(|drive| read(drive).map_err(errno)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = |mut drive: MutexGuard<'_, Drive>| drive.write(offset, bytes);
        match self.drive(inode).and_then(|drive| write(drive).map_err(errno)) {
            Ok(()) => reply.written(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let flush = |mut drive: MutexGuard<'_, Drive>| drive.flush();
        match self.drive(inode).and_then(|drive| flush(drive).map_err(errno)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    /// A descriptor was closed, which makes nothing durable.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// Nothing is freed and no zeros are made by request: the file system above writes them.
    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}
