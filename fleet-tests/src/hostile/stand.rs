//! The agent under test: a machine whose good model is committed, and which is offered one release after the other.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use protocol::{
    digest::Digest,
    id::Slot,
    manifest::{Policy, Role},
    report::EventKind,
    time::UnixMs,
};
use slots::{disk::RealDisk, record, state::State, store::Store};

use crate::{
    crash::bench::{Programs, instant, now, pack_model},
    device::{Device, Wish, factory},
    hostile::{
        case::{Ask, Files},
        worker_watch::WorkerWatch,
    },
    release::{PackedAgent, Recipe, Release, build},
    signing::FleetKeys,
    swap::{http::Address, machine::Machine},
};

/// Longest time for one release to commit or to be given up.
const PATIENCE: Duration = Duration::from_secs(240);
/// Longest time for a given-up release's worker to be done with what it was at.
const IDLE_PATIENCE: Duration = Duration::from_secs(120);
/// Longest time for an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Time in which a worker that computes is seen to.
const COMPUTING: Duration = Duration::from_millis(300);
/// Most of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The folder of the package in a release.
const PACKAGE: &str = "models/minilm/";

/// The first release has all the time it wants; the machine is not what is tried here.
const PATIENT: Policy = Policy {
    tries: 2,
    load_ms: 180_000,
    golden_ms: 180_000,
    probation_ms: 180_000,
    probation_answers: 5,
};
/// A hostile one has less.
const SHORT: Policy = Policy { load_ms: 5_000, golden_ms: 10_000, ..PATIENT };

/// The machine and what it is offered.
#[derive(Debug)]
pub struct Stand {
    device: Device,
    keys: FleetKeys,
    agent: PackedAgent,
    /// The good package.
    good: Files,
    counter: u64,
    /// The machine.
    pub machine: Machine,
}

/// What became of an offered release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It serves now.
    Committed,
    /// It was given up, for this reason.
    GivenUp(String),
}

impl Stand {
    /// Starts a machine in `folder` and has it commit the model in `model`.
    pub fn start(folder: &Path, programs: &Programs, model: &Path) -> anyhow::Result<Self> {
        let keys = FleetKeys::new()?;
        let device = Device::enrol(&folder.join("state"), &keys)?;
        let factory_folder = folder.join("factory");
        factory(&factory_folder, &programs.agent)?;
        let agent = PackedAgent::pack(&programs.agent)?;
        let packed = pack_model(model)?;
        let good = packed
            .into_iter()
            .map(|(path, _, content)| {
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                (name, content)
            })
            .collect();
        let machine = Machine::start(folder, programs, &device, &factory_folder)?;
        let mut stand = Self { device, keys, agent, good, counter: 0, machine };
        let release = stand.release(stand.good.clone(), PATIENT)?;
        stand.offer(&release)?;
        match stand.outcome(release.digest())? {
            Outcome::Committed => Ok(stand),
            Outcome::GivenUp(reason) => bail!("the good model was given up: {reason}"),
        }
    }

    /// A release whose package is the good one with `change`.
    pub fn hostile(&mut self, change: &dyn Fn(&mut Files)) -> anyhow::Result<Release> {
        let mut files = self.good.clone();
        change(&mut files);
        self.release(files, SHORT)
    }

    fn release(&mut self, files: Files, policy: Policy) -> anyhow::Result<Release> {
        self.counter += 1;
        let mut listed: Vec<(String, Role, Vec<u8>)> = files
            .into_iter()
            .map(|(name, content)| (format!("{PACKAGE}{name}"), role(&name), content))
            .collect();
        let note = format!("release {}\n", self.counter).into_bytes();
        listed.push((format!("{PACKAGE}notice.txt"), Role::Notice, note));
        let agent = self.agent.clone();
        let recipe = Recipe { counter: self.counter, agent, files: listed, policy, signers: 2 };
        build(&self.keys, recipe)
    }

    /// Leaves what the device lacks of `release`, and the request.
    pub fn offer(&mut self, release: &Release) -> anyhow::Result<()> {
        let store = Store::new(&RealDisk, &self.device.dir);
        let missing = store.missing(&release.manifest);
        let objects = missing
            .iter()
            .filter_map(|object| {
                let content = release.objects.get(&object.sha256)?;
                Some((object.sha256, content.clone()))
            })
            .collect();
        let request = self.device.request(&self.keys, release, now(), Wish::default())?;
        self.device.stage(&objects, &request)
    }

    /// Waits until the slot holds `release` and nothing more is written there: that slot; none if it ended before.
    pub fn staged(&mut self, release: Digest) -> anyhow::Result<Option<Slot>> {
        let until = instant() + PATIENCE;
        loop {
            self.machine.runs()?;
            let record = self.device.record();
            if let Some(trial) = record.state.trial()
                && trial.held.release == release
                && !matches!(record.state, State::Staging { .. })
            {
                return Ok(Some(trial.held.slot));
            }
            if record.quarantined(&release).is_some() || self.refused(release) {
                return Ok(None);
            }
            ensure!(instant() < until, "nothing was staged within {PATIENCE:?}");
            thread::sleep(POLL);
        }
    }

