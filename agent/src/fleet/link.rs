//! The MQTT session with the controller: what comes in is checked and passed on, what waits in the outbox is sealed and
//! sent until the controller says that it has stored it.
//!
//! One task only polls the client, another decides; the second never waits for the first, so neither can stop the other.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{
    cbor::{self, MESSAGE_BYTES_MAX},
    command::{Reader, SealKey},
    id::{DeviceId, FleetId},
    report::Presence,
    seal::{SealError, Sealer},
    topic::{Channel, Topic},
    verified::Verified,
};
use ring::rand::SystemRandom;
use rumqttc::{
    Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{ConnectProperties, LastWill, Packet},
        },
    },
};
use slots::disk::{self, RealDisk};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    fleet::{
        assignment::Message,
        backoff::Backoff,
        fleet_status::FleetStatus,
        identity::Identity,
        journal::{Journal, JournalError},
        outbox::{Class, Sent, Waiting},
        state_file,
    },
    observe::{clock, heartbeat::Beat, logging::chain},
};

/// Largest MQTT packet that is taken: a message, its topic and properties.
const PACKET_BYTES_MAX: u32 = MESSAGE_BYTES_MAX as u32 + 4096;
/// Packets that wait between the two tasks.
const PACKETS_MAX: usize = 64;
/// Requests that wait for the client.
const REQUESTS_MAX: usize = 64;
/// Events under way at once, and as many others.
const WINDOW: usize = 32;
/// Most reports of which it is remembered when they were sent.
const TURNS_MAX: usize = 20_000;
/// Longest wait for the farewell to reach the broker.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause between two looks at what has to be sent again.
const LOOK: Duration = Duration::from_secs(1);
/// The newest sealing key, as the controller signed it, in the folder `identity`.
const SEAL_KEY: &str = "seal-key.cbor";

/// How the link behaves.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Pause after which an idle connection is tested.
    pub keep_alive: Duration,
    /// Time for the controller to acknowledge a report before it is sent again.
    pub resend_after: Duration,
    /// Waits between connections.
    pub reconnect: Backoff,
}

/// What the link is given.
pub struct Parts {
    /// Who this device is.
    pub identity: Arc<Identity>,
    /// The folder `identity`.
    pub folder: PathBuf,
    /// The relay's socket.
    pub socket: PathBuf,
    /// Where reports wait.
    pub journal: Journal,
    /// For assignments and halts.
    pub inbox: mpsc::Sender<Message>,
    /// Why the relay's last connection failed.
    pub trouble: watch::Receiver<Option<String>>,
    /// What the local status shows.
    pub status: watch::Sender<FleetStatus>,
    /// How it behaves.
    pub timing: Timing,
    /// Says that this loop turns.
    pub beat: Beat,
    /// Becomes true when the gateway stops.
    pub stop: watch::Receiver<bool>,
}

/// Why something was not sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("reading the outbox")]
    Journal(#[from] JournalError),
    #[error("sealing report {sequence}")]
    Seal { sequence: u64, source: SealError },
}

/// What the polling task saw.
enum Sight {
    Up,
    Down(String),
    Publish { topic: String, payload: Vec<u8> },
}

struct Link {
    parts: Parts,
    client: AsyncClient,
    connected: bool,
    key: Option<SealKey>,
    sealer: Option<Sealer>,
    /// When each report was sent that may still be acknowledged in time.
    under_way: BTreeMap<u64, (Class, Instant)>,
    /// When each was sent last, counted in reports.
    turns: BTreeMap<u64, u64>,
    turn: u64,
    /// The newest messages of the controller that found no room yet.
    held_desired: Option<Message>,
    held_halt: Option<Message>,
}

/// Keeps the session until the gateway stops.
pub async fn run(parts: Parts) {
    let options = match options(&parts) {
        Ok(options) => options,
        Err(error) => return tracing::error!("the link cannot start: {}", chain(&error)),
    };
    let (client, events) = AsyncClient::new(options, REQUESTS_MAX);
    let (sights, mut seen) = mpsc::channel(PACKETS_MAX);
    let polling = tokio::spawn(poll(events, sights, parts.timing.reconnect));
    let mut link = Link {
        parts,
        client,
        connected: false,
        key: None,
        sealer: None,
        under_way: BTreeMap::new(),
        turns: BTreeMap::new(),
        turn: 0,
        held_desired: None,
        held_halt: None,
    };
    link.restore_key().await;
    link.live(&mut seen).await;
    link.say_farewell(seen).await;
    polling.abort();
    link.parts.beat.end();
}

