//! Every way in which a history can be disturbed, one after the other, on all cores.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use slots::crash_disk::{Fault, Lasting};

use crate::{
    crash::{
        histories::{HISTORIES, History},
        judge::{self, After},
        machine::Machine,
    },
    support::World,
};

/// Every so many distinct states, the machine also goes on from it to the end of its history.
const GOES_ON: u64 = 12;
/// Of so many kills, one is tried, unless everything is.
const KILLS_EVERY: usize = 3;
/// How often a step is begun again after faults.
const ATTEMPTS: usize = 4;

/// One disturbance of one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The power is cut after so many operations.
    PowerCut(usize),
    /// The program is killed after so many operations, goes on, and the power is cut at the end.
    Kill(usize),
    /// The operation with this number goes wrong.
    Once(usize, Fault),
    /// It goes wrong from there on, until the disk is repaired.
    Sticky(usize, Fault),
}

impl Trouble {
    const fn kind(self) -> &'static str {
        match self {
            Self::PowerCut(_) => "power cut",
            Self::Kill(_) => "kill",
            Self::Once(_, Fault::NoSpace) => "full once",
            Self::Once(_, Fault::Io) => "error once",
            Self::Once(_, Fault::Short) => "short write",
            Self::Sticky(_, Fault::NoSpace) => "full disk",
            Self::Sticky(_, Fault::Io | Fault::Short) => "failing disk",
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Disks that were looked at, by kind of trouble.
    pub(crate) states: BTreeMap<&'static str, u64>,
    /// Of these, disks that no program could tell from an earlier one are judged once.
    pub(crate) distinct: u64,
    /// What did not hold, where.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    pub(crate) fn total(&self) -> u64 {
        self.states.values().sum()
    }

    fn add(&mut self, other: Self) {
        for (kind, states) in other.states {
            *self.states.entry(kind).or_default() += states;
        }
        self.distinct += other.distinct;
        self.failures.extend(other.failures);
    }
}

/// A history on its way, with the disks that were judged already.
struct Judge<'a> {
    base: Machine<'a>,
    history: &'static History,
    lie: Option<String>,
    seed: u64,
    judged: HashSet<u64>,
    tally: Tally,
}

/// Disturbs every history in every way.
/// `every`: of the faults, so many are left out for each that is met.
pub(crate) fn everything(world: &World, seed: u64, every: usize) -> Tally {
    // Every cut; of the kills and the faults, every so many, another selection with each seed.
    let kills = if every == 1 { 1 } else { KILLS_EVERY };
    let chosen = |number: usize, trouble: &Trouble| match trouble {
        Trouble::PowerCut(_) => true,
        Trouble::Kill(_) => (number + seed as usize).is_multiple_of(kills),
        Trouble::Once(..) | Trouble::Sticky(..) => (number + seed as usize).is_multiple_of(every),
    };
    let jobs: Vec<(usize, Trouble)> = HISTORIES
        .iter()
        .enumerate()
        .flat_map(|(number, history)| {
            let troubles = troubles(world, history);
            troubles.into_iter().map(move |trouble| (number, trouble))
        })
        .enumerate()
        .filter(|(number, (_, trouble))| chosen(*number, trouble))
        .map(|(_, job)| job)
        .collect();
    let (next, total) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut judges: BTreeMap<usize, Judge<'_>> = BTreeMap::new();
                while let Some((number, trouble)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let judge = judges
                        .entry(*number)
                        .or_insert_with(|| Judge::new(world, &HISTORIES[*number], None, seed));
                    judge.disturb(*trouble);
                }
                for (_, judge) in judges {
                    total.lock().unwrap().add(judge.tally);
                }
            });
        }
    });
    total.into_inner().unwrap()
}

/// The labels of all syncs in all histories.
pub(crate) fn syncs(world: &World) -> BTreeSet<String> {
    let during = HISTORIES.iter().flat_map(|history| {
        let mut machine = Judge::new(world, history, None, 0).base;
        machine.disk.forget_synced();
        machine.all(history.steps).unwrap();
        machine.disk.synced()
    });
    during.collect()
}

