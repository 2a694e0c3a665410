//! The fleet's part of the gateway, as one task: the daemon starts it and stops it.
//!
//! A device that has not joined a fleet runs it too: trials go on, reports wait, and the link starts when an identity
//! appears.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use protocol::{id::Slot, report::Event};
use slots::{disk::RealDisk, layout::StateDir};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet, spawn_blocking},
    time::sleep,
};

use crate::{
    fleet::{
        artifact_server::{ArtifactServer, HttpError},
        assignment,
        backoff::Backoff,
        fleet_status::FleetStatus,
        host::Host,
        identity::{Identity, IdentityError},
        journal::{Journal, JournalError},
        link::{self, Timing},
        mirrors::Transport,
        record_watch,
        relay::{Relay, RelayError},
        reporter, transport_file, trial,
    },
    observe::{heartbeat::Beat, logging::chain},
};

/// Messages that wait for the assignment loop.
const INBOX_MAX: usize = 16;

/// How the link is set up.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// The device's state folder.
    pub state: StateDir,
    /// Where the relay's socket is made.
    pub socket: PathBuf,
    /// Version of this agent.
    pub agent_version: String,
    /// Slot this gateway runs from; none is the factory slot.
    pub slot: Option<Slot>,
    /// Time between two reports of vitals.
    pub vitals_every: Duration,
    /// Longest time between two reports of the state.
    pub state_every: Duration,
    /// Time between two looks at the boot record.
    pub record_every: Duration,
    /// Time between two looks for an identity.
    pub identity_every: Duration,
    /// Longest wait for the artifact server's next bytes.
    pub patience: Duration,
    /// Attempts at one release before it is refused.
    pub attempts_max: u32,
    /// Waits between them.
    pub retry: Backoff,
    /// How the MQTT session behaves.
    pub timing: Timing,
}

