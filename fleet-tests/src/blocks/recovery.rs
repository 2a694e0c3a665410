//! What must hold on a machine that lost power: what was acknowledged is there, the old or the new release starts, the
//! interrupted update goes on or is given up, and the next one commits.

use anyhow::{anyhow, ensure};
use protocol::digest::Digest;

use crate::{
    blocks::{
        history::{Bounds, History},
        machine::{Machine, Seen},
    },
    device::Device,
};

/// What did not hold.
#[derive(Debug, thiserror::Error)]
#[error("{why:#}")]
pub struct Broken {
    /// Of which kind it is.
    pub how: How,
    /// What was seen.
    pub why: anyhow::Error,
}

/// Kinds of what may not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The file system could not be mounted.
    Unmountable,
    /// An acknowledged commit is gone.
    LostCommit,
    /// Something else acknowledged is gone.
    Lost,
    /// Nothing starts, or what should not.
    Unstartable,
    /// An update cannot go on, or the next one does not commit.
    Stuck,
}

/// Which release started first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one committed before the interrupted step.
    Old,
    /// The one on its way.
    New,
}

/// Lets `machine` recover from a cut after `at` entries of `history`, and looks.
pub fn recover(machine: &mut Machine, history: &History, at: usize) -> Result<Which, Broken> {
    let Some(bounds) = history.bounds(at) else {
        return Err(Broken { how: How::Stuck, why: anyhow!("the history is empty") });
    };
    kept(machine, &bounds)?;
    rise(machine, history, &bounds)
}

/// Starts `machine`, lets it finish what it has begun, and gives it the next release.
pub fn rise(
    machine: &mut Machine,
    history: &History,
    bounds: &Bounds<'_>,
) -> Result<Which, Broken> {
    let which = starts(machine, bounds).map_err(|why| Broken { how: How::Unstartable, why })?;
    goes_on(machine, history, bounds).map_err(|why| Broken { how: How::Stuck, why })?;
    Ok(which)
}

fn kept(machine: &Machine, bounds: &Bounds<'_>) -> Result<(), Broken> {
    let Bounds { promised, possible, .. } = *bounds;
    let seen = machine.look().map_err(|why| Broken { how: How::Lost, why })?;
    if ![promised.active(), possible.active()].contains(&seen.active()) {
        let (is, was) = (name(seen.active()), name(promised.active()));
        let why = anyhow!("{is} is committed, {was} was acknowledged");
        return Err(Broken { how: How::LostCommit, why });
    }
    within(&seen, promised, possible).map_err(|why| Broken { how: How::Lost, why })
}

fn within(seen: &Seen, promised: &Seen, possible: &Seen) -> anyhow::Result<()> {
    let (least, most) = (promised.generation(), possible.generation());
    ensure!(
        (least..=most).contains(&seen.generation()),
        "the boot record is of generation {}, {least} was acknowledged",
        seen.generation()
    );
    for known in [promised, possible] {
        ensure!(
            seen.generation() != known.generation() || seen.record == known.record,
            "the boot record of generation {} is another one",
            seen.generation()
        );
    }
    ensure!(
        seen.trusts_at_least(promised) && possible.trusts_at_least(seen),
        "{:?} is trusted, {:?} was acknowledged",
        seen.trust,
        promised.trust
    );
    ensure!(seen.enrolled || !promised.enrolled, "the enrolment is gone");
    Ok(())
}

fn starts(machine: &Machine, bounds: &Bounds<'_>) -> anyhow::Result<Which> {
    let started = machine.start()?.0;
    ensure!(
        may_run(bounds).any(|release| release == started),
        "{} starts, which is neither old nor new",
        name(started)
    );
    let after = machine.look()?;
    let meant = after.record.as_ref().and_then(|recorded| recorded.record.state.running());
    ensure!(
        meant.map(|held| held.release) == started,
        "{} starts, the boot record means another",
        name(started)
    );
    Ok(if started == bounds.promised.active() { Which::Old } else { Which::New })
}

fn goes_on(machine: &mut Machine, history: &History, bounds: &Bounds<'_>) -> anyhow::Result<()> {
    if !machine.look()?.enrolled {
        // Its operator was never told that it is, and enrols it again.
        machine.device = Device::enrol(machine.device.dir.root(), &history.keys)?;
    }
    machine.update()?;
    machine.settle()?;
    let rest = machine.look()?;
    ensure!(
        may_run(bounds).chain([bounds.offered]).any(|release| release == rest.active()),
        "{} is committed in the end",
        name(rest.active())
    );

    machine.offer(&history.keys, &history.next, &[])?;
    machine.settle()?;
    let next = Some(history.next.digest());
    let end = machine.look()?;
    let why = end.record.as_ref().and_then(|recorded| recorded.record.last());
    ensure!(
        end.active() == next,
        "the next update ended with {}: {}",
        name(end.active()),
        why.map_or("", |last| last.detail.as_str())
    );
    let started = machine.start()?.0;
    ensure!(started == next, "{} starts after the next update", name(started));
    ensure!(end.trusts_at_least(bounds.promised), "the trusted metadata went back");
    Ok(())
}

/// The committed release before and after, and the one on trial.
fn may_run<'a>(bounds: &Bounds<'a>) -> impl Iterator<Item = Option<Digest>> + use<'a> {
    let Bounds { promised, possible, .. } = *bounds;
    [promised, possible]
        .into_iter()
        .flat_map(|seen| std::iter::once(seen.active()).chain(seen.trial().map(Some)))
}

fn name(release: Option<Digest>) -> String {
    release.map_or_else(|| "the factory agent".to_owned(), |release| release.short())
}
