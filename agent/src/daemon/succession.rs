//! Whether another release is to run in this gateway's place. Pure.

use protocol::digest::Digest;
use slots::state::State;

/// Why this gateway should end, if it should. `ours` is the release it runs from; `at_start` is the state when it started.
///
/// A gateway whose release is not the one that should run ends only when that changed since it started, or a release is
/// armed: otherwise `socle-launch` chose this one against the record, since another slot did not verify, and would choose
/// it again.
pub fn successor(ours: Option<Digest>, at_start: &State, state: &State) -> Option<String> {
    let running = |state: &State| state.running().map(|held| held.release);
    match state {
        State::Armed { trial, .. } if Some(trial.held.release) != ours => {
            Some(format!("release {} is armed", trial.held.name))
        }
        State::Armed { .. }
        | State::Steady { .. }
        | State::Staging { .. }
        | State::Staged { .. }
        | State::Loaded { .. }
        | State::Golden { .. }
        | State::Probation { .. } => {
            let wanted = running(state);
            (wanted != ours && wanted != running(at_start)).then(|| match state.running() {
                Some(held) => format!("release {} is to run", held.name),
                None => "the factory agent is to run".to_owned(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{id::Slot, time::UnixMs};
    use slots::state::{Held, Trial};

    use super::*;

    fn held(slot: Slot, name: &str) -> Held {
        Held { slot, release: Digest::of(name.as_bytes()), name: name.into(), counter: 1 }
    }

    fn trial(slot: Slot, name: &str) -> Trial {
        let held = held(slot, name);
        Trial { held, rollout: 1, tries: 3, probation_ms: 1000 }
    }

    fn probation(active: Option<Held>, trial: Trial) -> State {
        State::Probation { active, trial, tries_left: 2, refunds_left: 3, deadline: UnixMs(9) }
    }

    #[test]
    fn a_gateway_ends_exactly_when_another_release_is_to_run() {
        let old = Some(held(Slot::A, "old"));
        let (ours_old, ours_new) = (Some(Digest::of(b"old")), Some(Digest::of(b"new")));
        let new = || trial(Slot::B, "new");
        let steady = |active: &Option<Held>| State::Steady { active: active.clone() };
        let loaded = State::Loaded { active: old.clone(), trial: new() };
        let armed = State::Armed { active: old.clone(), trial: new() };
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
            (ours_new, on_trial, factory.clone(), true),
            // Armed between `arm` and our first look.
            (ours_old, armed.clone(), armed, true),
            // The launcher chose the factory slot since slot a does not verify.
            (None, steady(&old), steady(&old), false),
            (None, steady(&old), committed, true),
            (None, factory.clone(), factory, false),
        ];
        for (ours, at_start, now, ends) in cases {
            let found = successor(ours, &at_start, &now);
            assert_eq!(
                found.is_some(),
                ends,
                "{ours:?} {} {}: {found:?}",
                at_start.phase(),
                now.phase()
            );
        }
    }
}
