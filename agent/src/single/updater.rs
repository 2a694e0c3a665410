//! The updater child: runs once whenever the gateway has left something, and now and then while an update is under way.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use slots::{disk::RealDisk, record, state::State};
use tokio::{
    sync::watch,
    task,
    time::{self, Instant},
};

use crate::{
    observe::{clock, logging, stopping::stopped},
    single::{child, plan::Plan},
};

/// How often the staging area is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often it runs while an update is under way: deadlines pass, halts end.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// Longest time for one run.
const RUN_MAX: Duration = Duration::from_secs(600);

/// What a file was when last seen: (inode, length, modification time in nanoseconds).
type Seen = Option<(u64, u64, i64)>;

/// Runs the updater when there is something to do, until `stop`.
pub async fn run(plan: Plan, mut stop: watch::Receiver<bool>) {
    let files = [plan.state.request(), plan.state.verdict(), plan.state.halt()];
    // Once at the start, whatever lies there: effects that a crash interrupted are done again.
    let mut seen = None;
    let mut ran = Instant::now();
    while !*stop.borrow() {
        let now = look(&files);
        let due = ran.elapsed() >= UNDER_WAY && under_way(plan.clone()).await;
        if seen.as_ref() != Some(&now) || due {
            tokio::select! {
                () = once(&plan) => {}
                () = stopped(&mut stop) => return,
            }
            seen = Some(now);
            ran = Instant::now();
        } else if ran.elapsed() >= UNDER_WAY {
            ran = Instant::now();
        }
        tokio::select! {
            () = time::sleep(LOOK) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

async fn once(plan: &Plan) {
    let mut running = match child::start("updater", plan.updater(), &[]) {
        Ok(running) => running,
        Err(reason) => {
            tracing::error!("no updater: {}", logging::chain(&reason));
            return;
        }
    };
    match time::timeout(RUN_MAX, running.ended()).await {
        Ok(Ok((status, lived))) if status.success() => {
            tracing::debug!(lived_ms = lived.as_millis() as u64, "updater ran");
        }
        Ok(Ok((status, _))) => {
            tracing::warn!(%status, "updater failed; it runs again when there is something new")
        }
        Ok(Err(reason)) => tracing::error!("{}", logging::chain(&reason)),
        Err(_) => tracing::error!("updater did not end in time and is killed"),
    }
}

async fn under_way(plan: Plan) -> bool {
    let reading = task::spawn_blocking(move || {
        record::load(&RealDisk, &plan.state, clock::now()).record.state
    });
    match reading.await {
        Ok(State::Steady { .. }) => false,
        Ok(
            State::Staging { .. }
            | State::Staged { .. }
            | State::Loaded { .. }
            | State::Golden { .. }
            | State::Armed { .. }
            | State::Probation { .. },
        ) => true,
        Err(reason) => {
            tracing::error!(%reason, "the boot record cannot be read");
            false
        }
    }
}

fn look(files: &[PathBuf]) -> Vec<Seen> {
    let seen = |path: &PathBuf| -> Seen {
        let meta = fs::metadata(path as &Path).ok()?;
        Some((meta.ino(), meta.len(), meta.mtime_nsec() + meta.mtime() * 1_000_000_000))
    };
    files.iter().map(seen).collect()
}
