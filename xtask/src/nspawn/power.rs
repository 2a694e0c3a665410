//! Reboots and power cuts in the middle of an update.

use serde_json::Value;

use crate::failure::Failure;
use crate::nspawn::station::Station;

/// Tries left and refunds left of a release in probation.
fn figures(record: &Value) -> Option<(u64, u64)> {
    let probation = find(record, "tries_left")?;
    Some((probation.get("tries_left")?.as_u64()?, probation.get("refunds_left")?.as_u64()?))
}

/// The object that has this member, wherever it is.
fn find<'v>(value: &'v Value, member: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) if members.contains_key(member) => Some(value),
        Value::Object(members) => members.values().find_map(|value| find(value, member)),
        Value::Array(values) => values.iter().find_map(|value| find(value, member)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Has a release that is long on trial get there; its figures then.
fn on_trial(on: &Station<'_>) -> Result<(u64, u64), Failure> {
    on.soon("the agent answers", "ask")?;
    on.fleet()?.start_rollout("slow")?;
    let record = on.until_phase("probation")?;
    // The gateway on trial is up, so that what follows is not the start's own end.
    on.soon("the gateway on trial answers", "ask")?;
    figures(&record).ok_or_else(|| Failure::new(format!("no tries in the record: {record}")))
}

/// Requests have it committed.
fn commits(on: &Station<'_>) -> Result<String, Failure> {
    let load = on.load()?;
    on.until_committed("slow")?;
    load.stop().map(|tally| tally.line())
}

/// A reboot in probation: the try of an orderly stop is given back, once for each.
pub(crate) fn reboot(on: &mut Station<'_>) -> Result<String, Failure> {
    let (tries, refunds) = on_trial(on)?;
    let took = on.reboot()?;
    on.soon("the release on trial runs again", "ask")?;
    let record = on.record()?;
    let now = figures(&record);
    if now != Some((tries, refunds.saturating_sub(1))) {
        return Err(Failure::new(format!(
            "does not hold: {tries} tries and one refund less than {refunds}; the record says {now:?}"
        )));
    }
    let committed = commits(on)?;
    Ok(format!("{tries} tries before and after, down for {:.1} s; {committed}", took.as_secs_f64()))
}

/// The power fails in probation: that start is spent, the release is tried again and commits.
pub(crate) fn cut_in_probation(on: &mut Station<'_>) -> Result<String, Failure> {
    let (tries, refunds) = on_trial(on)?;
    on.cut_power()?;
    on.soon("the release on trial runs again", "ask")?;
    let now = figures(&on.record()?);
    if now != Some((tries.saturating_sub(1), refunds)) {
        return Err(Failure::new(format!(
            "does not hold: one try less than {tries}, {refunds} refunds; the record says {now:?}"
        )));
    }
    commits(on)
}

/// The power fails again and again in probation: when no try is left, the release before runs.
pub(crate) fn cuts_until_rolled_back(on: &mut Station<'_>) -> Result<String, Failure> {
    let (tries, _) = on_trial(on)?;
    for _ in 0..=tries {
        on.cut_power()?;
        on.soon("the machine answers", "ask")?;
    }
    on.until_committed("first")?;
    on.holds("the release is quarantined", "status | grep '^quarantined '")?;
    Ok(format!("{} power cuts, back on the release before", tries + 1))
}

/// The power fails between arming and the start of the new release: old or new, never neither.
pub(crate) fn cut_at_arming(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    let fleet = on.fleet()?;
    let number = fleet.start_rollout("next")?;
    // Connections that are open make the old gateway take its time.
    let load = on.load()?;
    on.until_phase("armed")?;
    drop(load);
    let took = on.cut_power()?;
    on.soon("the machine answers", "ask")?;
    on.until_committed("next")?;
    if !on.fleet()?.watch_rollout(number)? {
        return Err(Failure::new("the rollout was halted"));
    }
    Ok(format!("armed, cut, up after {:.1} s, committed", took.as_secs_f64()))
}
