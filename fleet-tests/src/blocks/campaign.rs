//! A whole run: histories recorded one after another, and in each its share of power cuts and failing disks.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use serde::Serialize;

use crate::{
    blocks::{
        cuts,
        disks::Disks,
        history::{self, History, RECORDED},
        log::{Cache, Cut},
        machine::Programs,
        mounted::Journal,
        needs,
        place::Place,
        sweep::{Tally, sweep},
        trouble::{self, Troubles},
    },
    device::factory,
};

/// Size of each disk, in bytes.
const DISK_BYTES: u64 = 96 << 20;
/// Cuts, and failing disks, that one recorded history is used for.
const PER_HISTORY: usize = 200;
/// What a cache that ignores flushes holds, in writes.
const CACHED: usize = 256;

/// What is to be tried.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Power cuts.
    pub cuts: usize,
    /// Failing disks.
    pub faults: usize,
    /// What the disk does when it is asked to flush.
    pub flushes: Flushes,
    /// Disks at a time.
    pub workers: usize,
    /// Where disks are kept that a failure was seen on.
    pub keep: Option<PathBuf>,
    /// Seed of everything that is chosen.
    pub seed: u64,
}

/// What a disk does when it is asked to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Flushes {
    /// What it must.
    Done,
    /// Nothing, but it says that it did.
    Ignored,
}

/// What was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Seed of everything that was chosen.
    pub seed: u64,
    /// What the disk did when it was asked to flush.
    pub flushes: Flushes,
    /// Histories recorded.
    pub histories: usize,
    /// Their steps.
    pub steps: usize,
    /// Writes and flushes in them.
    pub entries: usize,
    /// Of these, flushes.
    pub flush_entries: usize,
    /// What the power cuts led to.
    pub cuts: Tally,
    /// What the failing disks led to.
    pub faults: Troubles,
}

impl Figures {
    /// Whether all is as it must be: an honest disk loses nothing, and one that ignores flushes is seen to.
    pub const fn held(&self) -> bool {
        let troubles = self.faults.failures();
        match self.flushes {
            Flushes::Done => self.cuts.failures() + troubles == 0,
            Flushes::Ignored => self.cuts.lost_commits + self.cuts.lost > 0 && troubles == 0,
        }
    }
}

/// Carries `plan` out. `program` serves the disks; `progress` is told how many were looked at so far.
pub fn run(
    plan: &Plan,
    program: &Path,
    programs: &Programs,
    progress: impl Fn(usize) + Sync,
) -> anyhow::Result<Figures> {
    ensure!(plan.cuts + plan.faults > 0, "nothing is to be tried");
    let mut visible = vec![program, &programs.agent, &programs.launch, &programs.slot_agent];
    visible.extend(plan.keep.as_deref());
    let folder = needs::folder(&visible)?;
    if let Some(keep) = &plan.keep {
        fs::create_dir_all(keep).with_context(|| format!("making {}", keep.display()))?;
    }
    let factory_folder = folder.join("factory");
    factory(&factory_folder, &programs.slot_agent)?;
    let shared = folder.join("disks");
    fs::create_dir(&shared).with_context(|| format!("making {}", shared.display()))?;
    needs::share(&shared)?;
    let served = shared.join("served");
    fs::create_dir(&served).with_context(|| format!("making {}", served.display()))?;
    let disks = Disks::start(program, &served, RECORDED + 1 + plan.workers, DISK_BYTES)?;
    let disks = Mutex::new(disks);

    let mut random = Rng::with_seed(plan.seed);
    let histories = plan.cuts.max(plan.faults).div_ceil(PER_HISTORY);
    let mut figures = Figures {
        seed: plan.seed,
        flushes: plan.flushes,
        histories,
        steps: 0,
        entries: 0,
        flush_entries: 0,
        cuts: Tally::default(),
        faults: Troubles::default(),
    };
    for number in 0..histories {
        let journal = if number.is_multiple_of(2) { Journal::Ordered } else { Journal::Writeback };
        let place = Place {
            disks: &disks,
            folder: &folder,
            factory: &factory_folder,
            programs,
            journal,
            workers: plan.workers,
            keep: plan.keep.clone(),
        };
        let recorded = history::record(&place, &mut random)
            .context("recording what the machine lives through")?;
        figures.steps += recorded.steps.len();
        figures.entries += recorded.shape.entries;
        figures.flush_entries += recorded.shape.flushes.len();
        let share = |all: usize| all / histories + usize::from(number < all % histories);
        let done = |figures: &Figures| figures.cuts.states + figures.faults.disks;

        let before = done(&figures);
        let cuts = chosen(&recorded, share(plan.cuts), plan.flushes, &mut random);
        figures.cuts.add(sweep(&place, &recorded, &cuts, |now| progress(before + now))?);

        let before = done(&figures);
        let troubles = trouble::choose(recorded.steps.len(), share(plan.faults), &mut random);
        let seen = trouble::suffer(&place, &recorded, &troubles, |now| progress(before + now))?;
        figures.faults.add(seen);
    }
    Ok(figures)
}

fn chosen(recorded: &History, count: usize, flushes: Flushes, random: &mut Rng) -> Vec<Cut> {
    let cache = match flushes {
        Flushes::Done => Cache::Honest,
        Flushes::Ignored => Cache::Lying(CACHED),
    };
    let ends: Vec<usize> = recorded.steps.iter().map(|step| step.end).collect();
    cuts::choose(&recorded.shape, &ends, count, cache, random)
}
