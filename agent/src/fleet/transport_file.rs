//! The operator's wishes about downloads on this device: `transport.toml` in the state folder. Without it the fleet's own
//! server is asked, as fast as it goes.

use std::{io, num::NonZeroU64, path::PathBuf, time::Duration};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use slots::{
    disk::{Disk, RealDisk},
    layout::StateDir,
};

use crate::fleet::{
    artifact_server::{self, ArtifactServer, HttpError, Plain},
    identity::Credentials,
    mirrors::Transport,
};

const BYTES_MAX: u64 = 64 * 1024;
const MIRRORS_MAX: usize = 8;

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TransportFileError {
    /// It cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{} does not say how to download; correct it", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        source: toml::de::Error,
    },
    /// A mirror that cannot be one.
    #[error("mirror `{url}` is not used: {why}")]
    Mirror {
        /// Its address without its query.
        url: String,
        /// What to do about it.
        why: &'static str,
    },
    /// The authority of a mirror.
    #[error("reading the authority of mirror `{url}` from {}", path.display())]
    Authority {
        /// Its address without its query.
        url: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// The client of a mirror.
    #[error("preparing the client of a mirror")]
    Client(#[source] HttpError),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    bytes_per_second: Option<NonZeroU64>,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    /// Address of the folder that holds `sha256/`; a query goes with every request.
    url: String,
    /// Certificates (PEM) of who may speak for it; without them the fleet's authority, and the device shows its
    /// certificate.
    authority: Option<PathBuf>,
    /// Whether it may be asked without TLS.
    #[serde(default)]
    plain_http: bool,
}

/// How this device downloads.
pub fn load(
    state: &StateDir,
    credentials: &Credentials,
    patience: Duration,
) -> Result<Transport, TransportFileError> {
    let path = state.transport();
    let bytes = match RealDisk.read(&path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Transport::new(vec![], None));
        }
        Err(source) => return Err(TransportFileError::Read { path, source }),
    };
    let wishes: Wishes = toml::from_str(&String::from_utf8_lossy(&bytes))
        .map_err(|source| TransportFileError::Content { path, source })?;
    let refused = |url: &str, why| TransportFileError::Mirror { url: shown(url), why };
    if let Some(surplus) = wishes.mirror.get(MIRRORS_MAX) {
        return Err(refused(&surplus.url, "name no more than eight mirrors"));
    }
    let mirrors = wishes.mirror.iter().map(|mirror| server(mirror, credentials, patience));
    Ok(Transport::new(mirrors.collect::<Result<_, _>>()?, wishes.bytes_per_second))
}

fn server(
    mirror: &Mirror,
    credentials: &Credentials,
    patience: Duration,
) -> Result<ArtifactServer, TransportFileError> {
    let url = &mirror.url;
    let refused = |why| TransportFileError::Mirror { url: shown(url), why };
    let plain = match (url.split_once("://").map(|(scheme, _)| scheme), mirror.plain_http) {
        (Some("https"), _) => Plain::Refused,
        (Some("http"), true) => Plain::Allowed,
        (Some("http"), false) => {
            return Err(refused("it has no TLS; say `plain_http = true` if that is meant"));
        }
        (None | Some(_), _) => return Err(refused("its address must begin with https://")),
    };
    let agent = match &mirror.authority {
        None if plain == Plain::Refused => artifact_server::client(
            std::slice::from_ref(&credentials.authority),
            Some(credentials),
            patience,
            plain,
        ),
        None => artifact_server::client(&[], None, patience, plain),
        Some(path) => {
            let failed = |source| TransportFileError::Authority {
                url: shown(url),
                path: path.clone(),
                source,
            };
            let authorities = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(failed)?;
            artifact_server::client(&authorities, None, patience, plain)
        }
    };
    Ok(ArtifactServer::asked_by(agent.map_err(TransportFileError::Client)?, url))
}

/// An address without its query, which may be a secret.
fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().chars().take(200).collect()
}
