//! A disk that fails while a machine updates: requests end with an input/output error, once, a few times, or until the
//! machine is started again. Something must start all the while, and afterwards all must be as after a power cut.

use std::sync::PoisonError;

use anyhow::{Context as _, anyhow, ensure};
use fastrand::Rng;
use protocol::digest::Digest;
use serde::Serialize;

use crate::blocks::{
    course::Quality,
    history::{Bounds, History, RECORDED},
    log::{Cache, Cut, Fate},
    machine::{Machine, Seen, Started},
    mounted::{Mounted, check},
    orders::{Failing, Faults, Order},
    parallel::each,
    place::Place,
    recovery::{Broken, How, Which, rise},
};

/// Moves that a machine is watched for while its disk fails.
const MOVES_MAX: u32 = 12;
/// So many failures are told in full.
const TOLD_MAX: usize = 8;

/// A disk that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// After this step of the history.
    pub step: usize,
    /// What fails.
    pub faults: Faults,
}

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Troubles {
    /// Disks that failed.
    pub disks: usize,
    /// Programs that did their work nevertheless.
    pub worked: usize,
    /// Programs that said they could not.
    pub failed: usize,
    /// While its disk failed, a machine started a release.
    pub started_release: usize,
    /// While its disk failed, a machine started the factory agent.
    pub started_factory: usize,
    /// Nothing started.
    pub unstartable: usize,
    /// What was acknowledged was gone when the disk worked again.
    pub lost: usize,
    /// Updates could not go on when the disk worked again.
    pub stuck: usize,
    /// File systems that could not be repaired and mounted.
    pub unmountable: usize,
    /// The first failures.
    pub told: Vec<String>,
}

/// `count` troubles in a history of `steps` steps.
pub fn choose(steps: usize, count: usize, random: &mut Rng) -> Vec<Trouble> {
    let one = |random: &mut Rng| {
        let failing = match random.u8(0..3) {
            0 => Failing::Reads,
            1 => Failing::Writes,
            _ => Failing::Both,
        };
        // At once, in the middle of a step, or some steps later.
        let most = [3, 40, 400][random.usize(0..3)];
        let count = [1, 4, u32::MAX][random.usize(0..3)];
        let faults = Faults { failing, after: random.u32(0..most), count };
        Trouble { step: random.usize(0..steps.max(1)), faults }
    };
    (0..count).map(|_| one(random)).collect()
}

/// Tries every one of `troubles`. `progress` is told how many were tried so far.
pub fn suffer(
    place: &Place<'_>,
    history: &History,
    troubles: &[Trouble],
    progress: impl Fn(usize) + Sync,
) -> anyhow::Result<Troubles> {
    let mut seen = Troubles::default();
    each(
        place.workers,
        troubles,
        |worker, trouble| one(place, history, worker, *trouble),
        |trouble, outcome| {
            seen.count(history, *trouble, outcome);
            progress(seen.disks);
        },
    )?;
    Ok(seen)
}

/// What a machine did while its disk failed.
struct Life {
    worked: usize,
    failed: usize,
    started: Started,
    promised: Seen,
    offered: Option<Digest>,
}

fn one(
    place: &Place<'_>,
    history: &History,
    worker: usize,
    trouble: Trouble,
) -> anyhow::Result<Result<Life, Broken>> {
    let disk = RECORDED + worker;
    let lock = || place.disks.lock().unwrap_or_else(PoisonError::into_inner);
    let step = history.steps.get(trouble.step).context("there is no such step")?;
    lock().load(disk, Cut { at: step.end, cache: Cache::Honest, fate: Fate::Kept, seed: 0 })?;
    let file = lock().file(disk);
    let folder = place.folder.join(format!("trouble-{worker}"));
    let mut machine = history.machine(&folder, place.factory, place.programs);

    let mounted = Mounted::new(&file, &folder, place.journal)?;
    let mut offered = step.offered;
    if machine.next(Quality::Good).is_none() {
        machine.offer(&history.keys, &history.spare, &[])?;
        offered = Some(history.spare.digest());
    }
    let promised = machine.look()?;
    lock().order(&Order::Fail { disk, faults: Some(trouble.faults) })?;
    let life = live(&machine, promised, offered);
    lock().order(&Order::Fail { disk, faults: None })?;
    mounted.end().context("leaving a disk that failed")?;
    let life = match life {
        Ok(life) => life,
        Err(why) => return Ok(Err(Broken { how: How::Unstartable, why })),
    };

    let again = check(&file).and_then(|()| Mounted::new(&file, &folder, place.journal));
    let mounted = match again {
        Ok(mounted) => mounted,
        Err(why) => return Ok(Err(Broken { how: How::Unmountable, why })),
    };
    let risen = afterwards(&mut machine, history, &life);
    mounted.end().context("leaving a disk that failed before")?;
    Ok(risen.map(|_| life))
}

