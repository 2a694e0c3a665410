//! Cases of the planner as a table, and whole rollouts with random devices.

use proptest::prelude::*;

use super::*;
use crate::waves::Wave;

const NOW: UnixMs = UnixMs(10_000_000);
const TIMEOUT_S: u64 = 600;

fn policy(waves: &[(&str, Size)], success_percent: u8, min_sample: u32) -> Policy {
    let waves =
        waves.iter().map(|(name, size)| Wave { name: (*name).to_owned(), size: *size }).collect();
    Policy { waves, gate: Gate { success_percent, min_sample, timeout_s: TIMEOUT_S } }
}

fn canary_rest() -> Policy {
    policy(&[("canary", Size::Devices(1)), ("rest", Size::Percent(100))], 100, 1)
}

fn rollout(policy: &Policy) -> Rollout<'_> {
    Rollout { id: 1, release: Digest::of(b"release"), policy, phase: Phase::Running }
}

/// Devices in the order of `rollout`, so that cases can name them by number.
fn fleet(rollout: &Rollout<'_>, size: usize) -> Vec<Member> {
    let mut fleet: Vec<Member> = (0..size)
        .map(|number| Member {
            id: DeviceId::from(Digest::of(&number.to_be_bytes())),
            online: true,
            last_seen: Some(NOW),
            assigned: None,
        })
        .collect();
    fleet.sort_by_cached_key(|member| seeded(rollout, member.id));
    fleet
}

fn with(member: &Member, wave: usize, status: Status) -> Member {
    Member { assigned: Some(Assigned { wave, at: NOW, status }), ..member.clone() }
}

fn unreachable(member: &Member) -> Member {
    Member { online: false, last_seen: None, ..member.clone() }
}

fn assigned(decisions: &[Decision]) -> Vec<(DeviceId, usize)> {
    decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Assign { device, wave } => Some((*device, *wave)),
            Decision::GiveUp { .. } | Decision::Halt { .. } | Decision::Complete => None,
        })
        .collect()
}

fn halts(decisions: &[Decision]) -> bool {
    decisions.iter().any(|decision| matches!(decision, Decision::Halt { .. }))
}

#[test]
fn the_first_wave_takes_only_its_own() {
    let policy = canary_rest();
    let rollout = rollout(&policy);
    let fleet = fleet(&rollout, 3);
    assert_eq!(assigned(&plan(&rollout, &fleet, NOW)), [(fleet[0].id, 0)]);
}

#[test]
fn the_second_wave_waits_for_the_gate_of_the_first() {
    let policy = canary_rest();
    let rollout = rollout(&policy);
    let mut fleet = fleet(&rollout, 3);
    fleet[0] = with(&fleet[0], 0, Status::Assigned);
    assert_eq!(plan(&rollout, &fleet, NOW), []);
    fleet[0] = with(&fleet[0], 0, Status::Committed);
    let next = assigned(&plan(&rollout, &fleet, NOW));
    assert_eq!(next, [(fleet[1].id, 1), (fleet[2].id, 1)]);
}

#[test]
fn a_bad_release_stops_at_the_canary() {
    let policy = canary_rest();
    let rollout = rollout(&policy);
    for status in [Status::Failed, Status::RolledBack, Status::TimedOut] {
        let mut fleet = fleet(&rollout, 3);
        fleet[0] = with(&fleet[0], 0, status);
        let decisions = plan(&rollout, &fleet, NOW);
        let [Decision::Halt { reason }] = decisions.as_slice() else { panic!("{decisions:?}") };
        assert!(reason.contains("canary") && reason.contains("1 of 1"), "{reason}");
    }
}

#[test]
fn all_committed_is_complete() {
    let policy = canary_rest();
    let rollout = rollout(&policy);
    let mut fleet = fleet(&rollout, 3);
    fleet[0] = with(&fleet[0], 0, Status::Committed);
    fleet[1] = with(&fleet[1], 1, Status::Committed);
    fleet[2] = with(&fleet[2], 1, Status::Assigned);
    assert_eq!(plan(&rollout, &fleet, NOW), []);
    fleet[2] = with(&fleet[2], 1, Status::Committed);
    assert_eq!(plan(&rollout, &fleet, NOW), [Decision::Complete]);
}

#[test]
fn a_device_that_is_not_heard_of_neither_blocks_nor_counts() {
    let policy = canary_rest();
    let rollout = rollout(&policy);
    let mut fleet = fleet(&rollout, 3);
    // It would be the canary, but is away: the next one is.
    fleet[0] = unreachable(&fleet[0]);
    assert_eq!(assigned(&plan(&rollout, &fleet, NOW)), [(fleet[1].id, 0)]);
    // It does not hold up the end either.
    fleet[1] = with(&fleet[1], 0, Status::Committed);
    fleet[2] = with(&fleet[2], 1, Status::Committed);
    assert_eq!(plan(&rollout, &fleet, NOW), [Decision::Complete]);
    // And when it comes back it joins through the last gate.
    fleet[0].online = true;
    let standing = Rollout { phase: Phase::Standing, ..rollout };
    assert_eq!(assigned(&plan(&standing, &fleet, NOW)), [(fleet[0].id, 1)]);
}

