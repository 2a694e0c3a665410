//! The MQTT client: one side hears and only queues, the other speaks; both reconnect for ever.

use std::{path::PathBuf, sync::Arc, time::Duration};

use protocol::{
    cbor::EncodeError,
    command::{Command, Halt, Signable as _},
    id::FleetId,
    key::SigningKey,
    topic::{Channel, Topic},
};
use rumqttc::v5::{
    AsyncClient, ClientError, Event, EventLoop, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    arrival::Arrival,
    said::Say,
    seal_keys::{self, SealKeyError},
};
use crate::{
    causes::chain,
    clock::Clock,
    metrics::Metrics,
    stop::Stop,
    store::database::{Store, StoreError},
};

/// Largest packet taken from the broker: a message of ours with its header, with room to spare.
const PACKET_BYTES_MAX: u32 = 128 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const REQUESTS: usize = 64;
const BACKOFF_MS: u64 = 100;
const BACKOFF_MS_MAX: u64 = 30_000;

/// What the client needs.
pub struct Client {
    /// Our fleet.
    pub fleet: FleetId,
    /// The relay's socket.
    pub socket: PathBuf,
    /// Where what is said is read from.
    pub store: Store,
    /// Signs what is said.
    pub signer: Arc<SigningKey>,
    /// What time it is.
    pub clock: Clock,
    /// Counts.
    pub metrics: Metrics,
    /// Where arrivals go.
    pub arrivals: mpsc::Sender<Arrival>,
    /// Told whether we are connected and subscribed.
    pub connected: watch::Sender<bool>,
}

