//! The worker process: listens, reads requests, computes them on its own threads, responds.
//!
//! `Ping`, `Hello` and `Statistics` are answered whatever else goes on, the rest goes over the desk, and a full queue is
//! a response, not a wait. Nothing that a client sends ends the worker, except `Shutdown`. The listener is left as it was
//! found, so that whoever holds it too (systemd, the supervisor) can start the next worker on it.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    io,
    net::Shutdown,
    num::NonZeroUsize,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use gpu_kernels::probe::AllowSoftware;
use protocol::digest::Digest;
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    adapter,
    worker::{
        connection::{Connection, Incoming, Responder},
        desk::Desk,
        failure::{Failure, FailureKind},
        hang,
        limits::{self, LimitError},
        message::{Call, Reply, Response, WorkerInfo},
        policy::Policy,
        roster::{Roster, RosterError, SignedPackages},
        spoken::Spoken,
        wire,
    },
};

/// Most connections at once; one more is closed at once.
pub const CONNECTIONS_MAX: usize = 16;

/// What a worker is told when it starts.
#[derive(Debug)]
pub struct WorkerConfig {
    /// The slot: packages lie in `<slot_dir>/models/*/`.
    pub slot_dir: PathBuf,
    /// Where requests come from.
    pub listener: UnixListener,
    /// Threads that compute.
    pub threads: NonZeroUsize,
    /// The release in the slot, repeated to the gateway.
    pub release: Option<Digest>,
    /// What that release signs of the packages; none where no release is there, as in a factory slot or a test.
    pub signed: Option<SignedPackages>,
    /// How it shares the machine.
    pub policy: Policy,
    /// Whether software adapters count as adapters.
    pub software_adapters: AllowSoftware,
    /// Whether this process is limited to the memory its packages ask for.
    pub memory: MemoryLimit,
}

impl WorkerConfig {
    /// A worker for the slot in `slot_dir` with the safe choices: one compute thread, no software adapter, its memory
    /// limited.
    pub fn new(slot_dir: PathBuf, listener: UnixListener) -> Self {
        Self {
            slot_dir,
            listener,
            threads: NonZeroUsize::MIN,
            release: None,
            signed: None,
            policy: Policy::default(),
            software_adapters: AllowSoftware::No,
            memory: MemoryLimit::Enforced,
        }
    }
}

/// Whether a worker limits its own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Yes: a process of its own.
    Enforced,
    /// No: a worker within another program, such as a test.
    Unlimited,
}

