//! What comes next on a machine with an update under way: a pure function of what its state folder holds.

use protocol::handover::Gate;
use slots::state::State;

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The gateway leaves a verdict.
    Judge {
        /// On this gate.
        gate: Gate,
        /// Which way.
        passes: bool,
    },
    /// The updater runs.
    Update,
    /// The gateway starts.
    Start,
}

/// What the release under way is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// It passes every gate.
    Good,
    /// It answers the golden set wrongly.
    WrongAnswers,
    /// Its gateway never stays up.
    Crashing,
}

/// What a state folder holds that the course depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The boot record's state.
    pub state: &'a State,
    /// A verdict waits for the updater.
    pub verdict: bool,
    /// A request waits for the updater.
    pub request: bool,
}

/// What comes next; nothing when the machine is at rest.
pub fn next(situation: Situation<'_>, quality: Quality) -> Option<Move> {
    if situation.verdict {
        return Some(Move::Update);
    }
    let judge = |gate| Some(Move::Judge { gate, passes: passes(gate, quality) });
    match situation.state {
        State::Steady { .. } => situation.request.then_some(Move::Update),
        State::Staging { .. } | State::Golden { .. } => Some(Move::Update),
        State::Staged { .. } => judge(Gate::Load),
        State::Loaded { .. } => judge(Gate::Golden),
        State::Armed { .. } => Some(Move::Start),
        State::Probation { .. } => match quality {
            Quality::Good | Quality::WrongAnswers => judge(Gate::Probation),
            Quality::Crashing => Some(Move::Start),
        },
    }
}

fn passes(gate: Gate, quality: Quality) -> bool {
    match quality {
        Quality::Good | Quality::Crashing => true,
        Quality::WrongAnswers => gate != Gate::Golden,
    }
}

#[cfg(test)]
mod tests {
    use protocol::handover::Gate;
    use slots::state::State;

    use super::{Move, Quality, Situation, next, passes};

    #[test]
    fn a_machine_at_rest_waits_for_a_request_and_a_verdict_goes_first() {
        let state = State::FACTORY;
        let situation = Situation { state: &state, verdict: false, request: false };
        assert_eq!(next(situation, Quality::Good), None);
        let asked = Situation { request: true, ..situation };
        assert_eq!(next(asked, Quality::Good), Some(Move::Update));
        let judged = Situation { verdict: true, ..situation };
        assert_eq!(next(judged, Quality::Good), Some(Move::Update));
    }

    #[test]
    fn only_wrong_answers_fail_the_golden_set() {
        assert!(!passes(Gate::Golden, Quality::WrongAnswers));
        assert!(passes(Gate::Load, Quality::WrongAnswers));
        assert!(passes(Gate::Golden, Quality::Crashing));
    }
}
