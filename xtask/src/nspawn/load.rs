//! Steady requests at one agent, from a process of its own in the machine's network: over TCP with a new
//! connection each, over one that is kept, and over one that is kept and mostly idle.
//!
//! A request that finds no connection, or gets no good answer, has failed. That a kept connection was
//! closed between two requests is no failure, a client sees it before it asks; it is counted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::machine::Machine;
use crate::nspawn::network::Network;
use crate::nspawn::wait::now;
use crate::say;

/// Where the package's agent listens.
const PORT: u16 = 7411;
/// Longer than any time for which requests may wait while a gateway is replaced.
const ANSWER_MAX: Duration = Duration::from_secs(100);
/// Pause of the connection that is mostly idle: longer than an ending gateway asks clients to leave.
const IDLE: Duration = Duration::from_millis(2500);
const BODY: &str = r#"{"question":"How do I reset my password?"}"#;
const BYTES_MAX: u64 = 1 << 20;
/// Failures that are shown; all are counted.
const SHOWN_MAX: usize = 5;

/// How the requests went.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Good answers.
    pub(crate) answered: u64,
    /// Requests without one.
    pub(crate) failed: u64,
    /// The longest wait for an answer.
    pub(crate) longest_ms: u64,
    /// Kept connections that were closed between two requests.
    pub(crate) closed_idle: u64,
    /// The first failures.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// For a line of a report.
    pub(crate) fn line(&self) -> String {
        let Self { answered, failed, longest_ms, closed_idle, failures } = self;
        let shown = failures.iter().map(|failure| format!("; {failure}")).collect::<String>();
        format!(
            "{answered} requests answered, {failed} failed, longest wait {longest_ms} ms, {closed_idle} idle \
             connections closed{shown}"
        )
    }

    fn note(&mut self, asked: io::Result<()>, kind: &str, waited: Duration) {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.longest_ms = self.longest_ms.max(waited_ms);
        match asked {
            Ok(()) => self.answered += 1,
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < SHOWN_MAX {
                    self.failures.push(format!("{kind} after {waited_ms} ms: {error}"));
                }
            }
        }
    }

    fn add(mut self, other: Self) -> Self {
        self.answered += other.answered;
        self.failed += other.failed;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        self.closed_idle += other.closed_idle;
        self.failures.extend(other.failures);
        self
    }
}

/// The requests under way.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
}

impl Load {
    /// Starts them with the token in `token_file`.
    pub(crate) fn start(
        machine: &Machine,
        network: &Network,
        token_file: &Path,
    ) -> Result<Self, Failure> {
        let starting = |error| Failure::new("starting the requests").because(error);
        // By its process: a build since it started may have put another file at its path.
        let own = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
        let mut command = network.command(machine, &own);
        // Taken out of what other programs are started with, and asked for by every xtask.
        command.env("CARGO_MANIFEST_DIR", machine.root.join("xtask"));
        command.arg("load").arg("--token-file").arg(token_file);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { child: command.spawn().map_err(starting)? })
    }

    /// Ends them and gives how they went.
    pub(crate) fn stop(mut self) -> Result<Tally, Failure> {
        let ending = |error: io::Error| Failure::new("ending the requests").because(error);
        drop(self.child.stdin.take());
        let mut text = String::new();
        if let Some(out) = self.child.stdout.as_mut() {
            out.take(BYTES_MAX).read_to_string(&mut text).map_err(ending)?;
        }
        self.child.wait().map_err(ending)?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::new("reading how the requests went").because(error))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// `cargo xtask load`, which [`Load`] starts: asks until standard input ends, then prints the tally.
pub(crate) fn run(token_file: &Path) -> Result<(), Failure> {
    let reading = |error| Failure::new("reading the agent's token").because(error);
    let token = std::fs::read_to_string(token_file).map_err(reading)?.trim().to_owned();
    let stop = Arc::new(AtomicBool::new(false));
    let start = |client: fn(&str, &AtomicBool) -> Tally| -> JoinHandle<Tally> {
        let (token, stop) = (token.clone(), Arc::clone(&stop));
        std::thread::spawn(move || client(&token, &stop))
    };
    let clients = [start(anew), start(busy), start(idle)];
    let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
    stop.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    for client in clients {
        let one = client.join().map_err(|_| Failure::new("a thread of the load panicked"))?;
        tally = tally.add(one);
    }
    let told = serde_json::to_string(&tally).map_err(io::Error::from);
    ended
        .and(told)
        .and_then(|text| say::result(&text))
        .map_err(|error| Failure::new("telling how the requests went").because(error))
}

fn anew(token: &str, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let start = now();
        let asked = connect().and_then(|mut connection| ask(&mut connection, token).map(|_| ()));
        tally.note(asked, "over a new connection", start.elapsed());
    }
    tally
}

fn busy(token: &str, stop: &AtomicBool) -> Tally {
    keep(token, stop, Duration::ZERO, "over a kept connection")
}

fn idle(token: &str, stop: &AtomicBool) -> Tally {
    keep(token, stop, IDLE, "over an idle connection")
}

fn keep(token: &str, stop: &AtomicBool, pause: Duration, kind: &str) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<BufReader<TcpStream>> = None;
    while !stop.load(Ordering::Relaxed) {
        if kept.as_ref().is_some_and(|connection| is_closed(connection.get_ref())) {
            tally.closed_idle += 1;
            kept = None;
        }
        let start = now();
        let connection = match kept.take() {
            Some(connection) => Ok(connection),
            None => connect(),
        };
        let asked = connection.and_then(|mut connection| {
            let leave = ask(&mut connection, token)?;
            kept = (!leave).then_some(connection);
            Ok(())
        });
        tally.note(asked, kind, start.elapsed());
        std::thread::sleep(pause);
    }
    tally
}

fn connect() -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Whether the other side has closed it, as a client looks before it asks.
fn is_closed(stream: &TcpStream) -> bool {
    let looked = stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut [0]))
        .map_err(|error| error.kind());
    let restored = stream.set_nonblocking(false).is_ok();
    !restored || !matches!(looked, Err(io::ErrorKind::WouldBlock))
}

/// One question; whether the connection is to be left after the answer.
fn ask(connection: &mut BufReader<TcpStream>, token: &str) -> io::Result<bool> {
    let request = format!(
        "POST /v1/ask HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    connection.get_mut().write_all(request.as_bytes())?;
    let (mut leave, mut length, mut status) = (false, 0, String::new());
    let mut head = connection.by_ref().take(BYTES_MAX);
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed instead of answered"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("connection", value)) => leave = value == "close",
            Some(_) => {}
            None if line.is_empty() => break,
            None => status = line,
        }
    }
    let mut body = Vec::new();
    connection.by_ref().take(u64::min(length, BYTES_MAX)).read_to_end(&mut body)?;
    let body = String::from_utf8_lossy(&body);
    if status.starts_with("http/1.1 200") && body.contains("password-reset") {
        Ok(leave)
    } else {
        Err(io::Error::other(format!("{status} {}", body.chars().take(160).collect::<String>())))
    }
}
