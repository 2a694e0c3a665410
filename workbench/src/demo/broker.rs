//! The demo's own broker: `rumqttd` on a loopback port, behind a TLS 1.3 front that asks for client certificates.
//!
//! For the demo alone: `rumqttd` lets one device write another's topics. A fleet's broker holds each device to its
//! own by the common name of its certificate; `cargo xtask demo --mosquitto` shows that.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use rustls::ServerConfig;
use tokio::{io::copy_bidirectional, net::TcpStream, sync::Semaphore};
use tokio_rustls::TlsAcceptor;

/// Most connections the front holds.
const CONNECTIONS_MAX: usize = 64;
const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No port.
    #[error("taking a loopback port for the broker")]
    Port(#[source] io::Error),
    /// No thread or runtime.
    #[error("starting the broker")]
    Start(#[source] io::Error),
}

/// Starts broker and front; they end with the process. The address is `mqtts://localhost:<port>`.
pub fn start(tls: Arc<ServerConfig>) -> Result<String, BrokerError> {
    let inner = free_port()?;
    let mut broker = Broker::new(config(inner));
    let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
    spawn("broker")
        .spawn(move || {
            if let Err(failure) = broker.start() {
                tracing::error!(%failure, "the demo's broker stopped");
            }
        })
        .map_err(BrokerError::Start)?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BrokerError::Port)?;
    listener.set_nonblocking(true).map_err(BrokerError::Port)?;
    let port = listener.local_addr().map_err(BrokerError::Port)?.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BrokerError::Start)?;
    spawn("broker-front")
        .spawn(move || runtime.block_on(front(listener, TlsAcceptor::from(tls), inner)))
        .map_err(BrokerError::Start)?;
    Ok(format!("mqtts://localhost:{port}"))
}

/// A loopback port that is free now.
pub fn free_port() -> Result<u16, BrokerError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BrokerError::Port)?;
    Ok(listener.local_addr().map_err(BrokerError::Port)?.port())
}

async fn front(listener: TcpListener, tls: TlsAcceptor, inner: u16) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((outer, _)) = listener.accept().await else { continue };
        let tls = tls.clone();
        tokio::spawn(async move {
            let _place = place;
            match relay(tls, outer, inner).await {
                Ok(()) => {}
                Err(failure) => {
                    tracing::debug!(%failure, "a connection to the demo's broker ended")
                }
            }
        });
    }
}

async fn relay(tls: TlsAcceptor, outer: TcpStream, inner: u16) -> io::Result<()> {
    let mut outer = tls.accept(outer).await?;
    let mut inner = TcpStream::connect((Ipv4Addr::LOCALHOST, inner)).await?;
    copy_bidirectional(&mut outer, &mut inner).await.map(|_| ())
}

fn config(port: u16) -> Config {
    let settings = ServerSettings {
        name: "demo".into(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: PAYLOAD_BYTES_MAX,
            max_inflight_count: 200,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    Config {
        router: RouterConfig {
            max_connections: CONNECTIONS_MAX,
            max_outgoing_packet_count: 200,
            max_segment_size: 10 << 20,
            max_segment_count: 4,
            ..RouterConfig::default()
        },
        v5: Some(HashMap::from([("1".to_owned(), settings)])),
        ..Config::default()
    }
}