/// Polls the client and tells what it sees. It waits for the deciding task, which never waits for it.
async fn poll(mut events: EventLoop, sights: mpsc::Sender<Sight>, mut reconnect: Backoff) {
    loop {
        let sight = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                reconnect.succeeded();
                Sight::Up
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => Sight::Publish {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.to_vec(),
            },
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => continue,
            Err(ConnectionError::RequestsDone) => return,
            Err(error) => {
                if sights.send(Sight::Down(chain(&error))).await.is_err() {
                    return;
                }
                sleep(reconnect.after_failure(fastrand::f64())).await;
                continue;
            }
        };
        if sights.send(sight).await.is_err() {
            return;
        }
    }
}

impl Link {
    async fn live(&mut self, seen: &mut mpsc::Receiver<Sight>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.parts.journal.watch();
        while !*self.parts.stop.borrow() {
            self.parts.beat.tick();
            tokio::select! {
                sight = seen.recv() => match sight {
                    Some(sight) => self.see(sight).await,
                    None => return,
                },
                changed = changes.changed() => if changed.is_err() { return },
                changed = self.parts.stop.changed() => if changed.is_err() { return },
                tick = looks.tick() => {
                    self.forget_overdue(tick);
                    self.pass_on_held();
                }
            }
            let size = *changes.borrow_and_update();
            self.parts.status.send_if_modified(|status| {
                let before = (status.outbox_entries, status.outbox_dropped);
                (status.outbox_entries, status.outbox_dropped) = (size.waiting, size.dropped);
                before != (size.waiting, size.dropped)
            });
            if let Err(error) = self.send_waiting().await {
                tracing::warn!("{}", chain(&error));
            }
        }
    }

    async fn see(&mut self, sight: Sight) {
        match sight {
            Sight::Up => self.greet(),
            Sight::Down(reason) => self.lost(&reason),
            Sight::Publish { topic, payload } => self.receive(&topic, payload).await,
        }
    }

    /// The session is new each time: subscribe again, say hello, and send again what is not acknowledged.
    fn greet(&mut self) {
        let (fleet, device) = (self.fleet(), self.device());
        let topics = [
            Topic::Desired(fleet.clone(), device),
            Topic::Command(fleet.clone(), device),
            Topic::Halt(fleet.clone()),
            Topic::SealKeys(fleet.clone()),
        ];
        for topic in topics {
            if let Err(error) = self.client.try_subscribe(topic.to_string(), QoS::AtLeastOnce) {
                tracing::error!(%topic, "not subscribed: {}", chain(&error));
            }
        }
        self.announce(Presence { online: true });
        self.connected = true;
        self.under_way.clear();
        tracing::info!(broker = %self.broker(), "connected to the fleet");
        self.parts.status.send_modify(|status| {
            status.connected = true;
            status.last_error = None;
        });
    }

    fn lost(&mut self, reason: &str) {
        // The relay knows better why than the client, who only sees its socket close.
        let reason =
            self.parts.trouble.borrow_and_update().clone().unwrap_or_else(|| reason.to_owned());
        let news =
            self.connected || self.parts.status.borrow().last_error.as_ref() != Some(&reason);
        if news {
            tracing::warn!(broker = %self.broker(), "not connected to the fleet: {reason}");
        }
        self.connected = false;
        self.under_way.clear();
        self.parts.status.send_modify(|status| {
            status.connected = false;
            status.last_error = Some(reason);
        });
    }

    async fn receive(&mut self, topic: &str, payload: Vec<u8>) {
        if payload.is_empty() {
            // A retained message that was cleared.
            return;
        }
        let message = match topic.parse::<Topic>() {
            Ok(Topic::Desired(fleet, device)) if self.is_ours(&fleet, device) => {
                Message::Desired(payload)
            }
            Ok(Topic::Halt(fleet)) if fleet == *self.fleet() => Message::Halt(payload),
            Ok(Topic::Command(fleet, device)) if self.is_ours(&fleet, device) => {
                return self.command(&payload).await;
            }
            Ok(Topic::SealKeys(fleet)) if fleet == *self.fleet() => {
                return self.new_key(payload).await;
            }
            Ok(
                Topic::Desired(..)
                | Topic::Halt(_)
                | Topic::Command(..)
                | Topic::SealKeys(_)
                | Topic::Report(..),
            ) => return self.note(format!("a message on the foreign topic `{topic}` is ignored")),
            Err(error) => return self.note(chain(&error)),
        };
        self.pass_on(message);
    }

