//! From what the boot record remembers to events for the controller: each happening once. Pure.
//!
//! The record numbers its happenings, and the highest number reported is the outbox's mark, so that no restart says a
//! thing twice or leaves one out.

use protocol::{
    handover::{Gate, Outcome, Verdict},
    report::{Event, EventKind},
};
use slots::boot::{BootRecord, Happening};

/// The events not yet reported, oldest first, each with the mark to keep with it. `reported` is the mark of the last
/// one; `verdict` is what this gateway last wrote, whose words say more than the record has room for.
pub fn unreported(
    record: &BootRecord,
    reported: u64,
    verdict: Option<&Verdict>,
) -> Vec<(u64, Event)> {
    record
        .history
        .iter()
        .filter(|happening| happening.sequence > reported && !told_by_the_link(happening.kind))
        .map(|happening| (happening.sequence, event(happening, verdict)))
        .collect()
}

/// The link itself says what it fetched, with figures.
fn told_by_the_link(kind: EventKind) -> bool {
    matches!(kind, EventKind::Fetched)
}

fn event(happening: &Happening, verdict: Option<&Verdict>) -> Event {
    let words = verdict
        .filter(|verdict| Some(verdict.release) == happening.release)
        .and_then(|verdict| words(happening, verdict));
    let known = if happening.detail.is_empty() { None } else { Some(happening.detail.as_str()) };
    let detail = match (words, known) {
        (Some(words), _) => format!("{}: {words}", happening.name),
        (None, Some(detail)) if happening.name.is_empty() => detail.to_owned(),
        (None, Some(detail)) => format!("{}: {detail}", happening.name),
        (None, None) => happening.name.clone(),
    };
    Event { kind: happening.kind, release: happening.release, rollout: happening.rollout, detail }
}

/// The words of a verdict that led to this happening.
fn words<'a>(happening: &Happening, verdict: &'a Verdict) -> Option<&'a str> {
    match (happening.kind, &verdict.outcome, verdict.gate) {
        (EventKind::Loaded, Outcome::Passed { detail }, Gate::Load)
        | (EventKind::Golden, Outcome::Passed { detail }, Gate::Golden)
        | (EventKind::Committed, Outcome::Passed { detail }, Gate::Probation) => Some(detail),
        (
            EventKind::RolledBack,
            Outcome::Failed { reason },
            Gate::Load | Gate::Golden | Gate::Probation,
        ) => Some(reason),
        (_, Outcome::Passed { .. } | Outcome::Failed { .. }, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{digest::Digest, time::UnixMs};
    use slots::boot::Subject;

    fn record(kinds: &[EventKind]) -> BootRecord {
        let mut record = BootRecord::new(UnixMs(1000));
        for kind in kinds {
            let subject = Subject { release: Some(Digest::of(b"r")), name: "r2", rollout: 7 };
            record.remember(*kind, subject, "", UnixMs(2000));
        }
        record
    }

    #[test]
    fn each_happening_is_said_once_and_in_order() {
        use EventKind::{Armed, Fetched, Golden, Loaded, Staged};
        let record = record(&[Fetched, Staged, Loaded, Golden, Armed]);
        let all = unreported(&record, 0, None);
        let kinds: Vec<_> = all.iter().map(|(_, event)| event.kind).collect();
        assert_eq!(kinds, [Staged, Loaded, Golden, Armed]);
        assert!(all.iter().all(|(_, event)| event.rollout == 7 && event.detail == "r2"));
        // After any of them was kept, only the later ones are left.
        for (at, (mark, _)) in all.iter().enumerate() {
            assert_eq!(unreported(&record, *mark, None), all[at + 1..]);
        }
    }

    #[test]
    fn the_verdict_lends_its_words_to_what_it_led_to() {
        let verdict = Verdict {
            release: Digest::of(b"r"),
            gate: Gate::Golden,
            outcome: Outcome::Failed { reason: "faq: 9 of 24 golden answers were wrong".into() },
            at: UnixMs(1),
        };
        let record = record(&[EventKind::Loaded, EventKind::RolledBack]);
        let events = unreported(&record, 0, Some(&verdict));
        assert_eq!(events[0].1.detail, "r2");
        assert_eq!(events[1].1.detail, "r2: faq: 9 of 24 golden answers were wrong");
    }
}