/// Why something could not be said.
#[derive(Debug, thiserror::Error)]
enum SayError {
    #[error("reading what to say")]
    Store(#[source] StoreError),
    #[error("reading the sealing key")]
    SealKey(#[source] SealKeyError),
    #[error("signing what to say")]
    Sign(#[source] EncodeError),
    #[error("handing a message to the MQTT client")]
    Client(#[source] Box<ClientError>),
}

/// The connection as the speaker sees it: each new one has a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Down,
    Up(u64),
}

impl Client {
    /// Speaks and hears until the word to stop.
    pub async fn run(self, said: mpsc::Receiver<Say>, stop: Stop) {
        let name = format!("controller-{:08x}", fastrand::u32(..));
        let mut options = MqttOptions::new(name, self.socket.display().to_string(), 1);
        options
            .set_transport(rumqttc::Transport::Unix)
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(true)
            .set_max_packet_size(Some(PACKET_BYTES_MAX));
        let (client, events) = AsyncClient::new(options, REQUESTS);
        let (session, sessions) = watch::channel(Session::Down);
        tokio::join!(
            self.hear(events, &session, stop.clone()),
            self.speak(&client, sessions, said, stop)
        );
    }

    async fn hear(&self, mut events: EventLoop, session: &watch::Sender<Session>, mut stop: Stop) {
        let mut number = 0;
        let mut backoff_ms = BACKOFF_MS;
        loop {
            let event = tokio::select! {
                () = stop.wait() => return,
                event = events.poll() => event,
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    (number, backoff_ms) = (number + 1, BACKOFF_MS);
                    session.send_replace(Session::Up(number));
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    let (bytes, retained) = (publish.payload, publish.retain);
                    // A full queue drops the message: it is not acknowledged, so the device sends it again.
                    if self.arrivals.try_send(Arrival { topic, bytes, retained }).is_err() {
                        self.metrics.dropped();
                    }
                }
                Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
                Err(error) => {
                    if *session.borrow() != Session::Down || backoff_ms == BACKOFF_MS {
                        tracing::warn!("no connection to the broker, trying again: {error}");
                    }
                    session.send_replace(Session::Down);
                    self.connected.send_replace(false);
                    self.metrics.connected(false);
                    let wait = Duration::from_millis(fastrand::u64(1..=backoff_ms));
                    backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
                    tokio::select! {
                        () = stop.wait() => return,
                        () = sleep(wait) => {}
                    }
                }
            }
        }
    }

    async fn speak(
        &self,
        client: &AsyncClient,
        mut sessions: watch::Receiver<Session>,
        mut said: mpsc::Receiver<Say>,
        mut stop: Stop,
    ) {
        loop {
            let next = tokio::select! {
                () = stop.wait() => return,
                changed = sessions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    None
                }
                say = said.recv() => match say {
                    None => return,
                    Some(say) => Some(say),
                },
            };
            let session = *sessions.borrow_and_update();
            let done = tokio::select! {
                () = stop.wait() => return,
                // A connection that breaks while something is being said ends the attempt; all is said again.
                _ = sessions.changed() => {
                    sessions.mark_changed();
                    continue;
                }
                done = self.utter(client, session, next) => done,
            };
            if let Err(error) = done {
                tracing::error!("nothing was said to devices: {}", chain(&error));
            }
        }
    }

    async fn utter(
        &self,
        client: &AsyncClient,
        session: Session,
        next: Option<Say>,
    ) -> Result<(), SayError> {
        match (session, next) {
            // Said again at the next connection, or asked for again by the device.
            (Session::Down, _) => Ok(()),
            (Session::Up(_), Some(say)) => self.say(client, &say).await,
            (Session::Up(_), None) => self.greet(client).await,
        }
    }

    /// Subscribes, and says everything that holds: the broker may have forgotten both.
    async fn greet(&self, client: &AsyncClient) -> Result<(), SayError> {
        for channel in Channel::ALL {
            client
                .subscribe(Topic::all_reports(&self.fleet, channel), QoS::AtLeastOnce)
                .await
                .map_err(|error| SayError::Client(Box::new(error)))?;
        }
        self.say(client, &Say::Keys).await?;
        self.say(client, &Say::Halt).await?;
        let assigned =
            self.store.assigned_devices(self.clock.now()).await.map_err(SayError::Store)?;
        for device in assigned {
            self.say(client, &Say::Desired(device)).await?;
        }
        tracing::info!("connected to the broker");
        self.connected.send_replace(true);
        self.metrics.connected(true);
        Ok(())
    }

    async fn say(&self, client: &AsyncClient, say: &Say) -> Result<(), SayError> {
        let Some((topic, bytes)) = self.content(say).await? else { return Ok(()) };
        let retain = match say {
            Say::Desired(_) | Say::Halt | Say::Keys => true,
            Say::Acknowledge(..) => false,
        };
        client
            .publish(topic.to_string(), QoS::AtLeastOnce, retain, bytes)
            .await
            .map_err(|error| SayError::Client(Box::new(error)))
    }

    /// The newest content of what is to be said; none if there is nothing.
    async fn content(&self, say: &Say) -> Result<Option<(Topic, Vec<u8>)>, SayError> {
        let fleet = self.fleet.clone();
        match say {
            Say::Desired(device) => {
                let now = self.clock.now();
                let signed = self.store.desired(*device, now).await.map_err(SayError::Store)?;
                Ok(signed.map(|signed| (Topic::Desired(fleet, *device), signed)))
            }
            Say::Halt => {
                let halted = self.store.halted().await.map_err(SayError::Store)?;
                let Some(halted) = halted else { return Ok(None) };
                let signed = Halt {
                    fleet: fleet.clone(),
                    sequence: halted.sequence,
                    halted: true,
                    releases: halted.releases,
                    reason: halted.reason,
                }
                .signed_by(&self.signer)
                .map_err(SayError::Sign)?;
                Ok(Some((Topic::Halt(fleet), signed)))
            }
            Say::Keys => {
                let signed = seal_keys::announced(&self.store, &fleet, &self.signer)
                    .await
                    .map_err(SayError::SealKey)?;
                Ok(Some((Topic::SealKeys(fleet), signed)))
            }
            Say::Acknowledge(device, sequences) => {
                let command = Command { device: *device, acknowledged: sequences.clone() };
                let signed = command.signed_by(&self.signer).map_err(SayError::Sign)?;
                Ok(Some((Topic::Command(fleet, *device), signed)))
            }
        }
    }
}
