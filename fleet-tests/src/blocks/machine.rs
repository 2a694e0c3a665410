//! A device whose state folder lies on a served disk: its real launcher and updater as processes, its gateway's part
//! played, and what can be seen of it from outside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, bail, ensure};
use protocol::{digest::Digest, enrol::Enrolled};
use slots::{
    boot::BootRecord,
    disk::RealDisk,
    record::{self, Source},
    trust,
};

use crate::{
    blocks::{
        course::{self, Move, Quality, Situation},
        ended::{Ended, run},
    },
    crash::bench::now,
    device::Device,
};

/// Where the agent of a test release, `bin/slot_agent.rs`, finds the updater that it becomes.
const UPDATER_VARIABLE: &str = "SOCLE_CRASH_UPDATER";
/// A start's own name, by which `arm` and `exec` know each other.
const START_VARIABLE: &str = "SOCLE_START";
static STARTS: AtomicU64 = AtomicU64::new(0);
/// What every complaint of the launcher begins with.
const COMPLAINT: &str = "socle-launch:";

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `socle-agent`, of which the updater is run.
    pub agent: PathBuf,
    /// `socle-launch`.
    pub launch: PathBuf,
    /// `socle-slot-agent`, which the releases bring as their agent.
    pub slot_agent: PathBuf,
}

/// A device and the programs that run on it.
#[derive(Debug)]
pub struct Machine {
    /// The device.
    pub device: Device,
    /// The factory slot.
    pub factory: PathBuf,
    /// The programs.
    pub programs: Programs,
}

/// What a machine's disk says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The boot record; none before the first start or run.
    pub record: Option<Recorded>,
    /// The metadata that is trusted; none before enrolment.
    pub trust: Option<Trusted>,
    /// Whether all that enrolment writes is there and whole.
    pub enrolled: bool,
}

/// Versions of metadata, none of which ever goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Of the root.
    pub root: u64,
    /// Of the newest timestamp seen.
    pub timestamp: u64,
    /// Of the newest snapshot seen.
    pub snapshot: u64,
    /// Of the newest targets seen.
    pub targets: u64,
}

/// A boot record and its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Generation.
    pub generation: u64,
    /// Record.
    pub record: BootRecord,
}

/// Which release's gateway started; none means the factory's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started(pub Option<Digest>);

impl Programs {
    /// The programs in `folder`.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            ensure!(path.is_file(), "{} is missing; run `cargo build --release`", path.display());
            std::path::absolute(&path).with_context(|| format!("finding {}", path.display()))
        };
        Ok(Self {
            agent: find("socle-agent")?,
            launch: find("socle-launch")?,
            slot_agent: find("socle-slot-agent")?,
        })
    }
}

impl Machine {
    /// What a service manager does to start the gateway: `arm`, then `exec`. Neither may complain.
    pub fn start(&self) -> anyhow::Result<Started> {
        self.start_and(quiet)
    }

    /// The same on a machine in trouble: the launcher may complain, but it has to start something.
    pub fn start_anyhow(&self) -> anyhow::Result<Started> {
        self.start_and(well)
    }

    fn start_and(
        &self,
        judge: fn(Ended, &str) -> anyhow::Result<Ended>,
    ) -> anyhow::Result<Started> {
        let name = format!("start-{}", STARTS.fetch_add(1, Ordering::Relaxed));
        let named = |verb| {
            let mut command = self.launch(verb);
            command.env(START_VARIABLE, &name);
            command
        };
        judge(run(&mut named("arm"), "socle-launch arm")?, "socle-launch arm")?;
        let what = "socle-launch exec gateway";
        let ended = judge(run(named("exec").arg("gateway"), what)?, what)?;
        let said = ended.out.trim();
        let Some(release) = said.strip_prefix("gateway of ") else {
            bail!("the gateway said `{said}`");
        };
        match release {
            "factory" => Ok(Started(None)),
            digest => Ok(Started(Some(digest.parse().context("reading what the gateway said")?))),
        }
    }

