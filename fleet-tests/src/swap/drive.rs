//! One release after the other, while the load runs; and what must have become of each.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, bail, ensure};
use fastrand::Rng;
use protocol::digest::Digest;
use serde::Serialize;
use slots::state::State;

use crate::{
    crash::bench::{Programs, instant, now},
    device::{Device, Wish, factory},
    signing::FleetKeys,
    swap::{
        cargo::{Cargo, Change, Kind, Offer, plan},
        live::{Board, Live},
        load::{Load, Tally},
        machine::{Machine, Memory},
        variant::Ingredients,
    },
};

/// Longest time for one release to commit or to be given up.
const PATIENCE: Duration = Duration::from_secs(240);
/// Longest time for the load to reach its number after the last release.
const LOAD_PATIENCE: Duration = Duration::from_secs(1_800);
const POLL: Duration = Duration::from_millis(50);

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Releases that commit.
    pub swaps: usize,
    /// Releases that are given up.
    pub poisoned: usize,
    /// Requests, at least. The releases are spread over them.
    pub requests: u64,
}

/// How long releases took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Took {
    /// How many.
    pub count: u64,
    /// All of them together, in milliseconds.
    pub all_ms: u64,
    /// The slowest, in milliseconds.
    pub slowest_ms: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Releases that committed, by what they changed.
    pub committed: BTreeMap<String, Took>,
    /// Releases that were given up, by what was wrong with them.
    pub rolled_back: BTreeMap<String, Took>,
    /// The requests.
    pub load: Tally,
    /// Seconds under load.
    pub seconds: u64,
    /// Memory by kind of process.
    pub memory: BTreeMap<&'static str, Memory>,
}

struct Drive {
    device: Device,
    cargo: Cargo,
    board: Board,
    machine: Machine,
    committed: Option<Live>,
    seen: Seen,
}

/// Runs `plan` in `folder`. What was seen comes back also when it did not hold.
pub fn run(
    folder: &Path,
    programs: &Programs,
    model: &Path,
    plan_of: Plan,
    random: &mut Rng,
    mut progress: impl FnMut(&str),
) -> (Seen, anyhow::Result<()>) {
    progress("packing the releases' parts");
    match Drive::start(folder, programs, model) {
        Ok(mut drive) => {
            let outcome = drive.run(plan_of, random, &mut progress);
            drive.seen.memory = drive.machine.memory();
            let Drive { machine, seen, .. } = drive;
            let log = machine.log.clone();
            let outcome = outcome.and_then(|()| machine.end()).and_then(|()| no_hang(&log));
            (seen, outcome.with_context(|| format!("the log is {}", log.display())))
        }
        Err(error) => (Seen::default(), Err(error)),
    }
}

impl Drive {
    fn start(folder: &Path, programs: &Programs, model: &Path) -> anyhow::Result<Self> {
        let keys = FleetKeys::new()?;
        let device = Device::enrol(&folder.join("state"), &keys)?;
        let factory_folder = folder.join("factory");
        factory(&factory_folder, &programs.agent)?;
        let other = programs.agent.with_file_name("socle-crash-agent");
        let ingredients = Ingredients::read(model)?;
        let cargo = Cargo::pack(keys, &ingredients, &programs.agent, &other)?;
        let machine = Machine::start(folder, programs, &device, &factory_folder)?;
        let board = Board::default();
        Ok(Self { device, cargo, board, machine, committed: None, seen: Seen::default() })
    }

    fn run(
        &mut self,
        of: Plan,
        random: &mut Rng,
        progress: &mut impl FnMut(&str),
    ) -> anyhow::Result<()> {
        progress("installing the first release");
        self.swap(Kind::Good(Change::Faq))?;
        self.seen.committed.clear();
        let (tcp, unix) = (self.machine.tcp()?, self.machine.unix());
        let kinds = plan(of.swaps, of.poisoned, random);
        let load = Load::start(&tcp, &unix, self.board.clone(), random)?;
        let began = instant();
        let outcome = self.swaps(&kinds, &load, of.requests, progress);
        self.seen.seconds = began.elapsed().as_secs().max(1);
        self.seen.load = load.stop();
        outcome
    }

