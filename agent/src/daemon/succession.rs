//! Whether another release is to run in this gateway's place. Pure.

use protocol::{digest::Digest, time::UnixMs};
use slots::state::State;

/// What is armed this long before a gateway looks first was armed before it started: then `socle-launch arm` saw it too,
/// and could not spend a try. It waits for its lock for half as long.
const ARMED_BEFORE_MS: u64 = 10_000;

/// The gateway that asks.
#[derive(Clone, Debug)]
pub struct Ours {
    /// The release it runs from.
    pub release: Option<Digest>,
    /// The state when it looked first.
    pub at_start: State,
    /// When that was.
    pub started: UnixMs,
}

/// Why this gateway should end, if it should.
///
/// A gateway whose release is not the one that should run ends only when that changed since it started, or a release is
/// armed: otherwise `socle-launch` chose this one against the record, since another slot did not verify, or the try could
/// not be written, and would choose it again.
pub fn successor(ours: &Ours, state: &State) -> Option<String> {
    let running = |state: &State| state.running().map(|held| held.release);
    match state {
        State::Armed { trial, since, .. } => {
            let before = ours.started.since(*since).max(since.since(ours.started));
            let passed_over = *state == ours.at_start && before > ARMED_BEFORE_MS;
            let other = Some(trial.held.release) != ours.release;
            (other && !passed_over).then(|| format!("release {} is armed", trial.held.name))
        }
        State::Steady { .. }
        | State::Staging { .. }
        | State::Staged { .. }
        | State::Loaded { .. }
        | State::Golden { .. }
        | State::Probation { .. } => {
            let wanted = running(state);
            (wanted != ours.release && wanted != running(&ours.at_start)).then(|| {
                match state.running() {
                    Some(held) => format!("release {} is to run", held.name),
                    None => "the factory agent is to run".to_owned(),
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::id::Slot;
    use slots::state::{Held, StartId, Trial};

    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn held(slot: Slot, name: &str) -> Held {
        Held { slot, release: Digest::of(name.as_bytes()), name: name.into(), counter: 1 }
    }

    fn trial(slot: Slot, name: &str) -> Trial {
        Trial {
            held: held(slot, name),
            rollout: 1,
            tries: 3,
            load_ms: 1000,
            golden_ms: 1000,
            probation_ms: 1000,
        }
    }

    fn probation(active: Option<Held>, trial: Trial) -> State {
        let (deadline, start) = (NOW.plus(9), StartId::UNKNOWN);
        State::Probation { active, trial, tries_left: 2, refunds_left: 3, deadline, start }
    }

    #[test]
    fn a_gateway_ends_exactly_when_another_release_is_to_run() {
        let old = Some(held(Slot::A, "old"));
        let (ours_old, ours_new) = (Some(Digest::of(b"old")), Some(Digest::of(b"new")));
        let new = || trial(Slot::B, "new");
        let steady = |active: &Option<Held>| State::Steady { active: active.clone() };
        let deadline = NOW.plus(9);
        let loaded = State::Loaded { active: old.clone(), trial: new(), deadline };
        let armed_at =
            |since: u64| State::Armed { active: old.clone(), trial: new(), since: UnixMs(since) };
        let armed = armed_at(NOW.0 - 100);
        let on_trial = probation(old.clone(), new());
        let committed = steady(&Some(held(Slot::B, "new")));
        let factory = State::FACTORY;
        // (ours, at start, now, ends)
        let cases = [
            (ours_old, steady(&old), steady(&old), false),
            (ours_old, steady(&old), loaded, false),
            (ours_old, steady(&old), armed.clone(), true),
            (None, factory.clone(), armed.clone(), true),
            (ours_new, on_trial.clone(), on_trial.clone(), false),
            (ours_new, on_trial.clone(), committed.clone(), false),
            (ours_new, on_trial.clone(), steady(&old), true),
            (ours_new, on_trial.clone(), factory.clone(), true),
            // Armed between `arm` and our first look.
            (ours_old, armed.clone(), armed, true),
            // Armed long before we started: no try could be written, and none could be the next time. A clock that
            // jumped changes nothing about that.
            (ours_old, armed_at(NOW.0 - 60_000), armed_at(NOW.0 - 60_000), false),
            (ours_old, armed_at(NOW.0 + 60_000), armed_at(NOW.0 + 60_000), false),
            // Armed anew since.
            (ours_old, armed_at(NOW.0 - 60_000), armed_at(NOW.0 + 60_000), true),
            // The try of this start could not be written: the committed release runs.
            (ours_old, on_trial.clone(), on_trial, false),
            // The launcher chose the factory slot since slot a does not verify.
            (None, steady(&old), steady(&old), false),
            (None, steady(&old), committed, true),
            (None, factory.clone(), factory, false),
        ];
        for (release, at_start, now, ends) in cases {
            let ours = Ours { release, at_start, started: NOW };
            let found = successor(&ours, &now);
            let (was, is) = (ours.at_start.phase(), now.phase());
            assert_eq!(found.is_some(), ends, "{release:?} {was} {is}: {found:?}");
        }
    }
}
