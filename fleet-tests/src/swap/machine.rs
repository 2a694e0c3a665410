//! The machine under test: `socle-agent run --single` and what it starts, and the memory they hold.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use agent::installed;
use anyhow::{Context as _, bail, ensure};
use protocol::id::Slot;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::{
    crash::{
        bench::{Programs, instant},
        processes,
    },
    device::Device,
    swap::http::Address,
};

/// Longest wait for a gateway to answer.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// A running machine. It is killed when dropped.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    runtime: PathBuf,
    address: SocketAddr,
    token: PathBuf,
    /// Where its processes write.
    pub log: PathBuf,
    memory: BTreeMap<&'static str, Memory>,
}

/// What the processes of one kind held, in KiB (`VmRSS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// When it was looked at first.
    pub first: u64,
    /// When it was looked at last.
    pub last: u64,
    /// The most.
    pub most: u64,
}

impl Machine {
    /// Starts it in `folder`, for `device`.
    pub fn start(
        folder: &std::path::Path,
        programs: &Programs,
        device: &Device,
        factory: &std::path::Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join("machine.log");
        let file = File::create(&log).context("making the log")?;
        let runtime = folder.join("run");
        // Free now, and the supervisor says so if it is not any more.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(&programs.agent)
            .args(["run", "--single", "--state"])
            .arg(device.dir.root())
            .arg("--factory")
            .arg(factory)
            .arg("--launch")
            .arg(&programs.launch)
            .arg("--runtime")
            .arg(&runtime)
            .args(["--listen", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("starting socle-agent run --single")?;
        let token = device.dir.identity().join("api-token");
        let mut machine = Self { child, runtime, address, token, log, memory: BTreeMap::new() };
        machine.wait_live()?;
        Ok(machine)
    }

    /// The local API over TCP.
    pub fn tcp(&self) -> anyhow::Result<Address> {
        let token =
            fs::read_to_string(&self.token).context("reading the token of the local API")?;
        Ok(Address::Tcp(self.address, token.trim().to_owned()))
    }

    /// The local API on its Unix socket.
    pub fn unix(&self) -> Address {
        Address::Unix(self.runtime.join("api.sock"))
    }

    /// Its processes.
    pub fn processes(&self) -> Vec<processes::Process> {
        processes::tree(self.child.id())
    }

    /// Where the worker of `slot` listens.
    pub fn worker(&self, slot: Slot) -> PathBuf {
        installed::worker_socket(&self.runtime, slot)
    }

    /// Notes what its processes hold now.
    pub fn look_at_memory(&mut self) {
        for process in self.processes() {
            let Some(kib) = resident_kib(process.pid) else { continue };
            let memory = self.memory.entry(process.role);
            let memory = memory.or_insert(Memory { first: kib, last: kib, most: kib });
            memory.last = kib;
            memory.most = memory.most.max(kib);
        }
    }

    /// What its processes held.
    pub fn memory(&self) -> BTreeMap<&'static str, Memory> {
        let lasting = ["supervisor", "gateway", "worker"];
        let of = |role| Some((role, *self.memory.get(role)?));
        lasting.into_iter().filter_map(of).collect()
    }

    /// Makes sure that it still runs.
    pub fn runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the supervisor ended by itself with {status}"),
            None => Ok(()),
        }
    }

    /// Has it end in order.
    pub fn end(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process")?, Signal::TERM).context("ending the machine")?;
        let until = instant() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(instant() < until, "the machine did not end within {PATIENCE:?}");
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn wait_live(&mut self) -> anyhow::Result<()> {
        let until = instant() + PATIENCE;
        while !self.answers() {
            self.runs()?;
            ensure!(instant() < until, "no gateway answered within {PATIENCE:?}");
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = UnixStream::connect(self.runtime.join("api.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(
                b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            )?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer)?;
            Ok(answer.ends_with(b"200"))
        };
        ask().unwrap_or(false)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its processes end with it; it may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
