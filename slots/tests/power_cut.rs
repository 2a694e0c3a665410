//! Power cuts, kills, full and failing disks at every operation of every kind of update: a machine wakes up with the old
//! release or the new one, never with neither, and with every commit that was acknowledged.
//!
//! Every cut is tried in each run; of the kills one of three, of the faults one of [`EVERY`], others with another seed.
//! `SOCLE_CRASH_SEED` repeats a run, `SOCLE_CRASH_EVERY=1` leaves nothing out, `SOCLE_CRASH_REPORT` names a folder for the
//! figures.
#![expect(clippy::unwrap_used, reason = "a test's helpers may give up")]

mod crash;
mod support;

use std::{env, fs};

use crash::enumerate::{caught, everything, syncs};
use support::World;

/// Disks that are looked at in one run, at least.
const STATES_MIN: u64 = 100_000;

/// Of so many faults, one is tried.
const EVERY: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok().filter(|number| *number > 0)
}

fn seed() -> u64 {
    number("SOCLE_CRASH_SEED").unwrap_or(7)
}

/// One line of figures, for people and, where it is asked for, in the report.
#[expect(clippy::print_stdout, reason = "the figures are what is asked for")]
fn report(name: &str, line: &str) {
    println!("{line}");
    if let Some(folder) = env::var_os("SOCLE_CRASH_REPORT") {
        let path = std::path::Path::new(&folder).join(name);
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        text.push_str(line);
        text.push('\n');
        slots::disk::replace(&slots::disk::RealDisk, &path, text.as_bytes()).unwrap();
    }
}

#[test]
fn old_or_new_never_neither() {
    let (world, seed) = (World::new(b"agent "), seed());
    let tally = everything(&world, seed, number("SOCLE_CRASH_EVERY").unwrap_or(EVERY) as usize);
    for (kind, states) in &tally.states {
        report("states", &format!("{kind:14} {states:9} states"));
    }
    let (total, failures) = (tally.total(), tally.failures.len());
    let distinct = tally.distinct;
    report(
        "states",
        &format!(
            "in all         {total:9} states ({distinct} distinct), {failures} failures, seed {seed}"
        ),
    );
    for failure in tally.failures.iter().take(20) {
        println!("{failure}");
    }
    assert_eq!(failures, 0);
    assert!(total >= STATES_MIN, "{total} states");
}

/// A program without one of its syncs is caught, whichever it is; else the test above proves nothing, or the sync is idle.
#[test]
fn every_missing_sync_is_caught() {
    let (world, seed) = (World::new(b"agent "), seed());
    let labels = syncs(&world);
    let mut missed = Vec::new();
    for label in &labels {
        match caught(&world, label, seed) {
            Some(failure) => report("mutations", &format!("{label:44} caught: {failure}")),
            None => {
                report("mutations", &format!("{label:44} NOT CAUGHT"));
                missed.push(label);
            }
        }
    }
    let all = labels.len();
    report("mutations", &format!("{all} mutations, {} caught, seed {seed}", all - missed.len()));
    assert!(missed.is_empty(), "{missed:?}");
}
