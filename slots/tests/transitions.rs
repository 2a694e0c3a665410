//! Every state meets every event, and random histories keep the invariants.
#![expect(clippy::unwrap_used, reason = "a test's helpers may give up")]

use std::fmt::Write as _;

use proptest::prelude::*;
use protocol::{digest::Digest, handover::Gate, id::Slot, time::UnixMs};
use slots::{
    boot::BootRecord,
    state::{Candidate, Event, Held, StartId, State, Trial},
    transition::{Effect, Note, Step, step},
};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn release(n: u8) -> Digest {
    Digest::of(&[n])
}

fn held(n: u8, slot: Slot) -> Held {
    Held { slot, release: release(n), name: format!("r{n}"), counter: n.into() }
}

fn candidate(n: u8) -> Candidate {
    Candidate {
        release: release(n),
        name: format!("r{n}"),
        counter: n.into(),
        rollout: 0,
        tries: 3,
        load_ms: 1000,
        golden_ms: 2000,
        probation_ms: 1000,
    }
}

/// Release 1 is committed in slot a, release 2 is on trial in slot b.
fn states() -> Vec<(&'static str, State)> {
    let active = Some(held(1, Slot::A));
    let trial = Trial {
        held: held(2, Slot::B),
        rollout: 0,
        tries: 3,
        load_ms: 1000,
        golden_ms: 2000,
        probation_ms: 1000,
    };
    let probation = |tries_left, refunds_left| State::Probation {
        active: Some(held(1, Slot::A)),
        trial: trial.clone(),
        tries_left,
        refunds_left,
        deadline: NOW,
        start: StartId::UNKNOWN,
    };
    let (a, t) = (active.clone(), trial.clone());
    vec![
        ("factory", State::FACTORY),
        ("steady", State::Steady { active: a.clone() }),
        ("staging", State::Staging { active: a.clone(), trial: t.clone() }),
        ("staged", State::Staged { active: a.clone(), trial: t.clone(), deadline: NOW }),
        ("loaded", State::Loaded { active: a.clone(), trial: t.clone(), deadline: NOW }),
        ("golden", State::Golden { active: a.clone(), trial: t.clone() }),
        ("armed", State::Armed { active: a, trial: t, since: NOW }),
        ("probation(tries 2)", probation(2, 3)),
        ("probation(tries 0)", probation(0, 3)),
        ("probation(refunds 0)", probation(1, 0)),
    ]
}

fn events() -> Vec<(&'static str, Event, UnixMs)> {
    let why = || "why".to_owned();
    let passed = |n, gate| Event::Passed { release: release(n), gate };
    let failed = |n, gate| Event::Failed { release: release(n), gate, reason: "why".into() };
    vec![
        ("accept r3", Event::Accept(candidate(3)), NOW),
        ("accept r2", Event::Accept(candidate(2)), NOW),
        ("accept r1", Event::Accept(candidate(1)), NOW),
        ("built", Event::Built, NOW),
        ("load passed r2", passed(2, Gate::Load), NOW),
        ("golden passed r2", passed(2, Gate::Golden), NOW),
        ("probation passed r2", passed(2, Gate::Probation), NOW),
        ("probation passed r1", passed(1, Gate::Probation), NOW),
        ("probation passed r9", passed(9, Gate::Probation), NOW),
        ("golden failed r2", failed(2, Gate::Golden), NOW),
        ("golden failed r9", failed(9, Gate::Golden), NOW),
        ("rejected", Event::Rejected { reason: why() }, NOW),
        ("abandoned", Event::Abandoned { reason: why() }, NOW),
        ("arm", Event::Arm { halted: None }, NOW),
        ("arm, halted", Event::Arm { halted: Some(why()) }, NOW),
        ("start", Event::Start(StartId::named("this")), NOW),
        ("tick early", Event::Tick { halted: None }, UnixMs(NOW.0 - 1)),
        ("tick at deadline", Event::Tick { halted: None }, NOW),
        ("tick, halted", Event::Tick { halted: Some(why()) }, NOW),
        ("tick after a day off", Event::Tick { halted: None }, NOW.plus(86_400_000)),
        ("clean stop", Event::CleanStop, NOW),
    ]
}

fn shown(step: &Step) -> String {
    let mut text = String::from(step.state.phase());
    if let State::Probation { tries_left, refunds_left, deadline, .. } = &step.state {
        let left = deadline.since(NOW);
        write!(text, "(tries {tries_left}, refunds {refunds_left}, {left} ms)").unwrap();
    }
    if let State::Staged { deadline, .. } | State::Loaded { deadline, .. } = &step.state {
        write!(text, "({} s)", deadline.since(NOW) / 1000).unwrap();
    }
    if let Some(held) = step.state.active() {
        write!(text, " active {}@{}", held.name, held.slot).unwrap();
    }
    if let Some(trial) = step.state.trial() {
        write!(text, " trial {}@{}", trial.held.name, trial.held.slot).unwrap();
    }
    for note in &step.notes {
        match note {
            Note::Quarantine { reason, .. } => write!(text, " +quarantine({reason})").unwrap(),
            Note::Pardon { .. } => text.push_str(" +pardon"),
            Note::Commit { counter } => write!(text, " +commit(counter>{counter})").unwrap(),
            Note::Happened { kind, detail, .. } => {
                write!(text, " +{}({detail})", kind.as_str()).unwrap();
            }
        }
    }
    for effect in &step.effects {
        match effect {
            Effect::Build(trial) => write!(text, " !build {}", trial.held.slot).unwrap(),
            Effect::Stamp(held) => write!(text, " !stamp {}", held.slot).unwrap(),
            Effect::Sweep(keep) => {
                let kept = keep.as_ref().map_or("none", |held| held.slot.as_str());
                write!(text, " !sweep(keep {kept})").unwrap();
            }
            Effect::Prune => text.push_str(" !prune"),
        }
    }
    text
}

