//! One recorded history and many power cuts in it, a few at a time, each on a disk of its own.

use std::{path::PathBuf, sync::PoisonError};

use anyhow::Context as _;
use serde::Serialize;

use crate::blocks::{
    history::{History, RECORDED},
    log::{Cache, Cut, Fate},
    mounted::Mounted,
    orders::Order,
    parallel::each,
    place::Place,
    recovery::{Broken, How, Which, recover},
};

/// So many failures are told in full.
const TOLD_MAX: usize = 8;

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Disks looked at.
    pub states: usize,
    /// Of these, those that a cut left right after an acknowledgement, with nothing but what was flushed.
    pub at_acknowledgements: usize,
    /// The old release started.
    pub old: usize,
    /// The new one did.
    pub new: usize,
    /// Writes that the cuts could undo.
    pub volatile_writes: usize,
    /// Writes that they did undo.
    pub undone_writes: usize,
    /// File systems that could not be mounted.
    pub unmountable: usize,
    /// An acknowledged commit was gone.
    pub lost_commits: usize,
    /// Something else acknowledged was gone.
    pub lost: usize,
    /// Nothing started, or what should not.
    pub unstartable: usize,
    /// An update could not go on.
    pub stuck: usize,
    /// The first failures.
    pub told: Vec<String>,
}

impl Tally {
    /// How many disks did not hold.
    pub const fn failures(&self) -> usize {
        self.unmountable + self.lost_commits + self.lost + self.unstartable + self.stuck
    }

    /// Adds what another sweep saw.
    pub fn add(&mut self, other: Self) {
        self.states += other.states;
        self.at_acknowledgements += other.at_acknowledgements;
        self.old += other.old;
        self.new += other.new;
        self.volatile_writes += other.volatile_writes;
        self.undone_writes += other.undone_writes;
        self.unmountable += other.unmountable;
        self.lost_commits += other.lost_commits;
        self.lost += other.lost;
        self.unstartable += other.unstartable;
        self.stuck += other.stuck;
        self.told.extend(other.told);
        self.told.truncate(TOLD_MAX);
    }

    fn count(&mut self, outcome: &Result<Which, Broken>) {
        self.states += 1;
        let one = match outcome {
            Ok(Which::Old) => &mut self.old,
            Ok(Which::New) => &mut self.new,
            Err(Broken { how: How::Unmountable, .. }) => &mut self.unmountable,
            Err(Broken { how: How::LostCommit, .. }) => &mut self.lost_commits,
            Err(Broken { how: How::Lost, .. }) => &mut self.lost,
            Err(Broken { how: How::Unstartable, .. }) => &mut self.unstartable,
            Err(Broken { how: How::Stuck, .. }) => &mut self.stuck,
        };
        *one += 1;
    }
}

/// Tries every one of `cuts`. `progress` is told how many were tried so far.
pub fn sweep(
    place: &Place<'_>,
    history: &History,
    cuts: &[Cut],
    progress: impl Fn(usize) + Sync,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    each(
        place.workers,
        cuts,
        |worker, cut| one(place, history, worker, *cut),
        |cut, outcome| {
            outcome.tell(history, *cut, &mut tally);
            progress(tally.states);
        },
    )?;
    Ok(tally)
}

/// What one cut led to.
struct Outcome {
    volatile: usize,
    undone: usize,
    result: Result<Which, Broken>,
    kept: Option<PathBuf>,
}

fn one(place: &Place<'_>, history: &History, worker: usize, cut: Cut) -> anyhow::Result<Outcome> {
    let disk = RECORDED + worker;
    let lock = || place.disks.lock().unwrap_or_else(PoisonError::into_inner);
    let (volatile, undone) = lock().load(disk, cut)?;
    let file = lock().file(disk);
    let folder = place.folder.join(format!("cut-{worker}"));
    let result = match Mounted::new(&file, &folder, place.journal) {
        Err(why) => Err(Broken { how: How::Unmountable, why }),
        Ok(mounted) => {
            let mut machine = history.machine(&folder, place.factory, place.programs);
            let result = recover(&mut machine, history, cut.at);
            mounted.end().context("leaving the disk of a cut")?;
            result
        }
    };
    let mut kept = None;
    if let (Err(_), Some(keep)) = (&result, &place.keep) {
        // As the cut left it, not as the recovery did.
        lock().load(disk, cut)?;
        let path = keep.join(format!("cut-at-{}-seed-{}.img", cut.at, cut.seed));
        lock().order(&Order::Save { disk, path: path.clone() })?;
        kept = Some(path);
    }
    Ok(Outcome { volatile, undone, result, kept })
}

impl Outcome {
    fn tell(self, history: &History, cut: Cut, tally: &mut Tally) {
        tally.count(&self.result);
        tally.volatile_writes += self.volatile;
        tally.undone_writes += self.undone;
        let step = history.interrupted(cut.at);
        if step.is_none() && cut.fate == Fate::Lost {
            tally.at_acknowledgements += 1;
        }
        if let Err(broken) = &self.result
            && tally.told.len() < TOLD_MAX
        {
            let during = match step {
                Some(step) => format!("during `{}`", step.what),
                None => "right after an acknowledgement".to_owned(),
            };
            let cache = match cut.cache {
                Cache::Honest => "since the last flush",
                Cache::Lying(_) => "in a cache that ignores flushes",
            };
            let kept = self.kept.map_or_else(String::new, |p| format!("; kept as {}", p.display()));
            tally.told.push(format!(
                "{:?}: {broken} (cut after {} writes and flushes, {during}: {} of {} writes {cache} undone{kept})",
                broken.how, cut.at, self.undone, self.volatile
            ));
        }
    }
}
