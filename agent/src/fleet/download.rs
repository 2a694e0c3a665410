//! One object, from the artifact server into the staging area: resumed, bounded by its signed length, verified while
//! it streams, and visible under its own name only when it is complete and durable.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use protocol::{
    digest::{Digest, Hasher},
    manifest::Object,
};
use slots::{
    disk::{Disk, RealDisk},
    layout::StateDir,
};

use crate::fleet::artifact_server::{ArtifactServer, HttpError};

const PIECE_BYTES: usize = 64 * 1024;

/// Why an object is not there.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server did not give it.
    #[error("downloading `{path}`")]
    Http {
        /// The file it is for.
        path: String,
        /// Why.
        source: HttpError,
    },
    /// The connection broke; what came is kept.
    #[error("downloading `{path}`: it broke off after {have} of {length} bytes")]
    Broken {
        /// The file it is for.
        path: String,
        /// Bytes kept.
        have: u64,
        /// Signed length.
        length: u64,
        /// Why.
        source: io::Error,
    },
    /// More bytes than signed.
    #[error("`{path}` is longer on the artifact server than the {length} bytes signed; refused")]
    Longer {
        /// The file it is for.
        path: String,
        /// Signed length.
        length: u64,
    },
    /// Fewer bytes than signed.
    #[error("`{path}` ended after {have} of {length} bytes")]
    Shorter {
        /// The file it is for.
        path: String,
        /// Bytes that came.
        have: u64,
        /// Signed length.
        length: u64,
    },
    /// Other bytes than signed.
    #[error(
        "`{path}` is altered on the artifact server: signed is sha256 {signed}, received {got}; refused"
    )]
    Altered {
        /// The file it is for.
        path: String,
        /// Digest signed.
        signed: Digest,
        /// Digest of what came.
        got: Digest,
    },
    /// The disk refused.
    #[error("writing {}", file.display())]
    Disk {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent is stopping; what came is kept.
    #[error("the agent is stopping")]
    Stopped,
}

impl DownloadError {
    /// Whether trying again may help.
    pub const fn passes(&self) -> bool {
        match self {
            Self::Http { .. } | Self::Broken { .. } | Self::Shorter { .. } | Self::Disk { .. } => {
                true
            }
            Self::Longer { .. } | Self::Altered { .. } | Self::Stopped => false,
        }
    }
}

/// An object that is wanted, and the file of the release that it is for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What travels.
    pub object: Object,
    /// Where it ends up, for people.
    pub path: &'a str,
}

/// Brings `wanted` into the staging area; returns the bytes that moved.
pub fn download(
    server: &ArtifactServer,
    state: &StateDir,
    wanted: Wanted<'_>,
    stop: &AtomicBool,
) -> Result<u64, DownloadError> {
    let part = state.staged_part(&wanted.object.sha256);
    let (moved, resumed, outcome) = attempt(server, &part, wanted, stop);
    let (moved, outcome) = match outcome {
        // The beginning may have been damaged on our own disk: only a whole download can accuse the server.
        Err(DownloadError::Altered { .. } | DownloadError::Longer { .. }) if resumed => {
            remove(&part)?;
            let (again, _, outcome) = attempt(server, &part, wanted, stop);
            (moved + again, outcome)
        }
        outcome => (moved, outcome),
    };
    match outcome {
        Ok(()) => {
            finish(&part, &state.staged_object(&wanted.object.sha256))?;
            Ok(moved)
        }
        Err(error @ (DownloadError::Altered { .. } | DownloadError::Longer { .. })) => {
            remove(&part)?;
            Err(error)
        }
        Err(
            error @ (DownloadError::Http { .. }
            | DownloadError::Broken { .. }
            | DownloadError::Shorter { .. }
            | DownloadError::Disk { .. }
            | DownloadError::Stopped),
        ) => Err(error),
    }
}

/// One exchange; the bytes that moved, and whether it went on from an earlier one.
fn attempt(
    server: &ArtifactServer,
    part: &Path,
    wanted: Wanted<'_>,
    stop: &AtomicBool,
) -> (u64, bool, Result<(), DownloadError>) {
    let Object { sha256, length } = wanted.object;
    let path = || wanted.path.to_owned();
    let disk = |source| DownloadError::Disk { file: part.to_owned(), source };
    let (mut file, mut hasher, mut have) = match open_part(part, length) {
        Ok(opened) => opened,
        Err(source) => return (0, false, Err(disk(source))),
    };
    let resumed = have > 0;
    let mut moved = 0;
    if have < length || length == 0 {
        let download = match server.object(&sha256, have, length) {
            Ok(download) => download,
            Err(source) => return (0, resumed, Err(DownloadError::Http { path: path(), source })),
        };
        if download.from != have {
            if let Err(source) = restart(&mut file) {
                return (0, resumed, Err(disk(source)));
            }
            (hasher, have) = (Hasher::default(), 0);
        }
        let mut reader = download.into_reader();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            if stop.load(Ordering::Relaxed) {
                return (moved, resumed, Err(DownloadError::Stopped));
            }
            let count = match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let broken = DownloadError::Broken { path: path(), have, length, source };
                    return (moved, resumed, Err(broken));
                }
            };
            moved += count as u64;
            if have + count as u64 > length {
                return (moved, resumed, Err(DownloadError::Longer { path: path(), length }));
            }
            if let Err(source) = file.write_all(&piece[..count]) {
                return (moved, resumed, Err(disk(source)));
            }
            hasher.update(&piece[..count]);
            have += count as u64;
        }
    }
    if have < length {
        return (moved, resumed, Err(DownloadError::Shorter { path: path(), have, length }));
    }
    let got = hasher.finish();
    if got == sha256 {
        (moved, resumed, file.sync_all().map_err(disk))
    } else {
        (moved, resumed, Err(DownloadError::Altered { path: path(), signed: sha256, got }))
    }
}

/// What an earlier attempt left, hashed; a longer one than signed is thrown away.
fn open_part(part: &Path, length: u64) -> io::Result<(File, Hasher, u64)> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(part)?;
    let mut hasher = Hasher::default();
    if file.metadata()?.len() > length {
        restart(&mut file)?;
    }
    let mut piece = vec![0; PIECE_BYTES];
    let mut have = 0;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((file, hasher, have)),
            count => {
                hasher.update(&piece[..count]);
                have += count as u64;
            }
        }
    }
}

fn restart(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0)).map(drop)
}

/// Gives the complete, synced part its own name, durably.
fn finish(part: &Path, object: &Path) -> Result<(), DownloadError> {
    let folder = object.parent().unwrap_or(object);
    RealDisk
        .rename(part, object)
        .and_then(|()| RealDisk.sync_dir(folder))
        .map_err(|source| DownloadError::Disk { file: object.to_owned(), source })
}

fn remove(part: &Path) -> Result<(), DownloadError> {
    RealDisk
        .remove_file(part)
        .map_err(|source| DownloadError::Disk { file: part.to_owned(), source })
}