#[test]
fn silence_after_an_assignment_is_told_apart() {
    let policy = canary_rest();
    let rollout = rollout(&policy);
    let mut fleet = fleet(&rollout, 2);
    let late = NOW.plus(TIMEOUT_S * 1000);
    fleet[0] = with(&fleet[0], 0, Status::Assigned);
    let timed_out = Decision::GiveUp { device: fleet[0].id, status: Status::TimedOut };
    let heard = plan(&rollout, &fleet, late);
    assert_eq!(heard[0], timed_out);
    assert!(halts(&heard), "{heard:?}");
    // Gone since it was assigned: another canary is taken.
    fleet[0].online = false;
    let gone = plan(&rollout, &fleet, late);
    assert_eq!(gone[0], Decision::GiveUp { device: fleet[0].id, status: Status::Unreachable });
    assert_eq!(assigned(&gone), [(fleet[1].id, 0)]);
    // One millisecond earlier nothing is decided.
    assert_eq!(plan(&rollout, &fleet, UnixMs(late.0 - 1)), []);
}

#[test]
fn a_gate_that_can_still_be_passed_does_not_halt() {
    let policy = policy(&[("first", Size::Percent(40)), ("rest", Size::Percent(100))], 75, 2);
    let rollout = rollout(&policy);
    let mut fleet = fleet(&rollout, 10);
    assert_eq!(assigned(&plan(&rollout, &fleet, NOW)).len(), 4);
    for (number, status) in
        [Status::RolledBack, Status::Assigned, Status::Assigned, Status::Assigned]
            .into_iter()
            .enumerate()
    {
        fleet[number] = with(&fleet[number], 0, status);
    }
    assert_eq!(plan(&rollout, &fleet, NOW), []);
    fleet[1] = with(&fleet[1], 0, Status::Failed);
    assert!(halts(&plan(&rollout, &fleet, NOW)));
    fleet[1] = with(&fleet[1], 0, Status::Committed);
    fleet[2] = with(&fleet[2], 0, Status::Committed);
    fleet[3] = with(&fleet[3], 0, Status::Committed);
    assert_eq!(assigned(&plan(&rollout, &fleet, NOW)).len(), 6);
}

#[test]
fn a_wave_waits_for_its_sample() {
    let policy = policy(&[("two", Size::Devices(2)), ("rest", Size::Percent(100))], 100, 2);
    let rollout = rollout(&policy);
    let mut fleet = fleet(&rollout, 2);
    fleet[0] = with(&fleet[0], 0, Status::Committed);
    fleet[1] = unreachable(&fleet[1]);
    assert_eq!(plan(&rollout, &fleet, NOW), []);
}

#[test]
fn an_empty_fleet_completes_nothing() {
    for policy in [canary_rest(), policy(&[("all", Size::Percent(100))], 100, 1)] {
        assert_eq!(plan(&rollout(&policy), &[], NOW), []);
    }
}

#[test]
fn a_fleet_of_one_completes_with_its_canary() {
    let policy = canary_rest();
    let rollout = rollout(&policy);
    let mut fleet = fleet(&rollout, 1);
    fleet[0] = with(&fleet[0], 0, Status::Committed);
    assert_eq!(plan(&rollout, &fleet, NOW), [Decision::Complete]);
}

#[test]
fn who_joins_does_not_open_a_passed_wave_again() {
    let policy = policy(&[("tenth", Size::Percent(10)), ("rest", Size::Percent(100))], 100, 1);
    let rollout = rollout(&policy);
    let mut fleet = fleet(&rollout, 30);
    fleet[0] = with(&fleet[0], 0, Status::Committed);
    fleet[1] = with(&fleet[1], 1, Status::Assigned);
    let next = assigned(&plan(&rollout, &fleet, NOW));
    assert_eq!(next.len(), 28);
    assert!(next.iter().all(|(_, wave)| *wave == 1));
}

