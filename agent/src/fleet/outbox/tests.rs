//! What the outbox promises, on a disk that loses power.

use super::*;
use proptest::prelude::*;
use slots::crash_disk::CrashDisk;

const SMALL: Limits = Limits { reports_max: 4, bytes_max: 4000, block: 3 };

fn open(disk: CrashDisk, limits: Limits) -> Outbox<CrashDisk> {
    let (outbox, damaged) = Outbox::open(disk, PathBuf::from("/outbox"), limits).unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    outbox
}

fn sequences(outbox: &Outbox<CrashDisk>) -> Vec<u64> {
    outbox.waiting.keys().copied().collect()
}

fn channels(outbox: &Outbox<CrashDisk>) -> Vec<Channel> {
    outbox.waiting.values().map(|entry| entry.channel).collect()
}

#[test]
fn reports_wait_until_they_are_acknowledged() {
    let mut outbox = open(CrashDisk::new(), SMALL);
    for text in [b"a", b"b", b"c"] {
        outbox.push(Channel::Event, text.to_vec(), None).unwrap();
    }
    assert_eq!(sequences(&outbox), [1, 2, 3]);
    outbox.acknowledge(&[2, 99]).unwrap();
    let mut again = open(outbox.disk.copy(), SMALL);
    assert_eq!(sequences(&again), [1, 3]);
    assert_eq!(again.waiting[&1].report.as_slice(), b"a");
    // A new process never uses a number of the last one, not even an acknowledged one.
    assert_eq!(again.push(Channel::Event, vec![0], None).unwrap(), Pushed::Waits(4));
}

#[test]
fn what_was_never_sent_goes_before_what_nobody_acknowledges() {
    let mut outbox = open(CrashDisk::new(), Limits { reports_max: 9, ..SMALL });
    for channel in [Channel::Event, Channel::Tele, Channel::Event, Channel::Event] {
        outbox.push(channel, vec![0], None).unwrap();
    }
    let next = |class, turns: &[(u64, u64)], under_way: &[u64], count| -> Vec<u64> {
        let under_way = under_way.iter().copied().collect();
        let sent = Sent { under_way, turns: turns.iter().copied().collect() };
        outbox.next(class, &sent, count).iter().map(|entry| entry.sequence).collect()
    };
    assert_eq!(next(Class::Event, &[], &[], 9), [1, 3, 4]);
    assert_eq!(next(Class::Event, &[(1, 1), (3, 2)], &[], 2), [4, 1]);
    assert_eq!(next(Class::Event, &[(1, 3), (3, 2), (4, 4)], &[4], 9), [3, 1]);
    assert_eq!(next(Class::Other, &[], &[], 9), [2]);
}

#[test]
fn a_full_outbox_drops_telemetry_first_and_events_never() {
    let mut outbox = open(CrashDisk::new(), SMALL);
    for channel in [Channel::Tele, Channel::Event, Channel::Tele, Channel::State] {
        outbox.push(channel, vec![0; 10], None).unwrap();
    }
    outbox.push(Channel::Event, vec![0; 10], None).unwrap();
    assert_eq!(sequences(&outbox), [2, 3, 4, 5]);
    outbox.push(Channel::Event, vec![0; 10], None).unwrap();
    outbox.push(Channel::Event, vec![0; 10], None).unwrap();
    assert_eq!(channels(&outbox), [Channel::Event; 4]);
    assert_eq!(outbox.dropped(), 3);
    assert_eq!(outbox.push(Channel::Tele, vec![0], None).unwrap(), Pushed::Dropped);
    let refused = outbox.push(Channel::Event, vec![0], None);
    assert!(matches!(refused, Err(OutboxError::Full { reports: 4 })));
    assert_eq!(channels(&open(outbox.disk.copy(), SMALL)), [Channel::Event; 4]);
    assert_eq!(open(outbox.disk.copy(), SMALL).dropped(), 4);
    outbox.acknowledge(&[2]).unwrap();
    outbox.push(Channel::Event, vec![0], None).unwrap();
}

#[test]
fn bytes_are_bounded_too_and_what_is_too_large_is_refused() {
    let mut outbox = open(CrashDisk::new(), SMALL);
    outbox.push(Channel::Tele, vec![0; 2500], None).unwrap();
    outbox.push(Channel::Event, vec![0; 2500], None).unwrap();
    assert_eq!(channels(&outbox), [Channel::Event]);
    let large = outbox.push(Channel::Event, vec![0; REPORT_BYTES_MAX + 1], None);
    assert!(matches!(large, Err(OutboxError::TooLarge(_))));
    let presence = outbox.push(Channel::Presence, vec![0], None);
    assert!(matches!(presence, Err(OutboxError::Presence)));
}

#[test]
fn only_the_newest_state_waits() {
    let mut outbox = open(CrashDisk::new(), SMALL);
    for _ in 0..3 {
        outbox.push(Channel::State, vec![0], None).unwrap();
    }
    assert_eq!(sequences(&outbox), [3]);
    assert_eq!(outbox.dropped(), 0);
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut outbox = open(CrashDisk::new(), SMALL);
    outbox.push(Channel::Event, vec![0; 100], None).unwrap();
    outbox.disk.set_capacity_bytes(outbox.disk.used_bytes());
    let refused = outbox.push(Channel::Event, vec![0; 100], None);
    assert!(matches!(refused, Err(OutboxError::Disk { .. })), "{refused:?}");
    outbox.acknowledge(&[1]).unwrap();
    outbox.disk.heal();
    outbox.push(Channel::Event, vec![0; 100], None).unwrap();
    assert_eq!(outbox.len(), 1);
}