/// The machine goes on as well as it can, and is started once more while its disk still fails.
fn live(machine: &Machine, mut promised: Seen, offered: Option<Digest>) -> anyhow::Result<Life> {
    let (mut worked, mut failed) = (0, 0);
    for _ in 0..MOVES_MAX {
        let Some(next) = machine.next(Quality::Good) else { break };
        let before = machine.look().map(|seen| seen.generation());
        match machine.do_move(next) {
            Ok(()) => worked += 1,
            Err(_) => {
                failed += 1;
                continue;
            }
        }
        // What a program wrote and did not complain about is promised. What one complained about may be seen for as
        // long as the kernel remembers it.
        if let (Ok(before), Ok(after)) = (before, machine.look())
            && after.generation() > before
        {
            promised = after;
        }
    }
    let started = machine.start_anyhow()?;
    let may = [promised.active(), promised.trial(), offered, None];
    ensure!(may.contains(&started.0), "a release starts that is neither old nor new");
    Ok(Life { worked, failed, started, promised, offered })
}

fn afterwards(machine: &mut Machine, history: &History, life: &Life) -> Result<Which, Broken> {
    let lost = |why| Broken { how: How::Lost, why };
    let possible = machine.look().map_err(lost)?;
    let promised = &life.promised;
    let may = [promised.active(), promised.trial(), life.offered];
    let held = possible.generation() >= promised.generation()
        && possible.trusts_at_least(promised)
        && possible.enrolled >= promised.enrolled
        && (possible.active() == promised.active() || may.contains(&possible.active()));
    if !held {
        return Err(lost(anyhow!(
            "generation {} in phase {} was acknowledged, generation {} in phase {} is there",
            promised.generation(),
            promised.phase(),
            possible.generation(),
            possible.phase()
        )));
    }
    // What was tried without a try on the disk could be tried for ever.
    if life.started.0.is_some() && life.started.0 == possible.trial() && possible.phase() == "armed"
    {
        return Err(Broken {
            how: How::Unstartable,
            why: anyhow!("a start's try is not on the disk"),
        });
    }
    rise(machine, history, &Bounds { promised, possible: &possible, offered: life.offered })
}

impl Troubles {
    /// How many disks did not hold.
    pub const fn failures(&self) -> usize {
        self.unstartable + self.lost + self.stuck + self.unmountable
    }

    /// Adds what others saw.
    pub fn add(&mut self, other: Self) {
        self.disks += other.disks;
        self.worked += other.worked;
        self.failed += other.failed;
        self.started_release += other.started_release;
        self.started_factory += other.started_factory;
        self.unstartable += other.unstartable;
        self.lost += other.lost;
        self.stuck += other.stuck;
        self.unmountable += other.unmountable;
        self.told.extend(other.told);
        self.told.truncate(TOLD_MAX);
    }

    fn count(&mut self, history: &History, trouble: Trouble, outcome: Result<Life, Broken>) {
        self.disks += 1;
        let broken = match outcome {
            Ok(life) => {
                self.worked += life.worked;
                self.failed += life.failed;
                match life.started.0 {
                    Some(_) => self.started_release += 1,
                    None => self.started_factory += 1,
                }
                return;
            }
            Err(broken) => broken,
        };
        match broken.how {
            How::Unmountable => self.unmountable += 1,
            How::LostCommit | How::Lost => self.lost += 1,
            How::Unstartable => self.unstartable += 1,
            How::Stuck => self.stuck += 1,
        }
        if self.told.len() < TOLD_MAX {
            let Faults { failing, after, count } = trouble.faults;
            let step = history.steps.get(trouble.step).map_or("", |step| step.what.as_str());
            self.told.push(format!(
                "{:?}: {broken} (after `{step}`: {failing:?} failed {count} times, after {after} that went well)",
                broken.how
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::choose;
    use crate::blocks::orders::Failing;

    #[test]
    fn every_kind_of_failure_is_chosen() {
        let troubles = choose(10, 300, &mut Rng::with_seed(7));
        for failing in [Failing::Reads, Failing::Writes, Failing::Both] {
            for count in [1, 4, u32::MAX] {
                let is =
                    |t: &&super::Trouble| t.faults.failing == failing && t.faults.count == count;
                assert!(troubles.iter().filter(is).count() > 10, "{failing:?} {count}");
            }
        }
        assert!((0..10).all(|step| troubles.iter().any(|trouble| trouble.step == step)));
    }
}