#[test]
fn the_forecast_shows_who_comes_when() {
    let policy = canary_rest();
    let rollout = rollout(&policy);
    let mut fleet = fleet(&rollout, 3);
    let shown = forecast(&rollout, &fleet, NOW);
    assert_eq!(shown[0], (WaveState::Running, vec![fleet[0].id]));
    assert_eq!(shown[1], (WaveState::Pending, vec![fleet[1].id, fleet[2].id]));
    fleet[0] = with(&fleet[0], 0, Status::RolledBack);
    let shown = forecast(&rollout, &fleet, NOW);
    assert_eq!(shown[0].0, WaveState::Failed);
    assert_eq!(shown[1], (WaveState::Pending, vec![fleet[1].id, fleet[2].id]));
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Commits,
    RollsBack,
    Silent,
    Away,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Commits),
        1 => Just(Fate::RollsBack),
        1 => Just(Fate::Silent),
        1 => Just(Fate::Away),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    (1_u32..5, 1_u8..100, 1_u8..=100, 1_u32..5).prop_map(|(devices, percent, success, sample)| {
        let waves = [
            ("canary", Size::Devices(devices)),
            ("some", Size::Percent(percent)),
            ("rest", Size::Percent(100)),
        ];
        policy(&waves, success, sample)
    })
}

/// What the gate says of a wave that is over, written down another way than the planner does.
fn gate_holds(policy: &Policy, fleet: &[Member], wave: usize) -> bool {
    let of = |wanted: &[Status]| {
        fleet
            .iter()
            .filter_map(|member| member.assigned)
            .filter(|assigned| assigned.wave == wave && wanted.contains(&assigned.status))
            .count()
    };
    let good = of(&[Status::Committed]);
    let bad = of(&[Status::Failed, Status::RolledBack, Status::TimedOut]);
    of(&[Status::Assigned]) == 0
        && good * 100 >= usize::from(policy.gate.success_percent) * (good + bad)
}

proptest! {
    #[test]
    fn every_rollout_ends_and_no_wave_opens_before_the_gate(
        policy in policies(),
        fates in prop::collection::vec(fate(), 0..25),
    ) {
        prop_assume!(policy.check().is_ok());
        let rollout = rollout(&policy);
        let mut fleet = fleet(&rollout, fates.len());
        for (member, fate) in fleet.iter_mut().zip(&fates) {
            if matches!(fate, Fate::Away) {
                *member = unreachable(member);
            }
        }
        let mut now = NOW;
        let mut ended = None;
        for _ in 0..200 {
            let decisions = plan(&rollout, &fleet, now);
            for decision in &decisions {
                prop_assert!(ended.is_none(), "{decision:?} after the end");
                match decision {
                    Decision::Assign { device, wave } => {
                        let member = fleet.iter_mut().find(|member| member.id == *device).unwrap();
                        prop_assert!(member.assigned.is_none(), "assigned twice");
                        prop_assert!(member.online, "assigned though it is away");
                        member.assigned =
                            Some(Assigned { wave: *wave, at: now, status: Status::Assigned });
                        for earlier in 0..*wave {
                            prop_assert!(gate_holds(&policy, &fleet, earlier));
                        }
                    }
                    Decision::GiveUp { device, status } => {
                        let member = fleet.iter_mut().find(|member| member.id == *device).unwrap();
                        member.assigned.as_mut().unwrap().status = *status;
                    }
                    Decision::Halt { .. } | Decision::Complete => ended = Some(decision.clone()),
                }
            }
            if ended.is_some() {
                break;
            }
            now = now.plus(1000 * TIMEOUT_S / 2);
            for (member, fate) in fleet.iter_mut().zip(&fates) {
                let Some(assigned) = &mut member.assigned else { continue };
                if assigned.status == Status::Assigned {
                    match fate {
                        Fate::Commits => assigned.status = Status::Committed,
                        Fate::RollsBack => assigned.status = Status::RolledBack,
                        Fate::Silent | Fate::Away => {}
                    }
                }
            }
        }
        let wave_of = |member: &Member| member.assigned.map(|assigned| assigned.wave);
        let statuses = || fleet.iter().filter_map(|member| member.assigned);
        match ended {
            Some(Decision::Complete) => {
                let reachable = fleet.iter().filter(|member| member.online);
                prop_assert!(reachable.clone().all(|member| member.assigned.is_some()));
                prop_assert!((0..3).all(|wave| gate_holds(&policy, &fleet, wave)));
            }
            Some(Decision::Halt { .. }) => {
                let newest = fleet.iter().filter_map(wave_of).max().unwrap();
                let open = statuses().any(|assigned| assigned.status == Status::Assigned);
                prop_assert!(open || !gate_holds(&policy, &fleet, newest));
            }
            _ => {
                // Only a wave that waits for a larger sample than there are reachable devices is still open.
                let reachable = fleet.iter().filter(|member| member.online).count();
                prop_assert!(reachable < 5 + 4, "{reachable} reachable devices and no end");
                prop_assert!(statuses().all(|assigned| assigned.status != Status::Assigned));
            }
        }
    }
}
