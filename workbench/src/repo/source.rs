//! Where a repository is read from: a folder, or a server with the same names. Nothing read here is believed.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use protocol::digest::Digest;
use ureq::{Agent, Body, http::Response};

use crate::{
    api::{self, ApiError},
    files::{self, FileError},
    repo::layout::RepoFolder,
};

/// Slowest transfer that is waited for, in bytes a second.
const SLOWEST: u64 = 16 << 10;

/// A repository to read.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// The repository: a folder, or the address of its server, such as https://controller:8443/artifacts
    pub from: String,
    /// Certificate authority of an https:// server (PEM)
    #[arg(long, env = "SOCLE_CA")]
    pub ca: Option<PathBuf>,
    /// File with an API token, where the server asks for one; sent over TLS only
    #[arg(long, env = "SOCLE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// A repository.
#[derive(Debug)]
pub enum Source {
    /// A folder.
    Folder(RepoFolder),
    /// A server.
    Server {
        /// How it is called.
        agent: Box<Agent>,
        /// Its address, without a slash at the end.
        base: String,
        /// The token.
        token: Option<String>,
    },
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file.
    #[error("reading the repository")]
    File(#[from] FileError),
    /// An object of a folder.
    #[error("reading the object `{}`", .path.display())]
    Object {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The access.
    #[error("preparing the access to the server")]
    Access(#[from] ApiError),
    /// An https:// server without a certificate authority.
    #[error("`{0}` needs --ca, the certificate authority of the server")]
    NoCa(String),
    /// No answer.
    #[error("fetching {url}; check that the server runs there")]
    Fetch {
        /// What.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// Another answer than yes or not here.
    #[error("fetching {url}: the server says {status}")]
    Status {
        /// What.
        url: String,
        /// HTTP status.
        status: u16,
    },
}

impl Source {
    /// The repository that `args` name.
    pub fn open(args: &SourceArgs) -> Result<Self, SourceError> {
        let base = args.from.trim_end_matches('/').to_owned();
        if base.starts_with("http://") {
            // A mirror: all that counts is signed. No token goes out in clear.
            let agent = Box::new(api::local_agent());
            return Ok(Self::Server { agent, base, token: None });
        }
        if !base.starts_with("https://") {
            return Ok(Self::Folder(RepoFolder::new(args.from.as_ref())));
        }
        let ca = args.ca.as_ref().ok_or_else(|| SourceError::NoCa(base.clone()))?;
        let agent = api::agent(&files::read(ca, files::TEXT_BYTES_MAX)?)
            .ok_or_else(|| ApiError::Ca { path: ca.clone() })?;
        let token = args.token_file.as_ref().map(|path| api::read_token(path)).transpose()?;
        Ok(Self::Server { agent: Box::new(agent), base, token })
    }

    /// A metadata file of at most `max` bytes; none if it is not there.
    pub fn metadata(&self, file: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.metadata(file);
                if path.exists() { Ok(Some(files::read(&path, max)?)) } else { Ok(None) }
            }
            Self::Server { .. } => {
                let url = format!("metadata/{file}");
                let Some((url, answer)) = self.get(&url, max)? else { return Ok(None) };
                let bytes = answer.into_body().into_with_config().limit(max).read_to_vec();
                let bytes =
                    bytes.map_err(|source| SourceError::Fetch { url, source: Box::new(source) })?;
                Ok(Some(bytes))
            }
        }
    }

    /// The bytes of an object of about `length` bytes; none if it is not there.
    pub fn object(
        &self,
        digest: &Digest,
        length: u64,
    ) -> Result<Option<Box<dyn Read>>, SourceError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.object(digest);
                match fs::File::open(&path) {
                    Ok(file) => Ok(Some(Box::new(file))),
                    Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(SourceError::Object { path, source }),
                }
            }
            Self::Server { .. } => {
                let Some((_, answer)) = self.get(&format!("sha256/{digest}"), length)? else {
                    return Ok(None);
                };
                Ok(Some(Box::new(answer.into_body().into_reader())))
            }
        }
    }

    fn get(
        &self,
        path: &str,
        length: u64,
    ) -> Result<Option<(String, Response<Body>)>, SourceError> {
        let Self::Server { agent, base, token } = self else { return Ok(None) };
        let url = format!("{base}/{path}");
        let patience = Duration::from_secs(120 + length / SLOWEST);
        let mut request = agent.get(&url).config().timeout_global(Some(patience)).build();
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = request
            .call()
            .map_err(|source| SourceError::Fetch { url: url.clone(), source: Box::new(source) })?;
        match answer.status().as_u16() {
            200 => Ok(Some((url, answer))),
            404 => Ok(None),
            status => Err(SourceError::Status { url, status }),
        }
    }
}