/// Why the fleet's part ends before the gateway does.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The outbox cannot be opened.
    #[error("opening the outbox")]
    Journal(#[from] JournalError),
    /// One of its tasks panicked.
    #[error("a task of the fleet link ended")]
    Task(#[from] JoinError),
}

/// Why the link cannot be started with this identity.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("using the device's identity")]
    Identity(#[from] IdentityError),
    #[error("preparing the artifact client")]
    Artifacts(#[from] HttpError),
    #[error("preparing the relay to the broker")]
    Relay(#[from] RelayError),
    #[error("the agent is stopping")]
    Stopping(#[from] JoinError),
    #[error("making {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
}

/// What the daemon hands over.
pub struct Parts {
    /// How the link is set up.
    pub config: FleetConfig,
    /// The gateway.
    pub host: Arc<dyn Host>,
    /// Events of the other parts of the gateway.
    pub news: mpsc::Receiver<Event>,
    /// What the local status shows.
    pub status: watch::Sender<FleetStatus>,
    /// Says that the link's loop turns.
    pub link_beat: Beat,
    /// Says that the trial's loop turns.
    pub trial_beat: Beat,
    /// Becomes true when the gateway stops.
    pub stop: watch::Receiver<bool>,
}

impl FleetConfig {
    /// What suits a real fleet.
    pub fn new(
        state: StateDir,
        socket: PathBuf,
        agent_version: String,
        slot: Option<Slot>,
    ) -> Self {
        let second = Duration::from_secs(1);
        Self {
            state,
            socket,
            agent_version,
            slot,
            vitals_every: 30 * second,
            state_every: 300 * second,
            record_every: second / 5,
            identity_every: second,
            patience: 20 * second,
            attempts_max: 12,
            retry: Backoff::new(second, 60 * second),
            timing: Timing {
                keep_alive: 20 * second,
                resend_after: 30 * second,
                reconnect: Backoff::new(second / 2, 60 * second),
            },
        }
    }
}

/// Runs until `stop` is true, then returns within seconds.
pub async fn run(parts: Parts) -> Result<(), FleetError> {
    let Parts { config, host, news, status, link_beat, trial_beat, stop } = parts;
    let journal = Journal::open(config.state.outbox()).await?;
    let (record_sender, records) = watch::channel(None);
    let (halt, halt_seen) = watch::channel(None);
    let (given, given_seen) = watch::channel(None);
    let mut tasks = JoinSet::new();
    let record_watch =
        tokio::spawn(record_watch::run(config.state.clone(), config.record_every, record_sender));
    tasks.spawn(reporter::run(reporter::Parts {
        agent_version: config.agent_version.clone(),
        host: Arc::clone(&host),
        journal: journal.clone(),
        records: records.clone(),
        news,
        given: given_seen,
        status: status.clone(),
        vitals_every: config.vitals_every,
        state_every: config.state_every,
        stop: stop.clone(),
    }));
    tasks.spawn(trial::run(trial::Parts {
        state: config.state.clone(),
        own: config.slot,
        host: Arc::clone(&host),
        records: records.clone(),
        halt: halt_seen,
        given,
        status: status.clone(),
        beat: trial_beat,
        stop: stop.clone(),
    }));
    tasks.spawn(connected(Connected {
        config,
        host,
        journal,
        records,
        halt,
        status,
        beat: link_beat,
        stop,
    }));
    let mut ended = Ok(());
    while let Some(joined) = tasks.join_next().await {
        if let Err(error) = joined {
            ended = Err(FleetError::Task(error));
            break;
        }
    }
    record_watch.abort();
    ended
}

struct Connected {
    config: FleetConfig,
    host: Arc<dyn Host>,
    journal: Journal,
    records: record_watch::Records,
    halt: watch::Sender<Option<protocol::command::Halt>>,
    status: watch::Sender<FleetStatus>,
    beat: Beat,
    stop: watch::Receiver<bool>,
}

/// Waits for an identity, then keeps relay, link and assignments going.
async fn connected(mut parts: Connected) {
    let mut told = false;
    let Started { identity, relay, server, transport } = loop {
        parts.beat.tick();
        if *parts.stop.borrow() {
            return parts.beat.end();
        }
        match start(&parts.config).await {
            Ok(Some(started)) => break started,
            Ok(None) => {}
            Err(error) => {
                let words = chain(&error);
                if !told {
                    tracing::error!("{words}");
                    told = true;
                }
                parts.status.send_modify(|status| status.last_error = Some(words));
            }
        }
        tokio::select! {
            () = sleep(parts.config.identity_every) => {}
            changed = parts.stop.changed() => if changed.is_err() { return },
        }
    };
    parts.status.send_modify(|status| {
        status.enrolled = true;
        status.device = Some(identity.device().to_string());
        status.fleet = Some(identity.fleet().to_string());
        status.broker = Some(identity.enrolled.broker.clone());
        status.last_error = None;
    });
    let (trouble_sender, trouble) = watch::channel(None);
    let (inbox_sender, inbox) = mpsc::channel(INBOX_MAX);
    let relaying = tokio::spawn(relay.run(trouble_sender));
    let assignments = assignment::run(assignment::Parts {
        identity: Arc::clone(&identity),
        state: parts.config.state.clone(),
        server,
        transport,
        host: parts.host,
        journal: parts.journal.clone(),
        records: parts.records,
        inbox,
        halt: parts.halt,
        status: parts.status.clone(),
        attempts_max: parts.config.attempts_max,
        backoff: parts.config.retry,
        stop: parts.stop.clone(),
    });
    let session = link::run(link::Parts {
        identity,
        folder: parts.config.state.identity(),
        socket: parts.config.socket.clone(),
        journal: parts.journal,
        inbox: inbox_sender,
        trouble,
        status: parts.status,
        timing: parts.config.timing,
        beat: parts.beat,
        stop: parts.stop,
    });
    tokio::join!(assignments, session);
    relaying.abort();
}

/// What the link needs.
struct Started {
    identity: Arc<Identity>,
    relay: Relay,
    server: ArtifactServer,
    transport: Transport,
}

/// What the link needs, once there is an identity.
async fn start(config: &FleetConfig) -> Result<Option<Started>, StartError> {
    let folder = config.state.identity();
    let loaded = spawn_blocking(move || Identity::load(&RealDisk, &folder)).await??;
    let Some(identity) = loaded else { return Ok(None) };
    identity.credentials.check()?;
    let server =
        ArtifactServer::new(&identity.enrolled.artifacts, &identity.credentials, config.patience)?;
    let loaded = transport_file::load(&config.state, &identity.credentials, config.patience);
    let transport = loaded.unwrap_or_else(|error| {
        // A mistake in this file must not cut the device off: the fleet's own server is asked.
        tracing::error!("{}; downloading from the fleet's own server alone", chain(&error));
        Transport::new(vec![], None)
    });
    if let Some(folder) = config.socket.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|source| StartError::Folder { path: folder.to_owned(), source })?;
    }
    let tls = identity.credentials.client_config()?;
    let relay = Relay::bind(&config.socket, identity.broker.clone(), tls)?;
    Ok(Some(Started { identity: Arc::new(identity), relay, server, transport }))
}
