//! A subscriber on the broker that sees everything the broker sees.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rumqttc::{
    Transport,
    v5::{
        AsyncClient, Event, MqttOptions,
        mqttbytes::{QoS, v5::Packet},
    },
};
use rustls::ClientConfig;
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
};
use tokio_rustls::TlsConnector;

/// Most messages kept.
const HEARD_MAX: usize = 10_000;

/// Why nobody listens.
#[derive(Debug, thiserror::Error)]
pub enum EavesdropperError {
    /// Not `mqtts://host:port`.
    #[error("`{0}` is not a broker: write mqtts://host:port")]
    Url(String),
    /// Not a host name.
    #[error("the broker's host name")]
    Host(#[from] InvalidDnsNameError),
    /// No socket, thread or runtime.
    #[error("starting the eavesdropper")]
    Start(#[source] io::Error),
}

/// What was heard so far.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Vec<Message>>>);

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it was published.
    pub topic: String,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl Heard {
    /// All messages so far.
    pub fn messages(&self) -> Vec<Message> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, message: Message) {
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() < HEARD_MAX {
            messages.push(message);
        }
    }
}

/// Subscribes to everything on the broker at `url`; goes on until the process ends. `socket` is where the relay to
/// TLS listens.
pub fn listen(
    url: &str,
    tls: Arc<ClientConfig>,
    socket: &Path,
) -> Result<Heard, EavesdropperError> {
    let wrong = || EavesdropperError::Url(url.to_owned());
    let (host, port) =
        url.strip_prefix("mqtts://").and_then(|rest| rest.rsplit_once(':')).ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let name = ServerName::try_from(host.to_owned())?;
    let heard = Heard::default();
    let (into, host, socket) = (heard.clone(), host.to_owned(), socket.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(EavesdropperError::Start)?;
    let listener = {
        let _guard = runtime.enter();
        UnixListener::bind(&socket).map_err(EavesdropperError::Start)?
    };
    let relay = async move {
        let tls = TlsConnector::from(tls);
        loop {
            let Ok((mut inner, _)) = listener.accept().await else { continue };
            let joined = async {
                let outer = TcpStream::connect((host.as_str(), port)).await?;
                let mut outer = tls.connect(name.clone(), outer).await?;
                copy_bidirectional(&mut inner, &mut outer).await
            };
            if let Err(failure) = joined.await {
                tracing::debug!(%failure, "the eavesdropper's connection ended");
            }
        }
    };
    thread::Builder::new()
        .name("eavesdropper".into())
        .spawn(move || {
            runtime.spawn(relay);
            runtime.block_on(subscribe(&socket, into));
        })
        .map_err(EavesdropperError::Start)?;
    Ok(heard)
}

async fn subscribe(socket: &Path, into: Heard) {
    let mut options = MqttOptions::new("demo-eavesdropper", socket.display().to_string(), 1);
    options.set_transport(Transport::Unix);
    options.set_keep_alive(Duration::from_secs(10));
    options.set_max_packet_size(Some(300_000));
    let (client, mut events) = AsyncClient::new(options, 16);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                if let Err(failure) = client.try_subscribe("socle/#", QoS::AtMostOnce) {
                    tracing::debug!(%failure, "the eavesdropper cannot subscribe");
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => into.add(Message {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.to_vec(),
            }),
            Ok(_) => {}
            Err(failure) => {
                tracing::debug!(%failure, "the eavesdropper lost the broker");
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    }
}
