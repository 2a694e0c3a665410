//! MQTT over our own TLS: the MQTT library speaks plainly to a Unix socket, and each connection there becomes a TLS 1.3
//! connection to the broker with the controller's certificate.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::stop::Stop;

const CONNECT: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 4;
/// Longest path of a Unix socket, less its terminating zero.
const SOCKET_PATH_MAX: usize = 107;

/// Where the broker is: `mqtts://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    host: String,
    port: u16,
}

/// Why a text is not a broker's address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a broker's address: `{0}`; write mqtts://HOST:PORT (there is no mode without TLS)")]
pub struct NotABroker(String);

/// Why the relay cannot stand.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The socket's path is longer than the system allows.
    #[error(
        "the socket's path {} has more than {SOCKET_PATH_MAX} bytes; give a shorter --state", .0.display()
    )]
    PathTooLong(PathBuf),
    /// The socket cannot be made.
    #[error("listening on {}", .path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The broker's host is not a name that a certificate can carry.
    #[error("`{0}` is not a host name or an address")]
    Host(String),
}

impl FromStr for BrokerUrl {
    type Err = NotABroker;

    fn from_str(text: &str) -> Result<Self, NotABroker> {
        let wrong = || NotABroker(text.chars().take(100).collect());
        let rest = text.strip_prefix("mqtts://").ok_or_else(wrong)?;
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "mqtts://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "mqtts://{}:{}", self.host, self.port)
        }
    }
}

/// A relay that listens.
pub struct Relay {
    listener: UnixListener,
    broker: BrokerUrl,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Relay {
    /// Listens on `socket`, replacing what an earlier run left there.
    pub fn listen(
        socket: &Path,
        broker: BrokerUrl,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, RelayError> {
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(RelayError::PathTooLong(socket.to_owned()));
        }
        let failed = |source| RelayError::Listen { path: socket.to_owned(), source };
        match fs::remove_file(socket) {
            Ok(()) => {}
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(source)),
        }
        let name = ServerName::try_from(broker.host.clone())
            .map_err(|_| RelayError::Host(broker.host.clone()))?;
        let listener = UnixListener::bind(socket).map_err(failed)?;
        Ok(Self { listener, broker, name, connector: TlsConnector::from(tls) })
    }

    /// Relays until the word to stop.
    pub async fn run(self, mut stop: Stop) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.wait() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                    let Ok((inner, _)) = accepted else { continue };
                    let (broker, name) = (self.broker.clone(), self.name.clone());
                    let connector = self.connector.clone();
                    connections.spawn(async move {
                        if let Err(error) = carry(inner, &broker, name, connector).await {
                            tracing::warn!("connection to the broker {broker}: {error}");
                        }
                    });
                }
            }
        }
        connections.shutdown().await;
    }
}

async fn carry(
    mut inner: UnixStream,
    broker: &BrokerUrl,
    name: ServerName<'static>,
    connector: TlsConnector,
) -> io::Result<()> {
    let connect = async {
        let stream = TcpStream::connect((broker.host.as_str(), broker.port)).await?;
        stream.set_nodelay(true)?;
        connector.connect(name, stream).await
    };
    let mut outer = timeout(CONNECT, connect).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, "no TLS connection within 10 seconds")
    })??;
    match copy_bidirectional(&mut inner, &mut outer).await {
        Ok(_) => Ok(()),
        // Brokers and our own client close without a TLS goodbye; the MQTT layer notices by itself.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_with_tls_are_brokers() {
        for text in ["mqtts://localhost:8883", "mqtts://[::1]:8883", "mqtts://10.0.0.1:1"] {
            assert_eq!(text.parse::<BrokerUrl>().unwrap().to_string(), text);
        }
        for text in ["", "mqtt://localhost:1883", "mqtts://localhost", "mqtts://:1", "mqtts://h:0"]
        {
            assert_eq!(text.parse::<BrokerUrl>(), Err(NotABroker(text.into())));
        }
    }
}
