//! What to do about an assignment. Pure: the assignment, what the boot record says, and how far we were.

use protocol::{command::Desired, digest::Digest, verified::Verified};
use serde::{Deserialize, Serialize};
use slots::{boot::BootRecord, state::State};

/// How far this device went with its newest assignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// It was received.
    #[default]
    Received,
    /// It was accepted and is being fetched.
    Accepted,
    /// Everything is staged and the updater was asked.
    Requested,
    /// Nothing more is to be done about it.
    Closed,
}

/// What to do about an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it was dealt with, or is under way.
    Ignore,
    /// Nothing, and say so: the release is committed already.
    AlreadyThere,
    /// Say no, once.
    Refuse(String),
    /// Not now, but when the record or the halt changes.
    Wait(String),
    /// Fetch it.
    Fetch,
}

/// Decides about `desired`. `halted` is the controller's reason if a halt forbids this release.
pub fn decide(
    desired: &Verified<Desired>,
    progress: Progress,
    record: &BootRecord,
    halted: Option<&str>,
) -> Decision {
    let Desired { release, retry_quarantined, .. } = desired.get();
    match progress {
        Progress::Closed | Progress::Requested => return Decision::Ignore,
        Progress::Received | Progress::Accepted => {}
    }
    let committed = is(record.state.active().map(|held| &held.release), release);
    match record.state.trial() {
        None if committed => return Decision::AlreadyThere,
        Some(trial) if committed => return wait(release, &trial.held.name),
        Some(trial) if trial.held.release == *release => return Decision::Ignore,
        None | Some(_) => {}
    }
    if let Some(quarantined) = record.quarantined(release).filter(|_| !retry_quarantined) {
        return Decision::Refuse(format!(
            "release {} was given up on this device before ({}); assign it again by name to retry it",
            release.short(),
            quarantined.reason
        ));
    }
    if let Some(reason) = halted {
        return Decision::Wait(format!("release {} is halted: {reason}", release.short()));
    }
    match &record.state {
        State::Steady { .. }
        | State::Staged { .. }
        | State::Loaded { .. }
        | State::Golden { .. } => Decision::Fetch,
        // Its objects are being read, or it is too far to be replaced.
        State::Staging { trial, .. }
        | State::Armed { trial, .. }
        | State::Probation { trial, .. } => wait(release, &trial.held.name),
    }
}

fn wait(release: &Digest, trial: &str) -> Decision {
    Decision::Wait(format!("release {} waits until the trial of {trial} ends", release.short()))
}

fn is(held: Option<&Digest>, release: &Digest) -> bool {
    held == Some(release)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{
        command::{Reader, Signable},
        id::{DeviceId, FleetId, Slot},
        key::SigningKey,
        time::UnixMs,
    };
    use ring::rand::SystemRandom;
    use slots::{
        boot::Quarantined,
        state::{Held, StartId, Trial},
    };

    fn held(name: &str, slot: Slot) -> Held {
        Held { slot, release: Digest::of(name.as_bytes()), name: name.into(), counter: 1 }
    }

    fn trial(name: &str) -> Trial {
        Trial {
            held: held(name, Slot::B),
            rollout: 0,
            tries: 3,
            load_ms: 1000,
            golden_ms: 1000,
            probation_ms: 1000,
        }
    }

    fn wanted(name: &str, retry_quarantined: bool) -> Verified<Desired> {
        let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = SigningKey::from_pkcs8(&pkcs8).unwrap();
        let fleet: FleetId = "demo".parse().unwrap();
        let device = DeviceId::of(&key.public());
        let desired = Desired {
            fleet: fleet.clone(),
            device,
            sequence: 1,
            issued_at: UnixMs(0),
            expires_at: UnixMs(10),
            release: Digest::of(name.as_bytes()),
            manifest_bytes: 1,
            targets_version: 1,
            rollout: 0,
            retry_quarantined,
            permit: None,
        };
        let bytes = desired.signed_by(&key).unwrap();
        let keys = [key.public()];
        Reader { fleet: &fleet, device, controller_keys: &keys }
            .desired(&bytes, 0, UnixMs(1))
            .unwrap()
    }

    fn record(state: State) -> BootRecord {
        let bad = Quarantined {
            release: Digest::of(b"bad"),
            reason: "golden gate".into(),
            at: UnixMs(1),
        };
        BootRecord { state, quarantine: vec![bad], ..BootRecord::new(UnixMs(1)) }
    }

    fn word(decision: &Decision) -> &'static str {
        match decision {
            Decision::Ignore => "ignore",
            Decision::AlreadyThere => "there",
            Decision::Refuse(_) => "refuse",
            Decision::Wait(_) => "wait",
            Decision::Fetch => "fetch",
        }
    }

    #[test]
    fn every_phase_meets_every_kind_of_release() {
        let active = || Some(held("old", Slot::A));
        let on = || trial("trial");
        let states = [
            State::FACTORY,
            State::Steady { active: active() },
            State::Staging { active: active(), trial: on() },
            State::Staged { active: active(), trial: on(), deadline: UnixMs(9) },
            State::Loaded { active: active(), trial: on(), deadline: UnixMs(9) },
            State::Golden { active: active(), trial: on() },
            State::Armed { active: active(), trial: on(), since: UnixMs(9) },
            State::Probation {
                active: active(),
                trial: on(),
                tries_left: 1,
                refunds_left: 1,
                deadline: UnixMs(9),
                start: StartId::UNKNOWN,
            },
        ];
        let rows: Vec<String> = states
            .into_iter()
            .map(|state| {
                let record = record(state);
                let words = ["new", "old", "trial", "bad"].map(|name| {
                    word(&decide(&wanted(name, false), Progress::Received, &record, None))
                });
                format!("{}: {}", record.state.phase(), words.join(" "))
            })
            .collect();
        assert_eq!(
            rows,
            [
                "steady: fetch fetch fetch refuse",
                "steady: fetch there fetch refuse",
                "staging: wait wait ignore refuse",
                "staged: fetch wait ignore refuse",
                "loaded: fetch wait ignore refuse",
                "golden: fetch wait ignore refuse",
                "armed: wait wait ignore refuse",
                "probation: wait wait ignore refuse",
            ]
        );
    }

    #[test]
    fn what_was_dealt_with_is_not_done_again() {
        let record = record(State::FACTORY);
        for progress in [Progress::Requested, Progress::Closed] {
            assert_eq!(decide(&wanted("new", false), progress, &record, None), Decision::Ignore);
        }
        assert_eq!(
            decide(&wanted("new", false), Progress::Accepted, &record, None),
            Decision::Fetch
        );
    }

    #[test]
    fn a_halt_holds_a_release_back_and_a_named_retry_gives_a_bad_one_a_chance() {
        let record = record(State::FACTORY);
        let halted =
            decide(&wanted("new", false), Progress::Received, &record, Some("canary failed"));
        assert!(matches!(halted, Decision::Wait(words) if words.contains("canary failed")));
        assert_eq!(
            decide(&wanted("bad", true), Progress::Received, &record, None),
            Decision::Fetch
        );
        let refused = decide(&wanted("bad", false), Progress::Received, &record, None);
        assert!(matches!(refused, Decision::Refuse(words) if words.contains("golden gate")));
    }
}
