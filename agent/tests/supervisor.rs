//! `socle-agent run --single` with real processes, from an empty state: the factory agent.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "waits for processes have an end; temporary files need no durability"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use protocol::digest::Digest;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const WAIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

struct Supervisor {
    folder: TempDir,
    address: SocketAddr,
    child: Child,
}

impl Supervisor {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        factory(&folder.path().join("factory"));
        // Free now; the supervisor waits for it should another test hold it for a moment.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = run(folder.path(), address);
        Self { folder, address, child }
    }

    /// The body of a path that needs no token.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    fn wait_serving(&self) {
        let until = Instant::now() + WAIT;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < until, "the supervisor does not listen");
            thread::sleep(LOOK);
        }
    }

    /// The gateway's process, when there is one.
    fn gateway(&self) -> Option<Pid> {
        let parent = self.child.id().to_string();
        children(&parent).into_iter().find(|pid| {
            let line =
                fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"gateway")
                && line.starts_with(b"socle-agent\0")
        })
    }

    fn wait_gateway(&self, other_than: Option<Pid>) -> Pid {
        let until = Instant::now() + WAIT;
        loop {
            match self.gateway() {
                Some(pid) if Some(pid) != other_than => return pid,
                Some(_) | None => {
                    assert!(Instant::now() < until, "no gateway");
                    thread::sleep(LOOK);
                }
            }
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // It may have ended already, as a test wanted it to.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(folder: &Path, address: SocketAddr) -> Child {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_socle-agent"));
    let launch = agent.with_file_name("socle-launch");
    assert!(
        launch.is_file(),
        "`{}` is missing: run `cargo build --release --workspace --bins`",
        launch.display()
    );
    Command::new(agent)
        .args(["run", "--single", "--state"])
        .arg(folder.join("state"))
        .arg("--factory")
        .arg(folder.join("factory"))
        .arg("--launch")
        .arg(launch)
        .args(["--listen", &address.to_string()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// The folder that the package installs.
fn factory(folder: &Path) {
    let agent = fs::read(env!("CARGO_BIN_EXE_socle-agent")).unwrap();
    let path = folder.join("bin/socle-agent");
    fs::create_dir_all(folder.join("bin")).unwrap();
    fs::write(&path, &agent).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let said = serde_json::json!({ "version": "0", "sha256": Digest::of(&agent) });
    fs::write(folder.join("factory.json"), said.to_string()).unwrap();
}

fn children(parent: &str) -> Vec<Pid> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
}

fn wait_gone(pid: Pid) {
    let until = Instant::now() + WAIT;
    while test_kill_process(pid).is_ok() {
        assert!(Instant::now() < until, "process {pid:?} still runs");
        thread::sleep(LOOK);
    }
}

#[test]
fn a_gateway_that_dies_is_started_again_and_refuses_no_connection() {
    let supervisor = Supervisor::start();
    supervisor.wait_serving();
    let first = supervisor.wait_gateway(None);
    assert!(supervisor.get("/healthz").contains("no release is committed"));
    kill_process(first, Signal::KILL).unwrap();
    // Sent while there may be no gateway at all: it waits at the supervisor's socket.
    let answered = supervisor.get("/livez");
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert_ne!(supervisor.wait_gateway(Some(first)), first);
}

#[test]
fn children_end_with_a_supervisor_that_is_killed_and_its_successor_takes_over() {
    let mut supervisor = Supervisor::start();
    supervisor.wait_serving();
    assert!(supervisor.get("/livez").starts_with("HTTP/1.1 200"));
    let gateway = supervisor.wait_gateway(None);
    supervisor.child.kill().unwrap();
    supervisor.child.wait().unwrap();
    wait_gone(gateway);
    supervisor.child = run(supervisor.folder.path(), supervisor.address);
    supervisor.wait_serving();
    assert!(supervisor.get("/livez").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_supervisor_that_is_told_to_end_ends_everything_in_order() {
    let mut supervisor = Supervisor::start();
    supervisor.wait_serving();
    assert!(supervisor.get("/livez").starts_with("HTTP/1.1 200"));
    let gateway = supervisor.wait_gateway(None);
    let pid = Pid::from_raw(i32::try_from(supervisor.child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(supervisor.child.wait().unwrap().success());
    wait_gone(gateway);
    assert!(TcpStream::connect(supervisor.address).is_err(), "nothing listens any more");
}

#[test]
fn a_missing_launcher_is_named() {
    let folder = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_socle-agent"))
        .args(["run", "--single", "--launch", "/nowhere/socle-launch", "--state"])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("/nowhere/socle-launch"), "{said}");
}
