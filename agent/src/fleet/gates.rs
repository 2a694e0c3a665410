//! The gates of a trial: which one is due, and what an observation means for it. Pure.

use engine::{golden::GoldenReport, worker::message::WorkerInfo};
use protocol::{
    command::Halt,
    digest::Digest,
    handover::{Gate, Outcome, Verdict},
    id::Slot,
    manifest::{Manifest, Policy},
    time::UnixMs,
};
use slots::{boot::BootRecord, state::State};

/// Longest text of a verdict, as the format says.
const WORDS_CHARS_MAX: usize = 2000;
/// Fewer failures than this say nothing about a release.
const FAILURES_TELLING: u64 = 5;
/// More than one failure among this many answers is too many.
const ANSWERS_PER_FAILURE: u64 = 10;

/// A gate that this gateway is to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub gate: Gate,
    /// Release on trial.
    pub release: Digest,
    /// Its slot.
    pub slot: Slot,
}

/// What there is to do for a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing; the words say what is waited for.
    Wait(String),
    /// Watch this gate.
    Watch(Due),
}

/// What is due. `own` is the slot this gateway runs from; `given` is the last verdict it gave.
pub fn next(
    record: &BootRecord,
    own: Option<Slot>,
    given: Option<&Verdict>,
    halt: Option<&Halt>,
) -> Next {
    let wait = |text: &str| Next::Wait(text.to_owned());
    let (trial, gate) = match &record.state {
        State::Steady { .. } => return wait("no trial"),
        State::Staging { .. } => return wait("the updater is filling the slot"),
        State::Staged { trial, .. } => (trial, Gate::Load),
        State::Loaded { trial, .. } => (trial, Gate::Golden),
        State::Golden { .. } => return wait("the updater is arming the release"),
        State::Armed { .. } => return wait("armed: the next start tries the release"),
        State::Probation { trial, .. } => (trial, Gate::Probation),
    };
    let (release, slot) = (trial.held.release, trial.held.slot);
    let judged = |verdict: &Verdict| {
        verdict.release == release
            && verdict.gate == gate
            && verdict.at >= entered(record, &release)
    };
    if given.is_some_and(judged) {
        return Next::Wait(format!("{} gate judged; the updater acts on it", gate.as_str()));
    }
    let halted = halt.filter(|halt| halt.forbids(&release));
    match (gate, halted) {
        (Gate::Golden, Some(halt)) => Next::Wait(format!(
            "halted by the controller ({}): the golden set is not judged while this holds",
            halt.reason
        )),
        (Gate::Probation, _) if own != Some(slot) => {
            wait("this gateway does not run from the slot in probation")
        }
        (Gate::Load | Gate::Golden | Gate::Probation, _) => {
            Next::Watch(Due { gate, release, slot })
        }
    }
}

/// When the trial came to where it stands: a verdict from before is about an earlier trial of the same release.
fn entered(record: &BootRecord, release: &Digest) -> UnixMs {
    let of_release = record.history.iter().filter(|happening| happening.release == Some(*release));
    of_release.map(|happening| happening.at).max().unwrap_or_default()
}

/// Whether the candidate worker is the one that was asked for, with all models of the manifest and nothing broken.
pub fn introduced(
    worker: &WorkerInfo,
    release: &Digest,
    manifest: &Manifest,
) -> Result<(), String> {
    if worker.release.as_ref() != Some(release) {
        return Err("the candidate's worker serves another release".to_owned());
    }
    if let Some(broken) = worker.broken.first() {
        return Err(format!("model package `{}` is not usable: {}", broken.dir, broken.message));
    }
    match manifest.models().iter().find(|name| !worker.offers(name)) {
        Some(name) => Err(format!("the candidate's worker does not offer model `{name}`")),
        None => Ok(()),
    }
}

