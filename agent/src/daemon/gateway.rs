//! `socle-agent gateway` from start to end. Every part is built here; they know nothing of each other.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use protocol::report::EventKind;
use sd_notify::NotifyState;
use slots::disk::RealDisk;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time,
};

use crate::{
    daemon::{
        ending::{self, Connections},
        heir,
        host::{self, Link},
        listeners::{ListenError, Listeners},
        record_watch, retire, watchdog,
        worker_keeper::{self, Keeper},
    },
    installed::Installed,
    observe::{
        clock,
        collector::{Collector, CollectorError, Wanted},
        events::{self, Events},
        heartbeat::Heartbeats,
        metrics::Metrics,
        span::Resource,
        status::{Mode, Snapshot, Status, WorkerHealth},
        tally::Tally,
    },
    serve::{
        bequest::Kind,
        context::Context,
        router::{Access, router},
        server::{self, Listener, Server},
        taking::Taking,
        token::{Token, TokenError},
    },
    sockets::{PassedSockets, SocketError},
    worker::client::WorkerClient,
};

/// How long the watch of the boot record may be silent.
const RECORD_SILENCE_MAX: Duration = Duration::from_secs(20);
/// Longest wait for the loops to end after the local API has.
const LOOPS_END_MAX: Duration = Duration::from_secs(5);

