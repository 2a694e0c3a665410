//! What is wanted from a server, what comes of it piece by piece, and why it may not.

use std::{
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use protocol::{
    digest::Digest,
    manifest::{Chunked, Object},
};

use crate::fleet::{
    artifact_server::{Download, HttpError},
    meter::{Halted, Meter},
    rate::Slowest,
};

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
    /// Too little came in too long a time; what came is kept.
    #[error(
        "downloading `{path}`: the server gave less than {least} bytes a second over {} s; given up after {have} of {length} bytes", .window.as_secs()
    )]
    Slow {
        /// The file it is for.
        path: String,
        /// Bytes kept.
        have: u64,
        /// Signed length.
        length: u64,
        /// Bytes per second that are asked of a server …
        least: u64,
        /// … over this time.
        window: Duration,
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
            Self::Http { .. }
            | Self::Broken { .. }
            | Self::Slow { .. }
            | Self::Shorter { .. }
            | Self::Disk { .. } => true,
            Self::Longer { .. } | Self::Altered { .. } | Self::Stopped => false,
        }
    }
}

/// An object that is wanted, and the file of the release that it is for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What is staged.
    pub object: Object,
    /// How it was cut into chunks, if it was.
    pub chunks: Option<Chunked>,
    /// Where it ends up, for people.
    pub path: &'a str,
}

impl Wanted<'_> {
    /// `reading` broke with `have` bytes of this object kept.
    pub fn broken(&self, have: u64, reading: ReadError) -> DownloadError {
        let (path, length) = (self.path.to_owned(), self.object.length);
        match reading {
            ReadError::Broken(source) => DownloadError::Broken { path, have, length, source },
            ReadError::Halted(Halted::Stopped) => DownloadError::Stopped,
            ReadError::Halted(Halted::TooSlow(Slowest { bytes_per_second, window })) => {
                DownloadError::Slow { path, have, length, least: bytes_per_second, window }
            }
        }
    }
}

/// Why no more comes.
#[derive(Debug)]
pub enum ReadError {
    /// The connection.
    Broken(io::Error),
    /// The meter.
    Halted(Halted),
}

/// The bytes of an answer as they come, counted by the meter.
pub struct Incoming<'a, 'm> {
    reader: Box<dyn Read>,
    meter: &'a mut Meter<'m>,
}

impl<'a, 'm> Incoming<'a, 'm> {
    /// The bytes of `download`.
    pub fn new(download: Download, meter: &'a mut Meter<'m>) -> Result<Self, ReadError> {
        meter.begin().map_err(ReadError::Halted)?;
        Ok(Self { reader: Box::new(download.into_reader()), meter })
    }

    /// More bytes; 0 at the end.
    pub fn read(&mut self, piece: &mut [u8]) -> Result<usize, ReadError> {
        loop {
            self.meter.check().map_err(ReadError::Halted)?;
            match self.reader.read(piece) {
                Ok(count) => {
                    self.meter.took(count as u64).map_err(ReadError::Halted)?;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Broken(error)),
            }
        }
    }

    /// Exactly so many bytes.
    pub fn read_exact(&mut self, mut content: &mut [u8]) -> Result<(), ReadError> {
        while !content.is_empty() {
            match self.read(content)? {
                0 => return Err(ReadError::Broken(io::ErrorKind::UnexpectedEof.into())),
                count => content = content.get_mut(count..).unwrap_or_default(),
            }
        }
        Ok(())
    }
}
