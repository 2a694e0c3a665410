//! The worker process: listens, reads requests, computes them on its own threads, responds.
//!
//! A connection has one thread that reads; what costs time goes through the bounded queue of [`crate::worker::jobs`], so
//! `Ping` and `Hello` are answered whatever else goes on, and a full queue is a response, not a wait. Nothing that a
//! client sends ends the worker, except `Shutdown`. The listener is left as it was found, so that whoever holds it too
//! (systemd, the supervisor) can start the next worker on it.

use std::{
    collections::HashMap,
    io,
    net::Shutdown,
    num::NonZeroUsize,
    os::unix::net::{UnixListener, UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use gpu_kernels::probe::AllowSoftware;
use protocol::digest::Digest;
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    adapter,
    cause::chain,
    pulse,
    worker::{
        frame, hang,
        jobs::{Jobs, Refused},
        limits::{self, LimitError},
        message::{Call, Failure, FailureKind, PROTOCOL, Reply, Request, Response, WorkerInfo},
        roster::{Roster, RosterError, SignedPackages},
        wire::{self, WireError},
    },
};

/// Most connections at once; one more is closed at once.
pub const CONNECTIONS_MAX: usize = 16;
/// Most requests that wait for a compute thread.
pub const WAITING_MAX: usize = 64;

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
    /// Whether software adapters count as adapters.
    pub software_adapters: AllowSoftware,
    /// Whether this process is limited to the memory its packages ask for.
    pub memory: MemoryLimit,
}

