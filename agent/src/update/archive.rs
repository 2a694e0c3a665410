//! The agent out of its archive and into the inactive slot, by the `self_update` crate.
//!
//! The crate is handed a release with one asset, a client that reads that one local file, and two hooks: the archive
//! must be the one the manifest names, and so must what comes out of it. Trust does not come from the crate; it places
//! what was verified. It never sees the path of a running executable.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{digest::Digest, manifest::Archive};
use self_update::{
    Release, ReleaseAsset, ReleaseSource,
    backends::custom::Update,
    http_client::{HeaderMap, HttpClient, HttpResponse},
};
use slots::verify::hash;

/// Name of the executable inside the archive.
const BIN_NAME: &str = "socle-agent";
const ASSET: &str = "socle-agent.tar";

/// What is unpacked, and where to.
#[derive(Clone, Debug)]
pub struct Unpacking {
    /// The archive in the staging area.
    pub archive: PathBuf,
    /// What it must be.
    pub named: Archive,
    /// Version of the agent inside.
    pub version: String,
    /// What must come out.
    pub agent_sha256: Digest,
    /// Its size.
    pub agent_length: u64,
    /// Where it belongs: inside the inactive slot.
    pub to: PathBuf,
}

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
#[error("unpacking the agent archive {archive}")]
pub struct ArchiveError {
    /// Archive.
    archive: PathBuf,
    /// Why.
    source: self_update::Error,
}

impl ArchiveError {
    /// Whether the release is at fault: the archive is as signed, and what comes out of it is not.
    pub fn is_the_release(&self) -> bool {
        use self_update::Error::{Internal, Io, VerificationRejected};
        let malformed = [
            io::ErrorKind::InvalidData,
            io::ErrorKind::InvalidInput,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::Other,
        ];
        matches!(&self.source, VerificationRejected { .. } | Internal { .. })
            || matches!(&self.source, Io(source) if malformed.contains(&source.kind()))
    }

    /// Whether the staged file is not the archive that is signed: it has to be fetched again.
    pub const fn is_the_file(&self) -> bool {
        matches!(&self.source, self_update::Error::ArchiveVerificationRejected { .. })
    }
}

/// Unpacks and places the agent.
pub fn unpack(what: &Unpacking) -> Result<(), ArchiveError> {
    let failed = |source| ArchiveError { archive: what.archive.clone(), source };
    updater(what).and_then(|update| update.update()).map(|_| ()).map_err(failed)
}

fn updater(what: &Unpacking) -> self_update::Result<Update> {
    let (archive, agent) = (what.named.clone(), what.agent_sha256);
    let agent_length = what.agent_length;
    Update::configure()
        .source(OneRelease { version: what.version.clone() })
        .http_client(Arc::new(OneFile { path: what.archive.clone(), bytes_max: what.named.length }))
        .bin_name(BIN_NAME)
        .bin_path_in_archive(BIN_NAME)
        .bin_install_path(&what.to)
        .target("local")
        .current_version("0.0.0")
        .release_tag(what.version.clone())
        .asset_matcher(|assets| assets.first().cloned())
        .verify_archive(move |path| {
            is(path, archive.length, &archive.sha256)
                .map_err(self_update::Error::archive_verification_rejected)
        })
        .verify_binary(move |path| {
            is(path, agent_length, &agent).map_err(self_update::Error::verification_rejected)
        })
        .show_output(false)
        .show_download_progress(false)
        .no_confirm(true)
        .build()
}

/// Holds if the file is exactly this long and has this digest; says what it is otherwise.
fn is(path: &Path, length: u64, digest: &Digest) -> Result<(), String> {
    let found = (|| {
        let meta = path.symlink_metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if meta.len() != length {
            return Err(io::Error::other(format!("{} bytes, expected {length}", meta.len())));
        }
        hash(&mut File::open(path)?)
    })();
    match found {
        Ok(found) if found == *digest => Ok(()),
        Ok(found) => Err(format!("SHA-256 {found}, expected {digest}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A source with the one release that was verified.
struct OneRelease {
    version: String,
}

impl ReleaseSource for OneRelease {
    fn get_releases(&self) -> self_update::Result<Vec<Release>> {
        let asset = ReleaseAsset::new(ASSET, format!("file:///{ASSET}"));
        Ok(vec![Release::builder().version(self.version.clone()).asset(asset).build()?])
    }
}

/// A client without a network: whatever is asked for, it is this file, and not a byte more than signed.
struct OneFile {
    path: PathBuf,
    bytes_max: u64,
}

impl HttpClient for OneFile {
    fn get(
        &self,
        _url: &str,
        _headers: &HeaderMap,
        _timeout: Option<Duration>,
    ) -> self_update::Result<Box<dyn HttpResponse>> {
        let file = File::open(&self.path)?;
        Ok(Box::new(LocalBody { headers: HeaderMap::new(), file: file.take(self.bytes_max) }))
    }
}

struct LocalBody {
    headers: HeaderMap,
    file: io::Take<File>,
}

impl HttpResponse for LocalBody {
    fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn body(self: Box<Self>) -> Box<dyn Read> {
        Box::new(self.file)
    }
}