/// What one model's golden set says: figures if it passed, else why not.
pub fn golden(model: &str, report: &GoldenReport) -> Result<String, String> {
    let GoldenReport { cases, failed, worst_cosine, slowest_us, failures } = report;
    let slowest_ms = slowest_us / 1000;
    if report.passed() {
        let cosine = format!("worst cosine {worst_cosine:.5}, slowest {slowest_ms} ms");
        Ok(format!("{model}: {cases} of {cases} golden answers, {cosine}"))
    } else {
        let first = failures.join("; ");
        Err(format!("{model}: {failed} of {cases} golden answers were wrong or late: {first}"))
    }
}

/// What was seen in probation so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether the gateway can answer.
    pub ready: bool,
    /// Good answers to others.
    pub answered: u64,
    /// Requests of others that failed by our fault.
    pub failed: u64,
    /// Golden questions that we asked and that were answered as signed.
    pub asked: u64,
}

/// The verdict on a probation, once there is one.
pub fn probation(seen: &Seen, policy: &Policy) -> Option<Outcome> {
    let Seen { ready, answered, failed, asked } = *seen;
    let good = answered.saturating_add(asked);
    if failed >= FAILURES_TELLING && failed.saturating_mul(ANSWERS_PER_FAILURE) > good {
        let reason = format!("{failed} requests failed, {good} were answered");
        return Some(Outcome::Failed { reason });
    }
    (ready && good >= u64::from(policy.probation_answers)).then(|| {
        let wanted = policy.probation_answers;
        let detail =
            format!("healthy; {good} good answers of {wanted} wanted ({asked} asked by itself), {failed} failed");
        Outcome::Passed { detail }
    })
}

