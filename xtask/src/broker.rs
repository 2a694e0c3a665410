//! A real mosquitto for the demo: mutual TLS, access by certificate name, on a loopback port.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;
use crate::machine::Machine;
use crate::shell;

/// How often and how many times a port that should open is tried: 10 s in all.
const TRY_EVERY: Duration = Duration::from_millis(50);
const TRIES: u32 = 200;

/// A running mosquitto; it is stopped by [`Broker::stop`], or killed when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Option<Child>,
    port: u16,
}

impl Broker {
    /// Makes the certificate authority under `state` as the controller does, a configuration for
    /// mosquitto, and starts it.
    pub(crate) fn start(machine: &Machine, state: &Path) -> Result<Self, Failure> {
        let mosquitto = machine.program("mosquitto").ok_or_else(|| {
            Failure::missing("`mosquitto` is not installed")
                .next("apt-get install -y mosquitto, or run `cargo xtask test` as root once")
        })?;
        let port = free_port()?;
        let config = configure(machine, state, port)?;
        let log = state.join("mosquitto.log");
        let writing = |error| {
            Failure::new(format!("writing mosquitto's log `{}`", log.display())).because(error)
        };
        let out = std::fs::File::create(&log).map_err(writing)?;
        let mut command = Command::new(&mosquitto);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        let child = command.spawn().map_err(|error| {
            Failure::new(format!("`{}` could not be started", shell::line(&command))).because(error)
        })?;
        let mut broker = Self { child: Some(child), port };
        broker.wait_until_open(&log)?;
        Ok(broker)
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("mqtts://localhost:{}", self.port)
    }

    /// Ends mosquitto and waits for its end; that it ended by itself before is a failure.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let waiting = |error| Failure::new("waiting for the end of mosquitto").because(error);
        if let Some(status) = child.try_wait().map_err(waiting)? {
            return Err(Failure::new(format!("mosquitto ended before the demo did: {status}")));
        }
        let ended = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default())
            .is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if !ended {
            child.kill().map_err(waiting)?;
        }
        child.wait().map(|_| ()).map_err(waiting)
    }

    fn wait_until_open(&mut self, log: &Path) -> Result<(), Failure> {
        for _ in 0..TRIES {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return Ok(());
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(not_up(&format!("mosquitto ended at once ({status})"), log));
            }
            std::thread::sleep(TRY_EVERY);
        }
        Err(not_up("mosquitto did not open its port within 10 s", log))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn not_up(what: &str, log: &Path) -> Failure {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    Failure::new(format!("{what}; its last lines, newest first: {}", last.join(" | ")))
}

/// A port that was free a moment ago; loopback only.
fn free_port() -> Result<u16, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::new("looking for a free loopback port").because(error))
}

/// Lets the controller make its authority and the broker's part of it, and adds what only a
/// throw-away broker wants: this user's name, since mosquitto started as root would become
/// `mosquitto` and could no longer read the keys.
fn configure(machine: &Machine, state: &Path, port: u16) -> Result<PathBuf, Failure> {
    let program = machine.bin_dir().join("socle-controller");
    let controller = state.join("controller");
    let folder = state.join("broker");
    let mut init = machine.command(&program);
    init.arg("init").arg("--state").arg(&controller);
    shell::run(init.args(["--fleet", "demo", "--name", "localhost"]).stdout(std::io::stderr()))?;
    let mut pki = machine.command(&program);
    pki.args(["pki", "broker", "--state"]).arg(&controller).arg("--out").arg(&folder);
    pki.args(["--name", "localhost", "--port"]).arg(port.to_string());
    shell::run(pki.stdout(std::io::stderr()))?;
    let config = folder.join("mosquitto.conf");
    let addition = if machine.superuser { "\nuser root\n" } else { "" };
    std::fs::OpenOptions::new()
        .append(true)
        .open(&config)
        .and_then(|mut file| file.write_all(addition.as_bytes()))
        .map_err(|error| {
            Failure::new(format!("adding to `{}`", config.display())).because(error)
        })?;
    Ok(config)
}
