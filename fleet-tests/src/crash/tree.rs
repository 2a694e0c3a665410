//! All processes under `socle-agent run --single`, any of them killed at any moment; the gateway itself judges the
//! gates with the real worker and the real model.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};

use crate::crash::{
    bench::{Bench, instant},
    processes::{self, Process},
};

/// Longest wait for a gateway that answers.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Between two kills, in milliseconds: short, so that a start is hit too, or long enough for a gate.
const PAUSE_MS: std::ops::Range<u64> = 20..4_000;

/// The supervisor and where it lives.
struct Tree {
    child: Child,
    runtime: PathBuf,
    log: PathBuf,
}

/// Runs updates under a supervisor until `kills` processes were killed, checking after each kill that a gateway answers
/// from the old release or the new one.
pub fn run(
    bench: &mut Bench,
    random: &mut Rng,
    kills: u64,
    mut progress: impl FnMut(&Bench),
) -> anyhow::Result<()> {
    let mut tree = Tree::start(bench)?;
    let outcome = (|| {
        tree.settle(bench)?;
        let until = bench.tally.kills + kills;
        while bench.tally.kills < until {
            bench.offer()?;
            thread::sleep(Duration::from_millis(random.u64(PAUSE_MS)));
            tree.kill_one(bench, random)?;
            tree.settle(bench)?;
            progress(bench);
        }
        tree.no_complaint()
    })();
    tree.child.kill().context("ending the supervisor")?;
    tree.child.wait().context("ending the supervisor")?;
    outcome.with_context(|| format!("the log is {}", tree.log.display()))
}

impl Tree {
    fn start(bench: &Bench) -> anyhow::Result<Self> {
        let log = bench.folder.join("tree.log");
        let runtime = bench.folder.join("run");
        let child = spawn(bench, &runtime, &open_log(&log)?)?;
        Ok(Self { child, runtime, log })
    }

    fn kill_one(&mut self, bench: &mut Bench, random: &mut Rng) -> anyhow::Result<()> {
        let there = processes::tree(self.child.id());
        let Some(victim) = there.get(random.usize(0..there.len())).cloned() else {
            bail!("the supervisor is gone");
        };
        let pid = i32::try_from(victim.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && kill_process(pid, Signal::KILL).is_ok()
        {
            bench.killed(victim.role);
        }
        if victim.role == "supervisor" {
            self.child.wait().context("waiting for the killed supervisor")?;
            self.child = spawn(bench, &self.runtime, &open_log(&self.log)?)?;
        }
        Ok(())
    }

    /// Waits until a gateway answers, and looks at which release it runs from.
    fn settle(&mut self, bench: &mut Bench) -> anyhow::Result<()> {
        let started = instant();
        loop {
            ensure!(started.elapsed() < PATIENCE, "no gateway answered within {PATIENCE:?}");
            if let Some(status) = self.child.try_wait()? {
                bail!("the supervisor ended by itself with {status}");
            }
            if self.answers()
                && let Some(gateway) = self.gateway()
            {
                let release = processes::variable(gateway.pid, "SOCLE_RELEASE");
                if let Some(release) = release {
                    let release = if release.is_empty() { None } else { Some(release.parse()?) };
                    return bench.saw(release);
                }
            }
            thread::sleep(POLL);
        }
    }

    fn gateway(&self) -> Option<Process> {
        processes::tree(self.child.id()).into_iter().find(|process| process.role == "gateway")
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

    /// The launcher complains when a slot is skipped or a start fails; neither may happen.
    fn no_complaint(&self) -> anyhow::Result<()> {
        let log = fs::read(&self.log).context("reading the log")?;
        let log = String::from_utf8_lossy(&log);
        match log.lines().find(|line| line.starts_with("socle-launch:")) {
            Some(line) => bail!("a start failed: {line}"),
            None => Ok(()),
        }
    }
}

fn spawn(bench: &Bench, runtime: &PathBuf, log: &File) -> anyhow::Result<Child> {
    let Bench { programs, device, factory, .. } = bench;
    Command::new(&programs.agent)
        .args(["run", "--single", "--listen", "127.0.0.1:0", "--state"])
        .arg(device.dir.root())
        .arg("--factory")
        .arg(factory)
        .arg("--launch")
        .arg(&programs.launch)
        .arg("--runtime")
        .arg(runtime)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing the log")?)
        .stderr(log.try_clone().context("sharing the log")?)
        .spawn()
        .context("starting socle-agent run --single")
}

fn open_log(path: &PathBuf) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}
