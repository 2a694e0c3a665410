//! What became of an assignment, from what its device said. Pure.

use protocol::{digest::Digest, report::EventKind, time::UnixMs};

use crate::waves::Status;

/// An assignment without a result.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Rollout it belongs to.
    pub rollout: u64,
    /// Release assigned.
    pub release: Digest,
    /// When it was assigned.
    pub at: UnixMs,
}

/// An event of the device that may decide it.
#[derive(Clone, Copy, Debug)]
pub struct Happened<'a> {
    /// [`EventKind::as_str`].
    pub kind: &'a str,
    /// Release it is about.
    pub release: Option<Digest>,
    /// Rollout it is about; 0 for none.
    pub rollout: u64,
    /// When it was stored.
    pub received_at: UnixMs,
    /// In words.
    pub detail: &'a str,
}

/// The result, if there is one. The newest event that is about this assignment decides; without any, the device's own
/// word that the release is its committed one.
pub fn outcome(
    open: Open,
    committed: Option<Digest>,
    events: &[Happened<'_>],
) -> Option<(Status, String)> {
    let decided = events
        .iter()
        .filter(|event| {
            event.release == Some(open.release)
                && (event.rollout == open.rollout || event.rollout == 0)
                && event.received_at >= open.at
        })
        .filter_map(|event| Some((decides(event.kind)?, event.detail.to_owned())))
        .next_back();
    decided.or_else(|| {
        (committed == Some(open.release))
            .then(|| (Status::Committed, "the device says that it runs it".to_owned()))
    })
}

fn decides(kind: &str) -> Option<Status> {
    [
        (EventKind::Committed, Status::Committed),
        (EventKind::RolledBack, Status::RolledBack),
        (EventKind::Refused, Status::Failed),
    ]
    .into_iter()
    .find(|(decisive, _)| decisive.as_str() == kind)
    .map(|(_, status)| status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMs = UnixMs(1000);

    fn release(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn happened(kind: EventKind, name: &str, rollout: u64, at: u64) -> Happened<'static> {
        Happened {
            kind: kind.as_str(),
            release: Some(release(name)),
            rollout,
            received_at: UnixMs(at),
            detail: "so it was",
        }
    }

    fn check(events: &[Happened<'_>], committed: Option<&str>, expected: Option<Status>) {
        let open = Open { rollout: 3, release: release("r"), at: AT };
        let got = outcome(open, committed.map(release), events);
        assert_eq!(got.map(|(status, _)| status), expected, "{events:?} {committed:?}");
    }

    #[test]
    fn the_newest_event_about_this_assignment_decides() {
        use EventKind::{Accepted, Armed, Committed, Refused, RolledBack};
        check(&[], None, None);
        check(&[happened(Accepted, "r", 3, 2000), happened(Armed, "r", 3, 2001)], None, None);
        check(&[happened(Committed, "r", 3, 2000)], None, Some(Status::Committed));
        check(&[happened(RolledBack, "r", 3, 2000)], None, Some(Status::RolledBack));
        check(&[happened(Refused, "r", 3, 2000)], None, Some(Status::Failed));
        check(&[happened(Refused, "r", 0, 2000)], None, Some(Status::Failed));
        check(
            &[happened(RolledBack, "r", 3, 2000), happened(Committed, "r", 3, 2001)],
            None,
            Some(Status::Committed),
        );
    }

    #[test]
    fn what_is_about_something_else_decides_nothing() {
        use EventKind::RolledBack;
        check(&[happened(RolledBack, "other", 3, 2000)], None, None);
        check(&[happened(RolledBack, "r", 2, 2000)], None, None);
        check(&[happened(RolledBack, "r", 3, 999)], None, None);
        check(&[], Some("other"), None);
    }

    #[test]
    fn a_device_that_runs_the_release_has_committed_it() {
        check(&[], Some("r"), Some(Status::Committed));
        let refused = [happened(EventKind::Refused, "r", 3, 2000)];
        check(&refused, Some("r"), Some(Status::Failed));
    }
}