    /// What a service manager does when the gateway was stopped on purpose.
    pub fn refund(&self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.programs.launch);
        command.arg("refund").arg("--state").arg(self.device.dir.root());
        quiet(run(&mut command, "socle-launch refund")?, "socle-launch refund").map(|_| ())
    }

    /// One run of the updater, by way of the launcher.
    pub fn update(&self) -> anyhow::Result<()> {
        let what = "socle-launch exec updater";
        quiet(run(self.launch("exec").arg("updater"), what)?, what).map(|_| ())
    }

    /// What comes next.
    pub fn next(&self, quality: Quality) -> Option<Move> {
        let record = record::load(&RealDisk, &self.device.dir, now()).record;
        let situation = Situation {
            state: &record.state,
            verdict: self.device.dir.verdict().exists(),
            request: self.device.dir.request().exists(),
        };
        course::next(situation, quality)
    }

    /// Does one move.
    pub fn do_move(&self, next: Move) -> anyhow::Result<()> {
        match next {
            Move::Judge { gate, passes } => {
                let record = record::load(&RealDisk, &self.device.dir, now()).record;
                let trial = record.state.trial().context("nothing is on trial")?.held.release;
                let failed = (!passes).then_some("12 of 50 answers differ");
                self.device.judge(trial, gate, failed)
            }
            Move::Update => self.update(),
            Move::Start => self.start().map(|_| ()),
        }
    }

    /// What the disk says. An error when there is something that cannot be read.
    pub fn look(&self) -> anyhow::Result<Seen> {
        let dir = &self.device.dir;
        let record = match record::load(&RealDisk, dir, now()) {
            loaded if loaded.source == Source::Fresh => None,
            loaded => {
                ensure!(
                    loaded.source != Source::Recovered,
                    "the boot record was lost: {}",
                    loaded.record.last().map_or("no reason given", |last| last.detail.as_str())
                );
                Some(Recorded { generation: loaded.generation, record: loaded.record })
            }
        };
        let trust = if is_there(&dir.trusted_root())? {
            let trusted = trust::load(&RealDisk, dir).context("reading what is trusted")?;
            let seen = trusted.seen();
            Some(Trusted {
                root: trusted.root().get().version,
                timestamp: seen.timestamp,
                snapshot: seen.snapshot,
                targets: seen.roles.get("targets.json").copied().unwrap_or_default(),
            })
        } else {
            None
        };
        let enrolled = trust.is_some() && is_there(&dir.fleet())? && is_there(&dir.authority())?;
        if enrolled {
            let bytes = fs::read(dir.fleet()).context("reading what enrolment answered")?;
            serde_json::from_slice::<Enrolled>(&bytes)
                .context("reading what enrolment answered")?;
            trust::authority(&RealDisk, dir).context("reading whom the device obeys")?;
        }
        Ok(Seen { record, trust, enrolled })
    }

    fn launch(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.programs.launch);
        command.arg(verb).arg("--state").arg(self.device.dir.root());
        command.arg("--factory").arg(&self.factory);
        command.env(UPDATER_VARIABLE, &self.programs.agent);
        command
    }
}

impl Trusted {
    /// Whether nothing of it is older than in `other`.
    pub const fn is_at_least(&self, other: &Self) -> bool {
        self.root >= other.root
            && self.timestamp >= other.timestamp
            && self.snapshot >= other.snapshot
            && self.targets >= other.targets
    }
}

impl Seen {
    /// Whether no metadata that is trusted is older than in `other`.
    pub fn trusts_at_least(&self, other: &Self) -> bool {
        let mine = self.trust.unwrap_or_default();
        mine.is_at_least(&other.trust.unwrap_or_default())
    }

    /// The committed release.
    pub fn active(&self) -> Option<Digest> {
        let record = &self.record.as_ref()?.record;
        record.state.active().map(|held| held.release)
    }

    /// The release on trial.
    pub fn trial(&self) -> Option<Digest> {
        let record = &self.record.as_ref()?.record;
        record.state.trial().map(|trial| trial.held.release)
    }

    /// Phase of the update under way.
    pub fn phase(&self) -> &'static str {
        self.record.as_ref().map_or("no record", |recorded| recorded.record.state.phase())
    }

    /// Generation of the boot record; 0 when there is none.
    pub fn generation(&self) -> u64 {
        self.record.as_ref().map_or(0, |recorded| recorded.generation)
    }
}

fn well(ended: Ended, what: &str) -> anyhow::Result<Ended> {
    ensure!(ended.status.success(), "{what} ended with {}: {}", ended.status, ended.err.trim());
    Ok(ended)
}

/// The launcher complains when it skips a slot or cannot do something; neither may happen here.
fn quiet(ended: Ended, what: &str) -> anyhow::Result<Ended> {
    let ended = well(ended, what)?;
    match ended.err.lines().find(|line| line.starts_with(COMPLAINT)) {
        Some(line) => bail!("{what} complained: {line}"),
        None => Ok(ended),
    }
}

fn is_there(path: &Path) -> anyhow::Result<bool> {
    path.try_exists().with_context(|| format!("looking for {}", path.display()))
}