/// An outcome with words of a length that the format allows.
pub fn outcome(result: Result<String, String>) -> Outcome {
    let cut = |text: String| text.chars().take(WORDS_CHARS_MAX).collect();
    match result {
        Ok(detail) => Outcome::Passed { detail: cut(detail) },
        Err(reason) => Outcome::Failed { reason: cut(reason) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::worker::spoken::Spoken;
    use protocol::report::EventKind;
    use slots::{
        boot::Subject,
        state::{Held, StartId, Trial},
    };

    const POLICY: Policy = Policy::standard();

    fn release() -> Digest {
        Digest::of(b"r")
    }

    fn record(phase: &str) -> BootRecord {
        let held = Held { slot: Slot::B, release: release(), name: "r".into(), counter: 1 };
        let trial = Trial {
            held,
            rollout: 0,
            tries: 3,
            load_ms: 60_000,
            golden_ms: 60_000,
            probation_ms: 60_000,
        };
        let active = None;
        let (deadline, start) = (UnixMs(60_000), StartId::UNKNOWN);
        let state = match phase {
            "staging" => State::Staging { active, trial },
            "staged" => State::Staged { active, trial, deadline },
            "loaded" => State::Loaded { active, trial, deadline },
            "golden" => State::Golden { active, trial },
            "armed" => State::Armed { active, trial, since: UnixMs(1) },
            "probation" => {
                let (tries_left, refunds_left) = (1, 1);
                State::Probation { active, trial, tries_left, refunds_left, deadline, start }
            }
            _ => State::FACTORY,
        };
        let mut record = BootRecord { state, ..BootRecord::new(UnixMs(100)) };
        let subject = Subject { release: Some(release()), name: "r", rollout: 0 };
        record.remember(EventKind::Staged, subject, "", UnixMs(100));
        record
    }

    fn given(gate: Gate, at: u64) -> Verdict {
        let outcome = Outcome::Passed { detail: String::new() };
        Verdict { release: release(), gate, outcome, at: UnixMs(at) }
    }

    fn word(next: &Next) -> &'static str {
        match next {
            Next::Wait(_) => "wait",
            Next::Watch(due) => due.gate.as_str(),
        }
    }

    #[test]
    fn each_phase_has_its_gate_and_only_the_slot_on_trial_proves_itself() {
        let table = [
            ("steady", "wait", "wait"),
            ("staging", "wait", "wait"),
            ("staged", "load", "load"),
            ("loaded", "golden", "golden"),
            ("golden", "wait", "wait"),
            ("armed", "wait", "wait"),
            ("probation", "wait", "probation"),
        ];
        for (phase, from_a, from_b) in table {
            let record = record(phase);
            let of = |own| word(&next(&record, own, None, None));
            assert_eq!((of(None), of(Some(Slot::A))), (from_a, from_a), "{phase}");
            assert_eq!(of(Some(Slot::B)), from_b, "{phase}");
        }
    }

    #[test]
    fn a_gate_is_judged_once_in_each_trial() {
        let record = record("staged");
        let of = |verdict| word(&next(&record, None, Some(&verdict), None));
        assert_eq!(of(given(Gate::Load, 101)), "wait");
        assert_eq!(of(given(Gate::Golden, 101)), "load");
        // A verdict from before this trial of the same release.
        assert_eq!(of(given(Gate::Load, 99)), "load");
    }

    #[test]
    fn a_halt_stops_before_arming_and_nothing_else() {
        let halt = Halt {
            fleet: "demo".parse().unwrap(),
            sequence: 1,
            halted: true,
            releases: vec![release()],
            reason: "canary failed".into(),
        };
        let other = Halt { releases: vec![Digest::of(b"other")], ..halt.clone() };
        let lifted = Halt { halted: false, ..halt.clone() };
        let of = |phase, halt| next(&record(phase), Some(Slot::B), None, Some(halt));
        assert!(
            matches!(of("loaded", &halt), Next::Wait(words) if words.contains("canary failed"))
        );
        assert_eq!(word(&of("loaded", &other)), "golden");
        assert_eq!(word(&of("loaded", &lifted)), "golden");
        assert_eq!(word(&of("staged", &halt)), "load");
        assert_eq!(word(&of("probation", &halt)), "probation");
    }

    #[test]
    fn probation_wants_health_enough_answers_and_few_failures() {
        let seen = |ready, answered, failed, asked| {
            let outcome = probation(&Seen { ready, answered, failed, asked }, &POLICY);
            match outcome {
                None => "wait",
                Some(Outcome::Passed { .. }) => "passed",
                Some(Outcome::Failed { .. }) => "failed",
            }
        };
        assert_eq!(POLICY.probation_answers, 20);
        assert_eq!(seen(true, 19, 0, 0), "wait");
        assert_eq!(seen(true, 20, 0, 0), "passed");
        assert_eq!(seen(true, 0, 0, 24), "passed");
        assert_eq!(seen(false, 500, 0, 0), "wait");
        assert_eq!(seen(true, 0, 4, 0), "wait");
        assert_eq!(seen(true, 0, 5, 0), "failed");
        assert_eq!(seen(true, 49, 5, 0), "failed");
        assert_eq!(seen(true, 50, 5, 0), "passed");
    }

    #[test]
    fn a_worker_must_be_the_right_one_and_whole() {
        let worker = WorkerInfo {
            protocol: 2,
            release: Some(release()),
            pid: 1,
            device: "cpu".into(),
            threads: 1,
            memory_bytes: 1 << 30,
            start: 7,
            speaks: Spoken::OURS,
            names: Vec::new(),
            models: Vec::new(),
            broken: Vec::new(),
        };
        let manifest = Manifest {
            schema: 1,
            name: "r".into(),
            counter: 1,
            created: String::new(),
            agent_version: String::new(),
            requires: protocol::manifest::Requires {
                platform: String::new(),
                memory_bytes: 0,
                disk_bytes: 0,
            },
            policy: POLICY,
            files: Vec::new(),
        };
        assert_eq!(introduced(&worker, &release(), &manifest), Ok(()));
        let other = WorkerInfo { release: None, ..worker.clone() };
        assert!(introduced(&other, &release(), &manifest).is_err());
        let package = engine::worker::message::BrokenPackage {
            dir: "faq".into(),
            message: "no tokenizer".into(),
        };
        let broken = WorkerInfo { broken: vec![package], ..worker };
        let reason = introduced(&broken, &release(), &manifest).unwrap_err();
        assert!(reason.contains("faq") && reason.contains("no tokenizer"), "{reason}");
    }
}