    fn swaps(
        &mut self,
        kinds: &[Kind],
        load: &Load,
        requests: u64,
        progress: &mut impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let all = kinds.len() as u64;
        for (kind, at) in kinds.iter().zip(0_u64..) {
            self.wait_for(load, requests * at / all.max(1), PATIENCE)?;
            self.swap(*kind)?;
            self.machine.look_at_memory();
            progress(&format!(
                "{} of {all} releases, {} requests, {} failed; last: {kind:?}",
                at + 1,
                load.asked(),
                load.failed()
            ));
        }
        self.wait_for(load, requests, LOAD_PATIENCE)
    }

    /// Until there were so many requests; a machine that is slow is asked less, but not for ever.
    fn wait_for(&mut self, load: &Load, requests: u64, patience: Duration) -> anyhow::Result<()> {
        let until = instant() + patience;
        while load.asked() < requests && instant() < until {
            self.machine.runs()?;
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Offers one release and sees what becomes of it.
    fn swap(&mut self, kind: Kind) -> anyhow::Result<()> {
        let offer = self.cargo.next(kind)?;
        let release = offer.digest();
        let new = self.live(&offer)?;
        let mut live: Vec<Live> = self.committed.iter().cloned().collect();
        match kind {
            Kind::Good(_) => live.push(new.clone()),
            // Nobody may ever hear from it.
            Kind::Bad(_) => {}
        }
        self.board.set(live);
        let began = instant();
        let request =
            self.device.request(self.cargo.keys(), &offer.release, now(), Wish::default())?;
        self.device.stage(&offer.release.objects, &request)?;
        let outcome = self.outcome(release).with_context(|| format!("offering {kind:?}"))?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match (kind, outcome) {
            (Kind::Good(change), Outcome::Committed) => {
                self.committed = Some(new);
                count(&mut self.seen.committed, &word(change)?, took_ms);
            }
            (Kind::Bad(poison), Outcome::GivenUp(_)) => {
                count(&mut self.seen.rolled_back, &word(poison)?, took_ms);
            }
            (Kind::Good(_), Outcome::GivenUp(reason)) => {
                bail!("a good release ({kind:?}) was given up: {reason}")
            }
            (Kind::Bad(_), Outcome::Committed) => bail!("a bad release ({kind:?}) was committed"),
        }
        self.board.set(self.committed.iter().cloned().collect());
        Ok(())
    }

    fn live(&self, offer: &Offer) -> anyhow::Result<Live> {
        let variant = self.cargo.variants().get(offer.variant).context("no such variant")?;
        Ok(Live {
            release: offer.digest(),
            version: variant.version.clone(),
            expected: Arc::new(variant.expected.clone()),
        })
    }

    /// What became of `release`, once nothing of it is under way any more.
    fn outcome(&mut self, release: Digest) -> anyhow::Result<Outcome> {
        let until = instant() + PATIENCE;
        loop {
            self.machine.runs()?;
            let record = self.device.record();
            let phase = record.state.phase();
            if let State::Steady { active } = &record.state {
                if active.as_ref().is_some_and(|held| held.release == release) {
                    return Ok(Outcome::Committed);
                }
                if record.quarantined(&release).is_some() {
                    let last = record.history.iter().rev().find(|one| one.release == Some(release));
                    let detail = last.map(|one| one.detail.clone()).unwrap_or_default();
                    return Ok(Outcome::GivenUp(detail));
                }
            }
            ensure!(
                instant() < until,
                "nothing came of it within {PATIENCE:?}: {phase}, {}",
                record.last().map_or("nothing happened", |last| last.detail.as_str())
            );
            thread::sleep(POLL);
        }
    }
}

enum Outcome {
    Committed,
    GivenUp(String),
}

fn count(by: &mut BTreeMap<String, Took>, what: &str, took_ms: u64) {
    let took = by.entry(what.to_owned()).or_default();
    took.count += 1;
    took.all_ms += took_ms;
    took.slowest_ms = took.slowest_ms.max(took_ms);
}

/// A worker that is merely kept waiting by a busy machine must not be taken for one that hangs.
fn no_hang(log: &Path) -> anyhow::Result<()> {
    let log = fs::read(log).context("reading the log")?;
    let log = String::from_utf8_lossy(&log);
    match log.lines().find(|line| line.contains("a compute thread hangs")) {
        Some(line) => bail!("a worker that works was ended: {line}"),
        None => Ok(()),
    }
}

/// The name of a kind, as in the figures.
fn word(kind: impl Serialize) -> anyhow::Result<String> {
    let value = serde_json::to_value(kind)?;
    Ok(value.as_str().context("a kind without a name")?.to_owned())
}