#[test]
fn every_state_meets_every_event() {
    let mut table = String::new();
    for (name, state) in states() {
        writeln!(table, "{name}").unwrap();
        for (what, event, now) in events() {
            let outcome = match step(state.clone(), event, now) {
                Ok(step) => shown(&step),
                Err(refused) => format!("refused: {refused}"),
            };
            writeln!(table, "  {what:20} → {outcome}").unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

fn any_event() -> impl Strategy<Value = Event> {
    let n = 1_u8..5;
    let gate = prop_oneof![Just(Gate::Load), Just(Gate::Golden), Just(Gate::Probation)];
    prop_oneof![
        3 => n.clone().prop_map(|n| Event::Accept(candidate(n))),
        3 => Just(Event::Built),
        6 => (n.clone(), gate.clone()).prop_map(|(n, gate)| Event::Passed { release: release(n), gate }),
        1 => (n, gate, ".{0,300}").prop_map(|(n, gate, reason)| Event::Failed { release: release(n), gate, reason }),
        1 => ".{0,300}".prop_map(|reason| Event::Rejected { reason }),
        1 => Just(Event::Abandoned { reason: "full".into() }),
        3 => Just(Event::Arm { halted: None }),
        1 => Just(Event::Arm { halted: Some("halt".into()) }),
        4 => (0_u8..3).prop_map(|n| Event::Start(StartId::named(&n.to_string()))),
        1 => Just(Event::Tick { halted: None }),
        1 => Just(Event::Tick { halted: Some("halt".into()) }),
        1 => Just(Event::CleanStop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn random_histories_keep_the_invariants(
        events in proptest::collection::vec((any_event(), 0_u64..700), 1..80),
    ) {
        let mut record = BootRecord::new(NOW);
        let mut now = NOW;
        let mut starts = 0_u32;
        for (event, pause) in events {
            now = now.plus(pause);
            let before = record.clone();
            let committing = matches!(&event, Event::Passed { gate: Gate::Probation, .. });
            let starting = matches!(event, Event::Start(_));
            let Ok((after, effects)) = record.clone().advance(event, now) else { continue };
            record = after;
            // Only a passed probation changes what is committed, and only to what was on trial.
            if record.state.active() != before.state.active() {
                let proven = committing && matches!(before.state, State::Probation { .. });
                prop_assert!(proven);
                prop_assert_eq!(record.state.active(), before.state.trial().map(|trial| &trial.held));
            }
            // A trial never lies where the committed release lies.
            if let (Some(active), Some(trial)) = (record.state.active(), record.state.trial()) {
                prop_assert_ne!(active.slot, trial.held.slot);
            }
            // Floors only rise, sequences only grow.
            prop_assert!(record.counter_floor >= before.counter_floor);
            prop_assert!(record.next_sequence >= before.next_sequence);
            prop_assert!(record.commits >= before.commits);
            // Whatever ends a trial frees what it took, and what is committed is never swept.
            let ended = before.state.trial().is_some() && record.state.trial().is_none();
            let kept = Effect::Sweep(record.state.active().cloned());
            prop_assert_eq!(ended, effects.contains(&kept) && effects.contains(&Effect::Prune));
            // What is quarantined is not on trial.
            if let Some(trial) = record.state.trial() {
                prop_assert!(record.quarantined(&trial.held.release).is_none());
            }
            // A trial that never answers ends: three tries and three refunds at most.
            starts = match (&record.state, starting) {
                (State::Probation { .. }, true) => starts + 1,
                (State::Probation { .. }, false) => starts,
                (_, _) => 0,
            };
            prop_assert!(starts <= 6, "{} starts", starts);
            // It fits, whatever the reasons say.
            let bytes = protocol::cbor::encode(&record).unwrap();
            prop_assert!(bytes.len() <= slots::record::PAYLOAD_BYTES_MAX);
        }
    }
}

/// A gateway that died while it was to judge leaves a trial that ends; a machine that was off does not lose its.
#[test]
fn a_gate_without_a_verdict_ends_unless_nobody_was_there() {
    let record = BootRecord::new(NOW);
    let (record, _) = record.advance(Event::Accept(candidate(2)), NOW).unwrap();
    let (staged, _) = record.advance(Event::Built, NOW).unwrap();
    let deadline = staged.state.deadline().unwrap();
    let tick = || Event::Tick { halted: None };
    assert!(staged.clone().advance(tick(), UnixMs(deadline.0 - 1)).is_err());
    let (ended, _) = staged.clone().advance(tick(), deadline).unwrap();
    assert_eq!(ended.state, State::FACTORY);
    assert!(ended.last().unwrap().detail.contains("no verdict on the load gate"));
    assert!(ended.quarantined(&release(2)).is_none(), "the release is not at fault");

    let (later, _) = staged.advance(tick(), deadline.plus(86_400_000)).unwrap();
    assert_eq!(later.state.phase(), "staged");
    assert!(later.state.deadline().unwrap() > deadline.plus(86_400_000));
}