    /// What became of `release`, once nothing of it is under way any more.
    pub fn outcome(&mut self, release: Digest) -> anyhow::Result<Outcome> {
        let until = instant() + PATIENCE;
        loop {
            self.machine.runs()?;
            let record = self.device.record();
            if let State::Steady { active } = &record.state {
                if active.as_ref().is_some_and(|held| held.release == release) {
                    return Ok(Outcome::Committed);
                }
                if record.quarantined(&release).is_some() || self.refused(release) {
                    let last = record.history.iter().rev().find(|one| one.release == Some(release));
                    let reason = last.map(|one| one.detail.clone()).unwrap_or_default();
                    return Ok(Outcome::GivenUp(reason));
                }
            }
            let phase = record.state.phase();
            ensure!(instant() < until, "nothing came of it within {PATIENCE:?}: {phase}");
            thread::sleep(POLL);
        }
    }

    /// Whether the updater would not have it: its request is gone, and the last thing that happened is its refusal.
    fn refused(&self, release: Digest) -> bool {
        let record = self.device.record();
        !self.device.dir.request().exists()
            && record.last().is_some_and(|last| {
                last.release == Some(release) && last.kind == EventKind::Refused
            })
    }

    /// The slot that serves, and its release.
    pub fn active(&self) -> anyhow::Result<(Slot, Digest)> {
        let record = self.device.record();
        let held = record.state.active().context("no release is active")?;
        Ok((held.slot, held.release))
    }

    /// Watches the worker of `slot`, which is wanted as long as `release` is active or on trial.
    pub fn watch(&self, slot: Slot, release: Digest) -> anyhow::Result<WorkerWatch> {
        let dir = self.device.dir.clone();
        let wanted = move || {
            let state = record::load(&RealDisk, &dir, UnixMs(0)).record.state;
            let trial = state.trial().map(|trial| trial.held.release);
            trial == Some(release) || state.active().is_some_and(|held| held.release == release)
        };
        WorkerWatch::start(&self.machine.worker(slot), release, Box::new(wanted))
    }

    /// The process of the gateway.
    pub fn gateway(&self) -> anyhow::Result<u32> {
        let all = self.machine.processes();
        let gateway = all.iter().find(|process| process.role == "gateway");
        Ok(gateway.context("there is no gateway")?.pid)
    }

    /// Waits until no worker computes any more but the one that serves; how long that took.
    pub fn idle(&self, serves: u32) -> anyhow::Result<Duration> {
        let began = instant();
        loop {
            let all = self.machine.processes();
            let others =
                all.iter().filter(|process| process.role == "worker" && process.pid != serves);
            let others: Vec<(u32, u64)> =
                others.filter_map(|process| Some((process.pid, cpu_ticks(process.pid)?))).collect();
            thread::sleep(COMPUTING);
            let computes = others
                .iter()
                .any(|(pid, before)| cpu_ticks(*pid).is_some_and(|after| after > before + 3));
            if !computes {
                return Ok(began.elapsed().saturating_sub(COMPUTING));
            }
            ensure!(
                began.elapsed() < IDLE_PATIENCE,
                "the worker of a release that was given up computes for longer than {IDLE_PATIENCE:?}"
            );
        }
    }

    /// The status of the answer to `ask`, 0 if there is none, and the answer's body.
    pub fn answer(&self, ask: &Ask) -> anyhow::Result<(u16, Vec<u8>)> {
        let path: PathBuf = match self.machine.unix() {
            Address::Unix(path) => path,
            Address::Tcp(..) => bail!("the socket is no Unix socket"),
        };
        let mut stream = UnixStream::connect(&path).context("connecting to the local API")?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
        // A server that has seen enough answers and hangs up before all is written.
        let written = stream.write_all(&ask.bytes);
        let mut answer = Vec::new();
        let read = (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
        let head = answer.get(..12).unwrap_or_default();
        let status = std::str::from_utf8(head).ok().and_then(|head| head.strip_prefix("HTTP/1.1 "));
        match status.and_then(|status| status.parse().ok()) {
            Some(status) => {
                let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
                Ok((status, answer.split_off(end.map_or(0, |end| end + 4))))
            }
            // It may hang up before it has read everything.
            None => match read {
                Err(reason) if reason.kind() != ErrorKind::ConnectionReset => Err(reason)
                    .with_context(|| format!("waiting for an answer; written: {written:?}")),
                Ok(_) | Err(_) => Ok((0, Vec::new())),
            },
        }
    }
}

fn role(name: &str) -> Role {
    match name {
        "model.onnx" => Role::Model,
        "tokenizer.json" => Role::Tokenizer,
        "golden.json" => Role::Golden,
        _ => Role::Config,
    }
}

/// Processor time that a process had, in hundredths of a second.
fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