/// Why a worker did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The slot has no models.
    #[error("opening the models of the slot")]
    Roster(#[from] RosterError),
    /// The memory limit.
    #[error("limiting the worker")]
    Limit(#[from] LimitError),
    /// Threads, or the means to stop.
    #[error("starting the worker")]
    Start(#[source] io::Error),
    /// The listener failed.
    #[error("waiting for the gateway")]
    Accept(#[source] io::Error),
}

struct Shared {
    desk: Arc<Desk>,
    threads: u32,
    release: Option<Digest>,
    /// Random, so that no other start of a worker has it.
    start: u64,
    device: OnceLock<String>,
    stopping: AtomicBool,
    connections: Mutex<HashMap<u64, Connection>>,
    wake: UnixStream,
}

/// Serves until a client says `Shutdown`: then finishes what was accepted and returns.
///
/// # Errors
/// The worker could not start, or its listener failed.
pub fn run(config: WorkerConfig) -> Result<(), ServeError> {
    let policy = &config.policy;
    let roster = Roster::open(&config.slot_dir, config.signed.as_ref(), policy, monotonic_us)?;
    for broken in roster.broken() {
        tracing::warn!(dir = %broken.dir, reason = %broken.message, "model package is broken");
    }
    let own_process = config.memory == MemoryLimit::Enforced;
    if own_process {
        limits::apply(roster.memory_bytes())?;
    }
    let (wake, woken) = UnixStream::pair().map_err(ServeError::Start)?;
    let desk = Desk::open(roster, config.threads, policy, monotonic_us);
    let shared = Arc::new(Shared {
        desk: Arc::new(desk.map_err(ServeError::Start)?),
        threads: u32::try_from(config.threads.get()).unwrap_or(u32::MAX),
        release: config.release,
        // 0 would say that it does not say.
        start: RandomState::new().hash_one(std::process::id()).max(1),
        device: OnceLock::new(),
        stopping: AtomicBool::new(false),
        connections: Mutex::new(HashMap::new()),
        wake,
    });
    if own_process {
        hang::guard(shared.desk.watched()).map_err(ServeError::Start)?;
    }
    probe(&shared, config.software_adapters);
    let accepted = accept(&config.listener, &woken, &shared);
    shared.desk.close();
    let connections = std::mem::take(&mut *shared.connections());
    for connection in connections.into_values() {
        connection.finish();
    }
    accepted.map_err(ServeError::Accept)
}

/// Asks the graphics driver on a thread of its own, so that a driver that hangs delays no request.
fn probe(shared: &Arc<Shared>, software: AllowSoftware) {
    let shared_there = Arc::clone(shared);
    let job = move || {
        let line = adapter::report(software).line();
        tracing::info!(device = %line, "models run here");
        if shared_there.device.set(line).is_err() {
            tracing::debug!("adapters were asked already");
        }
    };
    if let Err(reason) = std::thread::Builder::new().name("adapters".into()).spawn(job) {
        tracing::warn!(%reason, "adapters are not asked");
    }
}

fn accept(listener: &UnixListener, woken: &UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut next_id = 0_u64;
    loop {
        let mut waiting = [PollFd::new(listener, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(reason) => return Err(reason.into()),
        }
        if shared.stopping.load(Ordering::Acquire) {
            return Ok(());
        }
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(reason) if passing(&reason) => continue,
            Err(reason) => return Err(reason),
        };
        stream.set_nonblocking(false)?;
        next_id += 1;
        if let Err(reason) = connect(next_id, stream, shared) {
            tracing::warn!(%reason, "connection refused");
        }
    }
}

/// Whether accepting may be tried again: another process took the connection, or it went away.
fn passing(reason: &io::Error) -> bool {
    matches!(
        reason.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

fn connect(id: u64, mut stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let mut connections = shared.connections();
    if connections.len() >= CONNECTIONS_MAX {
        drop(connections);
        let message = format!("worker has {CONNECTIONS_MAX} connections, the most it takes");
        let failure = Failure {
            retry_after_ms: Some(1_000),
            ..Failure::new(FailureKind::Overloaded, message)
        };
        let refusal = Response { id: 0, reply: Reply::Failed(failure) };
        return wire::write(&mut stream, &refusal).map_err(io::Error::other);
    }
    let (taking, over) = (Arc::clone(shared), Arc::clone(shared));
    let take = move |incoming: Incoming, responder: &Responder| taking.take(incoming, responder);
    // The lock is held until the connection is in the map, so that it is not taken out before.
    let connection = Connection::start(id, stream, take, move || over.forget(id))?;
    connections.insert(id, connection);
    Ok(())
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, id: u64) {
        self.connections().remove(&id);
    }

    /// Answers at once what costs nothing; the desk answers the rest when it is done.
    fn take(&self, incoming: Incoming, responder: &Responder) {
        let model = match &incoming.call {
            Call::Ping => return responder.send(incoming.id, Reply::Pong),
            Call::Hello { protocol, oldest } => {
                let theirs = Spoken { oldest: *oldest, newest: *protocol };
                return responder.send(incoming.id, self.greeted(theirs, responder));
            }
            Call::Statistics => {
                return responder.send(incoming.id, Reply::Statistics(self.desk.statistics()));
            }
            Call::Shutdown => {
                responder.send(incoming.id, Reply::Bye);
                return self.stop();
            }
            Call::Load { model }
            | Call::Golden { model }
            | Call::Unload { model }
            | Call::Embed { model, .. }
            | Call::Ask { model, .. }
            | Call::Classify { model, .. }
            | Call::Rerank { model, .. }
            | Call::Bytes { model, .. }
            | Call::Tokenize { model, .. }
            | Call::Decode { model, .. } => model.clone(),
        };
        self.desk.take(incoming, &model, responder);
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // Closing this end makes the other readable, which wakes the accepting thread.
        if let Err(reason) = self.wake.shutdown(Shutdown::Both) {
            tracing::error!(%reason, "cannot wake the accepting thread");
        }
    }

    /// The answer to a greeting: from then on both speak the newest version that both know.
    fn greeted(&self, theirs: Spoken, responder: &Responder) -> Reply {
        let Some(version) = Spoken::OURS.common(theirs) else {
            let message = format!(
                "this worker speaks protocol {}, the gateway {theirs}: update first to a release whose agent speaks \
                 both",
                Spoken::OURS
            );
            return Reply::Failed(Failure::new(FailureKind::Unsupported, message));
        };
        responder.speak(version);
        Reply::Hello(self.info(version))
    }

    fn info(&self, protocol: u16) -> WorkerInfo {
        let device =
            self.device.get().map_or("cpu (tract); adapters are still being asked", String::as_str);
        let models = self.desk.roster().infos();
        WorkerInfo {
            protocol,
            release: self.release,
            pid: std::process::id(),
            device: device.to_owned(),
            broken: self.desk.roster().broken().to_vec(),
            threads: self.threads,
            memory_bytes: self.desk.roster().memory_bytes(),
            start: self.start,
            speaks: Spoken::OURS,
            names: models.iter().map(|model| model.name.clone()).collect(),
            models,
        }
    }
}

/// Microseconds since this process first asked.
#[expect(
    clippy::disallowed_methods,
    reason = "the worker's edge: the one clock that its models are timed by"
)]
fn monotonic_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}
