//! What a broker is handed: certificates, a mosquitto configuration, and the access list that holds every device to
//! its own topics.

use std::{
    io,
    path::{Path, PathBuf, absolute},
};

use protocol::{id::FleetId, time::UnixMs};

use crate::{
    disk::{self, Access, DiskError},
    init::{self, LoadError},
    layout::Layout,
    pki::{CONTROLLER_NAME, PkiError},
    settings::Settings,
};

/// What to write, and where.
pub struct Broker<'a> {
    /// Folder for the files.
    pub out: &'a Path,
    /// Names in the broker's certificate.
    pub names: &'a [String],
    /// Port the configuration listens on, on loopback.
    pub port: u16,
}

/// Why a broker's files cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The controller's state.
    #[error("opening the controller's state")]
    State(#[source] LoadError),
    /// The certificate.
    #[error("making the broker's certificate")]
    Certificate(#[source] PkiError),
    /// A file.
    #[error("writing the broker's files")]
    Write(#[source] DiskError),
    /// The folder's place cannot be found out.
    #[error("finding the absolute path of {}", .path.display())]
    Path {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Broker<'_> {
    /// Writes `broker.crt.pem`, `broker.key.pem`, `ca.crt.pem`, `mosquitto.conf` and `acl`; returns their paths.
    pub fn write(&self, layout: &Layout, now: UnixMs) -> Result<Vec<PathBuf>, BrokerError> {
        let (settings, authority) = init::authority(layout).map_err(BrokerError::State)?;
        let issued = authority.server(self.names, now).map_err(BrokerError::Certificate)?;
        let out = absolute(self.out)
            .map_err(|source| BrokerError::Path { path: self.out.to_owned(), source })?;
        disk::folder(&out).map_err(BrokerError::Write)?;
        let configuration = self.configuration(&settings, &out);
        let files = [
            ("broker.crt.pem", issued.chain_pem, Access::Anyone),
            ("broker.key.pem", issued.key_pem, Access::Owner),
            ("ca.crt.pem", authority.certificate_pem().to_owned(), Access::Anyone),
            ("acl", access_list(&settings.fleet), Access::Anyone),
            ("mosquitto.conf", configuration, Access::Anyone),
        ];
        files
            .into_iter()
            .map(|(name, text, access)| {
                let path = out.join(name);
                disk::write(&path, text.as_bytes(), access).map_err(BrokerError::Write)?;
                Ok(path)
            })
            .collect()
    }

    fn configuration(&self, settings: &Settings, out: &Path) -> String {
        let file = |name: &str| out.join(name).display().to_string();
        format!(
            "# Broker of the fleet {fleet}: TLS 1.3 with mutual certificates, access by certificate name.\n\
             listener {port} 127.0.0.1\n\
             tls_version tlsv1.3\n\
             cafile {ca}\n\
             certfile {certificate}\n\
             keyfile {key}\n\
             require_certificate true\n\
             use_identity_as_username true\n\
             allow_anonymous false\n\
             acl_file {acl}\n\
             persistence false\n\
             max_packet_size 131072\n\
             max_queued_messages 10000\n",
            fleet = settings.fleet,
            port = self.port,
            ca = file("ca.crt.pem"),
            certificate = file("broker.crt.pem"),
            key = file("broker.key.pem"),
            acl = file("acl"),
        )
    }
}

/// The access list, in mosquitto's words: `%u` is the name in the client's certificate.
pub fn access_list(fleet: &FleetId) -> String {
    format!(
        "# The controller reads and writes everything of its fleet.\n\
         user {CONTROLLER_NAME}\n\
         topic readwrite socle/1/{fleet}/#\n\
         \n\
         # A device reads what is said to it and to all, and writes what it reports.\n\
         pattern read socle/1/{fleet}/%u/desired\n\
         pattern read socle/1/{fleet}/%u/cmd\n\
         pattern write socle/1/{fleet}/%u/state\n\
         pattern write socle/1/{fleet}/%u/tele\n\
         pattern write socle/1/{fleet}/%u/event\n\
         pattern write socle/1/{fleet}/%u/presence\n\
         pattern read socle/1/{fleet}/all/#\n"
    )
}