/// Where a program without the syncs of this label is caught first, if it is.
pub(crate) fn caught(world: &World, label: &str, seed: u64) -> Option<String> {
    for history in &HISTORIES {
        let mut judge = Judge::new(world, history, Some(label.to_owned()), seed);
        let operations = judge.operations();
        // From the end: what a missing sync leaves undone shows there first.
        let cuts = (0..=operations).rev().map(Trouble::PowerCut);
        for trouble in cuts.chain((0..operations).map(Trouble::Kill)) {
            judge.disturb(trouble);
            if let Some(failure) = judge.tally.failures.pop() {
                return Some(failure);
            }
        }
    }
    None
}

fn troubles(world: &World, history: &'static History) -> Vec<Trouble> {
    let judge = Judge::new(world, history, None, 0);
    let (operations, touches) = (judge.operations(), judge.touches());
    let mut all: Vec<Trouble> = (0..=operations).map(Trouble::PowerCut).collect();
    all.extend((0..operations).map(Trouble::Kill));
    // Enrolment is repeated by whoever began it; a device that was never enrolled has nothing to keep.
    if !history.before.is_empty() {
        for fault in [Fault::NoSpace, Fault::Io, Fault::Short] {
            all.extend((0..touches).map(|touch| Trouble::Once(touch, fault)));
        }
        for fault in [Fault::NoSpace, Fault::Io] {
            all.extend((0..touches).map(|touch| Trouble::Sticky(touch, fault)));
        }
    }
    all
}

impl<'a> Judge<'a> {
    fn new(world: &'a World, history: &'static History, lie: Option<String>, seed: u64) -> Self {
        let mut base = Machine::new(world);
        judge::factory(&base.disk);
        base.all(history.before).unwrap();
        let (judged, tally) = (HashSet::new(), Tally::default());
        Self { base, history, lie, seed, judged, tally }
    }

    fn operations(&self) -> usize {
        let mut machine = self.base.copy();
        machine.all(self.history.steps).unwrap();
        machine.disk.operations() - self.base.disk.operations()
    }

    fn touches(&self) -> usize {
        let mut machine = self.base.copy();
        machine.all(self.history.steps).unwrap();
        machine.disk.touches() - self.base.disk.touches()
    }

    fn disturb(&mut self, trouble: Trouble) {
        let mut machine = self.base.copy();
        if let Some(label) = &self.lie {
            machine.disk.leave_out(label);
        }
        let outcome = match trouble {
            Trouble::PowerCut(after) => self.power_cut(&mut machine, trouble, after),
            Trouble::Kill(after) => self.kill(machine, trouble, after),
            Trouble::Once(touch, fault) => {
                machine.disk.fail_after(touch, fault, Lasting::Once);
                self.once(&mut machine, trouble)
            }
            Trouble::Sticky(touch, fault) => {
                machine.disk.fail_after(touch, fault, Lasting::Sticky);
                self.sticky(&mut machine, trouble)
            }
        };
        if let Err(why) = outcome {
            self.tally.failures.push(format!("{}: {trouble:?}: {why}", self.history.name));
        }
    }

    /// The step that was interrupted, if any was.
    fn run(&self, machine: &mut Machine<'_>, from: usize) -> Option<(usize, String)> {
        let steps = self.history.steps.iter().enumerate().skip(from);
        for (number, step) in steps {
            if let Err(error) = machine.step(*step) {
                return Some((number, error.to_string()));
            }
        }
        None
    }

    fn power_cut(
        &mut self,
        machine: &mut Machine<'a>,
        trouble: Trouble,
        after: usize,
    ) -> Result<(), String> {
        machine.disk.cut_after(after);
        let at = self.run(machine, 0).map_or(self.history.steps.len(), |(step, _)| step);
        self.found(machine, trouble, at, After::PowerCut)
    }

