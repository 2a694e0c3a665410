//! Before each start of a gateway: a try is spent if a release is on trial, durably, before it runs.

use protocol::time::UnixMs;

use crate::{
    boot::BootRecord,
    executable::Executables,
    launch,
    layout::StateDir,
    record::{self, RecordError, Source},
    state::{Event, StartId, State},
};

/// What is to start, and what went wrong on the way.
#[derive(Clone, Debug)]
pub struct Armed {
    /// The record as it is on the disk now.
    pub record: BootRecord,
    /// What a person should hear.
    pub alarms: Vec<String>,
}

/// Spends a try for `start`, if a release is on trial. The caller holds the record's lock.
///
/// # Errors
/// The record cannot be written. Then no try is spent, and [`launch::open`] starts the committed release.
pub fn arm<D: Executables>(
    disk: &D,
    dir: &StateDir,
    start: StartId,
    now: UnixMs,
) -> Result<Armed, RecordError> {
    let loaded = record::load(disk, dir, now);
    loaded.may_be_replaced(dir)?;
    let mut record = loaded.record.clone();
    let mut alarms = Vec::new();
    // A trial whose slot no longer verifies is given up before it costs a start.
    let event = match record.state.trial() {
        Some(trial) if matches!(record.state, State::Armed { .. } | State::Probation { .. }) => {
            match launch::check(disk, dir, &trial.held) {
                Ok(()) => Event::Start(start),
                Err(error) => Event::Rejected { reason: launch::chain_text(&error) },
            }
        }
        Some(_) | None => Event::Start(start),
    };
    if let Ok((next, _)) = record.clone().advance(event, now) {
        record = next;
    }
    if let Some(held) = record.state.active().cloned()
        && let Err(error) = launch::check(disk, dir, &held)
    {
        let alarm = format!("slot {} does not verify: {}", held.slot, launch::chain_text(&error));
        record.alarm(&alarm, now);
        alarms.push(alarm);
    }
    if record != loaded.record || loaded.generation == 0 {
        record::save(disk, dir, &record, &loaded)?;
    }
    if loaded.source == Source::Recovered {
        let last = record.last().map(|last| last.detail.clone());
        alarms.push(last.unwrap_or_else(|| "the boot record was lost".to_owned()));
    }
    Ok(Armed { record, alarms })
}
