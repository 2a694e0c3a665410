//! From a Unix socket to the broker over TLS: what is written to the socket travels through a TLS 1.3 stream with the
//! device's certificate. The MQTT client itself knows nothing of TLS.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{fleet::identity::Endpoint, observe::logging::chain};

/// Connections at once. The client has one; a second may overlap while the first one dies.
const CONNECTIONS_MAX: usize = 4;
/// Longest wait for the broker, and then for its TLS handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the relay cannot work.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The socket cannot be made.
    #[error("listening on {}", path.display())]
    Listen {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The broker's name is not one.
    #[error("`{host}` is not a host name")]
    Host {
        /// What the identity says.
        host: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// The broker is not there.
    #[error("connecting to the broker at {host}:{port}")]
    Connect {
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The broker does not talk TLS as it should, or one side does not believe the other.
    #[error("opening TLS to the broker at {host}:{port}")]
    Handshake {
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// A relay to one broker.
#[derive(Debug)]
pub struct Relay {
    listener: UnixListener,
    path: PathBuf,
    route: Arc<Route>,
}

#[derive(Debug)]
struct Route {
    broker: Endpoint,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Relay {
    /// Listens on `path`, which only this user can reach. What lay there is replaced.
    pub fn bind(path: &Path, broker: Endpoint, tls: ClientConfig) -> Result<Self, RelayError> {
        let name = ServerName::try_from(broker.host.clone())
            .map_err(|source| RelayError::Host { host: broker.host.clone(), source })?;
        let listen = |source| RelayError::Listen { path: path.to_owned(), source };
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(listen(error)),
        }
        let listener = UnixListener::bind(path).map_err(listen)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(listen)?;
        let route = Arc::new(Route { broker, name, tls: Arc::new(tls) });
        Ok(Self { listener, path: path.to_owned(), route })
    }

    /// Relays until it is dropped. `trouble` holds why the last connection failed.
    pub async fn run(self, trouble: watch::Sender<Option<String>>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let client = match self.listener.accept().await {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "relay cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let (route, trouble) = (Arc::clone(&self.route), trouble.clone());
            connections.spawn(async move {
                if let Err(error) = route.carry(client, &trouble).await {
                    trouble.send_replace(Some(chain(&error)));
                }
                drop(permit);
            });
        }
    }
}

impl Route {
    async fn carry(
        &self,
        mut client: UnixStream,
        trouble: &watch::Sender<Option<String>>,
    ) -> Result<(), RelayError> {
        let Endpoint { host, port } = &self.broker;
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let tcp = timeout(PATIENCE, TcpStream::connect((host.as_str(), *port)));
        let tcp = tcp
            .await
            .unwrap_or_else(|_| Err(late()))
            .map_err(|source| RelayError::Connect { host: host.clone(), port: *port, source })?;
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "small messages to the broker may be held back");
        }
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let tls = timeout(PATIENCE, connector.connect(self.name.clone(), tcp));
        let mut tls = tls
            .await
            .unwrap_or_else(|_| Err(late()))
            .map_err(|source| RelayError::Handshake { host: host.clone(), port: *port, source })?;
        // With TLS 1.3 a broker that refuses our certificate says so only after our side is done.
        match copy_bidirectional(&mut client, &mut tls).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let (host, port) = (host.clone(), *port);
                return Err(RelayError::Handshake { host, port, source: error });
            }
            Err(error) => {
                trouble.send_replace(Some(format!("the connection to the broker broke: {error}")));
            }
        }
        Ok(())
    }
}