    fn kill(
        &mut self,
        mut machine: Machine<'a>,
        trouble: Trouble,
        after: usize,
    ) -> Result<(), String> {
        machine.disk.cut_after(after);
        let Some((at, _)) = self.run(&mut machine, 0) else { return Ok(()) };
        let mut again = machine.copy();
        if let Some((_, why)) = self.run(&mut again, at) {
            return Err(format!("going on: {why}"));
        }
        again.resume().map_err(|error| error.to_string())?;
        judge::settled(&again)?;
        self.found(&again, trouble, self.history.steps.len(), After::PowerCut)
    }

    fn once(&mut self, machine: &mut Machine<'a>, trouble: Trouble) -> Result<(), String> {
        let mut from = 0;
        for _ in 0..ATTEMPTS {
            let Some((at, _)) = self.run(machine, from) else { break };
            self.seen(machine, trouble, After::Fault)?;
            self.found(machine, trouble, at, After::Fault)?;
            from = at;
        }
        if !machine.disk.struck() {
            return Ok(());
        }
        machine.resume().map_err(|error| format!("going on: {error}"))?;
        judge::settled(machine)?;
        self.found(machine, trouble, self.history.steps.len(), After::Fault)
    }

    fn sticky(&mut self, machine: &mut Machine<'a>, trouble: Trouble) -> Result<(), String> {
        let interrupted = self.run(machine, 0);
        if !machine.disk.struck() {
            return Ok(());
        }
        *self.tally.states.entry(trouble.kind()).or_default() += 1;
        judge::works(&machine.on(machine.disk.twin()))
            .map_err(|why| format!("while the disk fails: {why}"))?;
        let at = interrupted.map_or(self.history.steps.len(), |(step, _)| step);
        self.found(machine, trouble, at, After::Fault)?;
        machine.disk.heal();
        if let Some((_, why)) = self.run(machine, at) {
            return Err(format!("going on after the repair: {why}"));
        }
        machine.resume().map_err(|error| format!("going on after the repair: {error}"))?;
        judge::settled(machine)?;
        self.found(machine, trouble, self.history.steps.len(), After::Fault)
    }

    /// The disk as it is, without a power cut.
    fn seen(
        &mut self,
        machine: &Machine<'a>,
        trouble: Trouble,
        after: After,
    ) -> Result<(), String> {
        *self.tally.states.entry(trouble.kind()).or_default() += 1;
        if self.is_new(machine) { judge::wakes(&machine.copy(), after) } else { Ok(()) }
    }

    /// Every disk that a power cut may leave now. `at` is the step that was interrupted.
    fn found(
        &mut self,
        machine: &Machine<'a>,
        trouble: Trouble,
        at: usize,
        after: After,
    ) -> Result<(), String> {
        let number = match trouble {
            Trouble::PowerCut(n)
            | Trouble::Kill(n)
            | Trouble::Once(n, _)
            | Trouble::Sticky(n, _) => n,
        };
        for (state, disk) in
            machine.disk.after_power_cut(self.seed ^ number as u64).into_iter().enumerate()
        {
            *self.tally.states.entry(trouble.kind()).or_default() += 1;
            let mut found = machine.on(disk);
            if !self.is_new(&found) {
                continue;
            }
            judge::wakes(&found, after).map_err(|why| format!("state {state}: {why}"))?;
            if at == self.history.steps.len() || self.tally.distinct.is_multiple_of(GOES_ON) {
                if let Some((_, why)) = self.run(&mut found, at) {
                    return Err(format!("state {state}: going on: {why}"));
                }
                found.resume().map_err(|error| format!("state {state}: going on: {error}"))?;
                judge::settled(&found)
                    .map_err(|why| format!("state {state}: at the end: {why}"))?;
            }
        }
        Ok(())
    }

    fn is_new(&mut self, machine: &Machine<'_>) -> bool {
        let mut hasher = DefaultHasher::new();
        machine.promised.hash(&mut hasher);
        machine.disk.fingerprint().hash(&mut hasher);
        let new = self.judged.insert(hasher.finish());
        self.tally.distinct += u64::from(new);
        new
    }
}