impl WorkerConfig {
    /// A worker for the slot in `slot_dir` with the safe choices: one compute thread, no software adapter, its memory
    /// limited.
    pub const fn new(slot_dir: PathBuf, listener: UnixListener) -> Self {
        Self {
            slot_dir,
            listener,
            threads: NonZeroUsize::MIN,
            release: None,
            signed: None,
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
    roster: Roster,
    jobs: Jobs,
    release: Option<Digest>,
    device: OnceLock<String>,
    stopping: AtomicBool,
    connections: Mutex<HashMap<u64, UnixStream>>,
    wake: UnixStream,
}

/// Serves until a client says `Shutdown`: then finishes what was accepted and returns.
///
/// # Errors
/// The worker could not start, or its listener failed.
pub fn run(config: WorkerConfig) -> Result<(), ServeError> {
    let roster = Roster::open(&config.slot_dir, config.signed.as_ref(), monotonic_us)?;
    for broken in roster.broken() {
        tracing::warn!(dir = %broken.dir, reason = %broken.message, "model package is broken");
    }
    let own_process = config.memory == MemoryLimit::Enforced;
    if own_process {
        limits::apply(roster.memory_bytes())?;
    }
    let (wake, woken) = UnixStream::pair().map_err(ServeError::Start)?;
    let shared = Arc::new(Shared {
        roster,
        jobs: Jobs::start(config.threads, WAITING_MAX).map_err(ServeError::Start)?,
        release: config.release,
        device: OnceLock::new(),
        stopping: AtomicBool::new(false),
        connections: Mutex::new(HashMap::new()),
        wake,
    });
    if own_process {
        hang::guard(shared.jobs.watched()).map_err(ServeError::Start)?;
    }
    probe(&shared, config.software_adapters);
    let accepted = accept(&config.listener, &woken, &shared);
    shared.jobs.close();
    for stream in shared.connections().values() {
        if let Err(reason) = stream.shutdown(Shutdown::Both) {
            tracing::debug!(%reason, "connection was closed already");
        }
    }
    accepted.map_err(ServeError::Accept)
}

/// Asks the graphics driver on a compute thread, so that a driver that hangs delays no connection.
fn probe(shared: &Arc<Shared>, software: AllowSoftware) {
    let shared_there = Arc::clone(shared);
    let job = move || {
        let _driver = pulse::unbounded();
        let line = adapter::report(software).line();
        tracing::info!(device = %line, "models run here");
        if shared_there.device.set(line).is_err() {
            tracing::debug!("adapters were asked already");
        }
    };
    if shared.jobs.submit(Box::new(job)).is_err() {
        tracing::warn!("adapters are not asked: the worker is ending");
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

fn connect(id: u64, stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    if shared.connections().len() >= CONNECTIONS_MAX {
        let failure = Failure {
            kind: FailureKind::Overloaded,
            message: format!("worker has {CONNECTIONS_MAX} connections, the most it takes"),
        };
        respond(&Mutex::new(stream), 0, Reply::Failed(failure));
        return Ok(());
    }
    let reader = stream.try_clone()?;
    shared.connections().insert(id, stream.try_clone()?);
    let shared_there = Arc::clone(shared);
    let started = thread::Builder::new().name(format!("connection-{id}")).spawn(move || {
        serve(reader, &Arc::new(Mutex::new(stream)), &shared_there);
        shared_there.connections().remove(&id);
    });
    if let Err(reason) = started {
        shared.connections().remove(&id);
        return Err(reason);
    }
    Ok(())
}

fn serve(mut reader: UnixStream, writer: &Arc<Mutex<UnixStream>>, shared: &Arc<Shared>) {
    loop {
        let body = match wire::read_body(&mut reader, None) {
            Ok(Some(body)) => body,
            Ok(None) => break,
            Err(reason) => {
                refuse(writer, &reason);
                break;
            }
        };
        let request: Request = match frame::decode(&body) {
            Ok(request) => request,
            Err(reason) => {
                refuse(writer, &reason.into());
                break;
            }
        };
        if let Some(reply) = begin(request.id, request.call, writer, shared) {
            respond(writer, request.id, reply);
        }
    }
    if let Err(reason) = reader.shutdown(Shutdown::Both) {
        tracing::debug!(%reason, "connection was closed already");
    }
}

fn refuse(writer: &Mutex<UnixStream>, reason: &WireError) {
    tracing::warn!(%reason, "frame refused");
    let message = chain(reason);
    respond(writer, 0, Reply::Failed(Failure { kind: FailureKind::BadFrame, message }));
}

/// Answers at once what costs nothing; queues the rest, which responds when it is done.
fn begin(
    id: u64,
    call: Call,
    writer: &Arc<Mutex<UnixStream>>,
    shared: &Arc<Shared>,
) -> Option<Reply> {
    match call {
        Call::Ping => return Some(Reply::Pong),
        Call::Hello { .. } => return Some(Reply::Hello(shared.info())),
        Call::Shutdown => {
            // The response first: afterwards the process may end at any moment.
            respond(writer, id, Reply::Bye);
            shared.stop();
            return None;
        }
        Call::Load { .. } | Call::Golden { .. } | Call::Embed { .. } | Call::Ask { .. } => {}
    }
    let (writer, shared_there) = (Arc::clone(writer), Arc::clone(shared));
    let job = move || {
        let reply = catch_unwind(AssertUnwindSafe(|| compute(call, &shared_there)));
        let reply = reply.unwrap_or_else(|_| {
            let message = "the worker panicked on this request: report it with the log".to_owned();
            Reply::Failed(Failure { kind: FailureKind::ModelFailed, message })
        });
        // A gateway that is slow to read its responses is no hang of ours.
        pulse::end();
        respond(&writer, id, reply);
    };
    let (kind, message) = match shared.jobs.submit(Box::new(job)) {
        Ok(()) => return None,
        Err(Refused::Full) => (
            FailureKind::Overloaded,
            format!("{WAITING_MAX} requests wait already: try again shortly"),
        ),
        Err(Refused::Closed) => (FailureKind::Stopping, "worker is ending".to_owned()),
    };
    Some(Reply::Failed(Failure { kind, message }))
}

fn compute(call: Call, shared: &Shared) -> Reply {
    let roster = &shared.roster;
    let reply = match call {
        Call::Load { model } => roster.load(&model).map(Reply::Loaded),
        Call::Golden { model } => roster.golden(&model).map(Reply::Golden),
        Call::Embed { model, texts, long } => {
            roster.embed(&model, &texts, long).map(Reply::Embeddings)
        }
        Call::Ask { model, text, lang } => {
            roster.ask(&model, &text, lang.as_deref()).map(Reply::Answer)
        }
        Call::Ping | Call::Hello { .. } | Call::Shutdown => Ok(Reply::Pong),
    };
    reply.unwrap_or_else(Reply::Failed)
}

fn respond(writer: &Mutex<UnixStream>, id: u64, reply: Reply) {
    let mut stream = writer.lock().unwrap_or_else(PoisonError::into_inner);
    let written = match wire::write(&mut stream, &Response { id, reply }) {
        Err(WireError::Frame(reason)) => {
            let message = format!("response does not fit, ask for fewer texts: {}", chain(&reason));
            let failure = Failure { kind: FailureKind::TooLarge, message };
            wire::write(&mut stream, &Response { id, reply: Reply::Failed(failure) })
        }
        written => written,
    };
    if let Err(reason) = written {
        tracing::debug!(%reason, "client went away before its response");
        if let Err(reason) = stream.shutdown(Shutdown::Both) {
            tracing::debug!(%reason, "connection was closed already");
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, UnixStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // Closing this end makes the other readable, which wakes the accepting thread.
        if let Err(reason) = self.wake.shutdown(Shutdown::Both) {
            tracing::error!(%reason, "cannot wake the accepting thread");
        }
    }

    fn info(&self) -> WorkerInfo {
        let device =
            self.device.get().map_or("cpu (tract); adapters are still being asked", String::as_str);
        WorkerInfo {
            protocol: PROTOCOL,
            release: self.release,
            pid: std::process::id(),
            device: device.to_owned(),
            models: self.roster.infos(),
            broken: self.roster.broken().to_vec(),
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