    /// Hands a message over without waiting, since anybody who can publish on the broker can have many of them come. What
    /// finds no room is dropped unless the controller signed it: that is retained, but would come again only with the
    /// next session.
    fn pass_on(&mut self, message: Message) {
        match self.parts.inbox.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(message)) if self.is_genuine(&message) => match message {
                Message::Desired(_) => self.held_desired = Some(message),
                Message::Halt(_) => self.held_halt = Some(message),
            },
            Err(TrySendError::Full(_)) => {
                self.note("more messages come that nobody signed than can be looked at".to_owned());
            }
            Err(TrySendError::Closed(_)) => {
                tracing::debug!("an assignment came while the agent was stopping");
            }
        }
    }

    fn is_genuine(&self, message: &Message) -> bool {
        match message {
            Message::Desired(bytes) => self.reader().desired(bytes, 0, clock::now()).is_ok(),
            Message::Halt(bytes) => self.reader().halt(bytes, 0).is_ok(),
        }
    }

    fn pass_on_held(&mut self) {
        for message in [self.held_halt.take(), self.held_desired.take()].into_iter().flatten() {
            self.pass_on(message);
        }
    }

    async fn command(&mut self, payload: &[u8]) {
        match self.reader().command(payload) {
            Ok(command) => {
                let sequences = command.into_inner().acknowledged;
                for sequence in &sequences {
                    self.under_way.remove(sequence);
                    self.turns.remove(sequence);
                }
                if let Err(error) = self.parts.journal.acknowledge(sequences).await {
                    tracing::warn!("{}; the reports are sent again", chain(&error));
                }
            }
            Err(refusal) => self.note(format!("a command was refused: {}", chain(&refusal))),
        }
    }

    async fn new_key(&mut self, payload: Vec<u8>) {
        let seen = self.key.as_ref().map_or(0, |key| key.sequence);
        match self.reader().seal_key(&payload, seen, clock::now()) {
            Ok(key) => {
                let new = self.key.as_ref() != Some(key.get());
                self.use_key(key);
                if new {
                    let path = self.parts.folder.join(SEAL_KEY);
                    let kept = spawn_blocking(move || disk::replace(&RealDisk, &path, &payload));
                    if let Ok(Err(error)) = kept.await {
                        tracing::warn!(%error, "the sealing key is not kept for the next start");
                    }
                }
            }
            Err(refusal) => self.note(format!("a sealing key was refused: {}", chain(&refusal))),
        }
    }

    /// The newest key known before the broker says anything: the one kept, else the one of the enrolment.
    async fn restore_key(&mut self) {
        let path = self.parts.folder.join(SEAL_KEY);
        let kept = spawn_blocking(move || state_file::bytes(&RealDisk, &path, MESSAGE_BYTES_MAX));
        let kept = kept.await.ok().and_then(Result::ok).flatten();
        let first = self.parts.identity.enrolled.seal_key.as_slice().to_vec();
        for bytes in kept.into_iter().chain([first]) {
            let seen = self.key.as_ref().map_or(0, |key| key.sequence);
            match self.reader().seal_key(&bytes, seen, clock::now()) {
                Ok(key) => self.use_key(key),
                Err(refusal) => {
                    tracing::debug!("a kept sealing key is not used: {}", chain(&refusal))
                }
            }
        }
    }

    fn use_key(&mut self, key: Verified<SealKey>) {
        let key = key.into_inner();
        if self.key.as_ref() == Some(&key) {
            return;
        }
        match Sealer::open(&key, &SystemRandom::new()) {
            Ok(sealer) => (self.sealer, self.key) = (Some(sealer), Some(key)),
            Err(error) => self.note(format!("the sealing key is unusable: {}", chain(&error))),
        }
    }

    /// Seals and sends what waits, as far as windows and client have room.
    async fn send_waiting(&mut self) -> Result<(), SendError> {
        if !self.connected {
            return Ok(());
        }
        if self.key.as_ref().is_none_or(|key| clock::now() >= key.expires_at) {
            let words = "the sealing key has expired; reports wait for the controller's next one";
            self.note(words.to_owned());
            return Ok(());
        }
        for class in [Class::Event, Class::Other] {
            let busy = self.under_way.values().filter(|(of, _)| *of == class).count();
            let room = WINDOW.saturating_sub(busy);
            if room == 0 {
                continue;
            }
            let sent = Sent {
                under_way: self.under_way.keys().copied().collect(),
                turns: self.turns.clone(),
            };
            for waiting in self.parts.journal.next(class, sent, room).await? {
                if !self.send(class, &waiting)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Sends one report; `false` if the client has no room, and the next look tries again.
    fn send(&mut self, class: Class, waiting: &Waiting) -> Result<bool, SendError> {
        let Waiting { sequence, channel, report, .. } = waiting;
        let Some(sealer) = &self.sealer else { return Ok(false) };
        let identity = &self.parts.identity;
        let sealed = sealer
            .seal(&identity.signer, (identity.fleet(), *channel, *sequence), report.as_slice())
            .map_err(|source| SendError::Seal { sequence: *sequence, source })?;
        let topic = Topic::Report(identity.fleet().clone(), identity.device(), *channel);
        let retain = *channel == Channel::State;
        if self.client.try_publish(topic.to_string(), QoS::AtLeastOnce, retain, sealed).is_err() {
            return Ok(false);
        }
        self.turn += 1;
        self.turns.insert(*sequence, self.turn);
        self.under_way.insert(*sequence, (class, monotonic()));
        Ok(true)
    }

    fn forget_overdue(&mut self, now: Instant) {
        let patience = self.parts.timing.resend_after;
        self.under_way.retain(|_, (_, sent)| now.saturating_duration_since(*sent) < patience);
        if self.turns.len() > TURNS_MAX {
            // What was dropped from the outbox is never acknowledged.
            self.turns.clear();
        }
    }

    /// A clean end sends no last will, so presence is taken back by hand.
    async fn say_farewell(&mut self, mut seen: mpsc::Receiver<Sight>) {
        if !self.connected {
            return;
        }
        self.announce(Presence { online: false });
        if self.client.try_disconnect().is_err() {
            return;
        }
        let gone = async {
            while let Some(sight) = seen.recv().await {
                if matches!(sight, Sight::Down(_)) {
                    return;
                }
            }
        };
        if timeout(FAREWELL, gone).await.is_err() {
            tracing::debug!("the broker did not close the connection in time");
        }
    }

    fn announce(&self, presence: Presence) {
        let topic = presence_topic(&self.parts.identity);
        match cbor::encode(&presence) {
            Ok(bytes) => {
                if let Err(error) = self.client.try_publish(topic, QoS::AtLeastOnce, true, bytes) {
                    tracing::warn!("presence is not announced: {}", chain(&error));
                }
            }
            Err(error) => tracing::error!("{}", chain(&error)),
        }
    }

    /// Logs what is wrong, once, and shows it.
    fn note(&self, words: String) {
        if self.parts.status.borrow().last_error.as_ref() != Some(&words) {
            tracing::warn!("{words}");
            self.parts.status.send_modify(|status| status.last_error = Some(words));
        }
    }

    fn reader(&self) -> Reader<'_> {
        let identity = &self.parts.identity;
        Reader {
            fleet: identity.fleet(),
            device: identity.device(),
            controller_keys: &identity.enrolled.controller_keys,
        }
    }

    fn is_ours(&self, fleet: &FleetId, device: DeviceId) -> bool {
        fleet == self.fleet() && device == self.device()
    }

    fn fleet(&self) -> &FleetId {
        self.parts.identity.fleet()
    }

    fn device(&self) -> DeviceId {
        self.parts.identity.device()
    }

    fn broker(&self) -> &str {
        &self.parts.identity.enrolled.broker
    }
}

fn options(parts: &Parts) -> Result<MqttOptions, cbor::EncodeError> {
    let identity = &parts.identity;
    let mut options = MqttOptions::new(identity.device().to_string(), text(&parts.socket), 1);
    let will = cbor::encode(&Presence { online: false })?;
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(PACKET_BYTES_MAX);
    options
        .set_transport(Transport::Unix)
        .set_keep_alive(parts.timing.keep_alive)
        .set_clean_start(true)
        .set_connection_timeout(20)
        .set_connect_properties(properties)
        .set_last_will(LastWill::new(presence_topic(identity), will, QoS::AtLeastOnce, true, None));
    Ok(options)
}

fn presence_topic(identity: &Identity) -> String {
    Topic::Report(identity.fleet().clone(), identity.device(), Channel::Presence).to_string()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn monotonic() -> Instant {
    Instant::now()
}