#[test]
fn a_damaged_file_is_named_and_the_rest_goes_on() {
    let mut outbox = open(CrashDisk::new(), SMALL);
    for mark in [b"x", b"y"] {
        outbox.push(Channel::Event, vec![7; 50], Some(mark)).unwrap();
    }
    outbox.disk.write_at(&outbox.path(1), 0, &[0xff; 4]).unwrap();
    let (again, damaged) = Outbox::open(outbox.disk, "/outbox".into(), SMALL).unwrap();
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].name, "0000000000000001.report");
    assert_eq!((sequences(&again), again.mark()), (vec![2], b"y".as_slice()));
}

/// A history of pushes and acknowledgements, the power cut at every operation and every subset of what was not
/// synced kept: acknowledged pushes are there, marks and their reports stand or fall together, numbers are new.
#[test]
fn a_power_cut_at_any_point_loses_no_event_and_repeats_no_number() {
    let states = cut_everywhere(None).unwrap();
    assert!(states > 200, "only {states} states");
}

#[test]
fn every_sync_that_is_left_out_is_noticed() {
    let whole = history(CrashDisk::new()).unwrap();
    let syncs = whole.disk.syncs();
    assert!(syncs > 12, "only {syncs} syncs");
    let unnoticed: Vec<usize> =
        (0..syncs).filter(|number| cut_everywhere(Some(*number)).is_ok()).collect();
    // These two name the head that reserves a block; the folder is synced again with the report that follows, and
    // until then no number of the block was given out.
    assert_eq!(unnoticed, [2, 12], "of {syncs} syncs");
}

/// How many states were found, all of them as they should be.
fn cut_everywhere(skipped_sync: Option<usize>) -> Result<usize, String> {
    let mut states = 0;
    for cut in 0.. {
        let disk = CrashDisk::new();
        if let Some(number) = skipped_sync {
            disk.skip_sync(number);
        }
        disk.cut_after(cut);
        let Some(kept) = history(disk) else { continue };
        for found in kept.disk.after_power_cut(cut as u64) {
            states += 1;
            found_as_it_should_be(found, &kept).map_err(|why| format!("cut {cut}: {why}"))?;
        }
        if kept.whole {
            break;
        }
    }
    Ok(states)
}

fn found_as_it_should_be(found: CrashDisk, kept: &Kept) -> Result<(), String> {
    let limits = Limits { reports_max: 100, ..SMALL };
    let opened = Outbox::open(found, PathBuf::from("/outbox"), limits);
    let (mut outbox, damaged) = opened.map_err(|error| error.to_string())?;
    if !damaged.is_empty() {
        return Err(format!("damaged: {damaged:?}"));
    }
    let waiting = sequences(&outbox);
    if let Some(lost) = kept.must_wait.iter().find(|sequence| !waiting.contains(sequence)) {
        return Err(format!("{lost} is lost of {waiting:?}"));
    }
    let mark = outbox.mark().first().copied().unwrap_or(0);
    if mark < kept.mark {
        return Err(format!("mark {mark} is older than {}", kept.mark));
    }
    if mark > kept.mark && waiting.len() <= kept.must_wait.len() {
        return Err(format!("mark {mark} without its report"));
    }
    match outbox.push(Channel::Event, vec![0], None) {
        Ok(Pushed::Waits(new)) if kept.used.iter().all(|old| new > *old) => Ok(()),
        other => Err(format!("{other:?} after {:?}", kept.used)),
    }
}

struct Kept {
    disk: CrashDisk,
    must_wait: Vec<u64>,
    used: Vec<u64>,
    mark: u8,
    whole: bool,
}

/// Five marked events, acknowledged two by two, until the disk loses power.
fn history(disk: CrashDisk) -> Option<Kept> {
    let (mut outbox, _) = Outbox::open(disk, PathBuf::from("/outbox"), SMALL).ok()?;
    let (mut must_wait, mut used, mut mark, mut whole) = (vec![], vec![], 0, true);
    for step in 1..=5_u8 {
        match outbox.push(Channel::Event, vec![step; 600], Some(&[step])) {
            Ok(Pushed::Waits(sequence)) => {
                must_wait.push(sequence);
                used.push(sequence);
                mark = step;
            }
            Ok(Pushed::Dropped) => panic!("an event was dropped"),
            Err(_) => whole = false,
        }
        if step % 2 == 0 && whole {
            whole = outbox.acknowledge(&std::mem::take(&mut must_wait)).is_ok();
        }
    }
    Some(Kept { disk: outbox.disk, must_wait, used, mark, whole })
}

proptest! {
    #[test]
    fn any_history_keeps_the_bounds(steps in proptest::collection::vec((0..4_u8, 0..2000_usize), 0..60)) {
        let mut outbox = open(CrashDisk::new(), SMALL);
        let mut events = BTreeSet::new();
        for (kind, size) in steps {
            match kind {
                0 => drop(outbox.push(Channel::Tele, vec![0; size], None)),
                1 => drop(outbox.push(Channel::State, vec![0; size], None)),
                2 => if let Ok(Pushed::Waits(at)) = outbox.push(Channel::Event, vec![0; size], None) {
                    events.insert(at);
                },
                _ => if let Some(first) = events.pop_first() {
                    outbox.acknowledge(&[first]).unwrap();
                },
            }
            prop_assert!(outbox.len() <= SMALL.reports_max);
            prop_assert!(outbox.bytes <= SMALL.bytes_max);
            let waiting = sequences(&outbox);
            prop_assert!(events.iter().all(|event| waiting.contains(event)));
        }
        prop_assert_eq!(sequences(&open(outbox.disk.copy(), SMALL)), sequences(&outbox));
    }
}