/// What the gateway is told.
#[derive(Debug)]
pub struct Options {
    /// Where it runs from.
    pub installed: Installed,
    /// How it is kept alive.
    pub mode: Mode,
    /// Where the local API listens when no socket was passed in.
    pub listen: SocketAddr,
    /// Where traces go, if anywhere.
    pub traces: Option<Wanted>,
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The runtime folder.
    #[error("making the folder of the sockets, `{}`", path.display())]
    Runtime {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The API token.
    #[error("preparing the local API")]
    Token(#[from] TokenError),
    /// The sockets.
    #[error("opening the local API")]
    Listen(#[from] ListenError),
    /// What the last gateway left.
    #[error("taking over the connections that the last gateway left")]
    Left(#[from] SocketError),
    /// Signals.
    #[error("waiting for signals")]
    Signal(#[source] io::Error),
    /// The collector of traces.
    #[error("sending traces")]
    Collector(#[from] CollectorError),
    /// The link to the fleet.
    #[error("starting the link to the fleet")]
    Link(#[from] host::LinkError),
}

/// Runs the gateway until it is told to end, or another release is to run in its place.
///
/// # Errors
/// It could not start.
pub async fn run(options: Options, mut passed: PassedSockets) -> Result<(), GatewayError> {
    let Options { installed, mode, listen, traces } = options;
    let runtime = &installed.runtime;
    std::fs::create_dir_all(runtime)
        .map_err(|source| GatewayError::Runtime { path: runtime.clone(), source })?;
    let token = Token::in_state(&installed.state, &RealDisk)?;
    let listeners = Listeners::open(&mut passed, listen, &installed.api_socket())?;
    let bequest = heir::open(&mut passed)?.map(Arc::new);
    let mut signals = Signals::new().map_err(GatewayError::Signal)?;

    let parts = Parts::new(&installed, mode);
    let (stop, stopping) = watch::channel(false);
    let (news, queue) = events::channel();
    let link = Link::start(&parts.host(&installed), queue, &parts.beats, stopping.clone())?;

    let collector = traces.map(|wanted| parts.collector(&installed, &wanted)).transpose()?;
    let context = parts.context(link.described(), collector);
    let (taking, taken) = watch::channel(Taking::All);
    let server = |listener: Listener, access: Access| Server {
        listener,
        router: router(context.clone(), access),
        connections: parts.metrics.connections.clone(),
        taking: taken.clone(),
        bequest: bequest.clone(),
    };
    let over_tcp = server(listeners.tcp, Access::Token(Arc::new(token)));
    let over_unix = server(listeners.unix, Access::Socket);
    let left = bequest.as_ref().map(|bequest| bequest.take_all()).unwrap_or_default();
    let (left_tcp, left_unix) = left.into_iter().partition(|left| left.kind == Kind::Tcp);
    let servers = vec![
        tokio::spawn(server::serve(over_tcp, left_tcp)),
        tokio::spawn(server::serve(over_unix, left_unix)),
    ];
    let address = listeners.address;
    let slot = installed.slot_name();
    tracing::info!(%address, slot, release = installed.release_name, "local API serves");

    let mut loops = parts.start(&installed, &news, &stopping);
    loops.push(link.into_task());
    let watchdog =
        tokio::spawn(watchdog::run(listeners.socket, parts.beats.clone(), stopping.clone()));
    let beat = parts.beats.beat("boot record", RECORD_SILENCE_MAX);
    let (state, ours) = (installed.state.clone(), installed.release);
    let record = record_watch::run(state, ours, Arc::clone(&parts.status), beat, stopping);
    let record = tokio::spawn(record);
    watchdog::tell(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("serving from slot {slot}")),
    ]);
    let version = env!("CARGO_PKG_VERSION");
    let detail = format!("gateway {version} started from slot {slot}");
    news.tell(EventKind::Started, installed.release, detail).await;

    let reason = signals.wait(record).await;
    tracing::info!(reason = reason.words(), "gateway ends");
    watchdog::tell(&[NotifyState::Stopping]);
    let connections = match (&reason, &bequest) {
        (Reason::Succeeded(_), Some(_)) => Connections::Left,
        (Reason::Succeeded(_), None) | (Reason::Told(_), _) => Connections::Closed,
    };
    ending::finish(&parts.status, &parts.metrics, &taking, servers, connections).await;
    stop.send_replace(true);
    loops.push(watchdog);
    for task in loops {
        if time::timeout(LOOPS_END_MAX, task).await.is_err() {
            tracing::warn!("a loop did not end in time");
        }
    }
    Ok(())
}

/// What the parts share.
struct Parts {
    status: Arc<Status>,
    tally: Arc<Tally>,
    metrics: Arc<Metrics>,
    beats: Heartbeats,
    worker: Option<Arc<WorkerClient>>,
}

impl Parts {
    fn new(installed: &Installed, mode: Mode) -> Self {
        let worker = installed.slot.map(|slot| {
            Arc::new(WorkerClient::for_release(installed.worker_socket(slot), installed.release))
        });
        let health = match &worker {
            Some(_) => WorkerHealth::Starting,
            None => WorkerHealth::Absent {
                reason: "no release is committed yet, and the factory agent has no model: enrol this device and roll a \
                         release out to it"
                    .to_owned(),
            },
        };
        let release = installed.release.map(|release| release.to_string()).unwrap_or_default();
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), installed.slot_name(), &release);
        let snapshot = Snapshot {
            mode,
            started_at: clock::now(),
            slot: installed.slot,
            release: installed.release,
            release_name: installed.release_name.clone(),
            record: None,
            worker: health,
            draining: false,
        };
        Self {
            status: Arc::new(Status::new(snapshot)),
            tally: Arc::default(),
            metrics: Arc::new(metrics),
            beats: Heartbeats::default(),
            worker,
        }
    }

    fn collector(
        &self,
        installed: &Installed,
        wanted: &Wanted,
    ) -> Result<Collector, CollectorError> {
        let resource = Resource {
            version: env!("CARGO_PKG_VERSION"),
            slot: installed.slot_name().to_owned(),
            release: installed.release.map(|release| release.to_string()).unwrap_or_default(),
        };
        tracing::info!(collector = wanted.endpoint, "traces are sent");
        Collector::start(wanted, resource, self.metrics.spans.clone())
    }

    fn context(
        &self,
        fleet: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
        collector: Option<Collector>,
    ) -> Context {
        Context {
            collector,
            status: Arc::clone(&self.status),
            tally: Arc::clone(&self.tally),
            figures: Arc::default(),
            metrics: Arc::clone(&self.metrics),
            worker: self.worker.clone(),
            fleet,
            in_flight: Arc::default(),
        }
    }

    fn host(&self, installed: &Installed) -> host::Parts {
        host::Parts {
            installed: installed.clone(),
            status: Arc::clone(&self.status),
            tally: Arc::clone(&self.tally),
            metrics: Arc::clone(&self.metrics),
            worker: self.worker.clone(),
        }
    }

    /// The loops of the daemon itself.
    fn start(
        &self,
        installed: &Installed,
        events: &Events,
        stopping: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        let status = Arc::clone(&self.status);
        let mut loops =
            vec![tokio::spawn(retire::run(installed.clone(), status, stopping.clone()))];
        if let Some(worker) = &self.worker {
            let keeper = Keeper {
                worker: Arc::clone(worker),
                release: installed.release,
                status: Arc::clone(&self.status),
                metrics: Arc::clone(&self.metrics),
                events: events.clone(),
                beat: self.beats.beat("worker", worker_keeper::SILENCE_MAX),
            };
            loops.push(tokio::spawn(worker_keeper::run(keeper, stopping.clone())));
        }
        loops
    }
}

/// Why the gateway ends.
enum Reason {
    /// Another one takes its place.
    Succeeded(String),
    /// Somebody said so, who need not want another.
    Told(String),
}

impl Reason {
    fn words(&self) -> &str {
        match self {
            Self::Succeeded(words) | Self::Told(words) => words,
        }
    }
}

/// What can end a gateway from outside.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Why the gateway ends.
    async fn wait(&mut self, record: JoinHandle<Option<String>>) -> Reason {
        let words = tokio::select! {
            _ = self.terminate.recv() => "told to by SIGTERM".to_owned(),
            _ = self.interrupt.recv() => "told to by SIGINT".to_owned(),
            watched = record => match watched {
                Ok(Some(reason)) => return Reason::Succeeded(reason),
                Ok(None) => "the watch of the boot record was stopped".to_owned(),
                Err(reason) => format!("the watch of the boot record failed: {reason}"),
            },
        };
        Reason::Told(words)
    }
}
