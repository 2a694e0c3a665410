//! The boot record: a preallocated file of two 4 KiB copies, written in turn; the newest whole one counts.
//!
//! A copy is `SOCLEBR` and the version of the format, generation (u64 LE), length (u32 LE), SHA-256 over those and the
//! payload, payload (CBOR), zeros up to 4096. Writing never allocates, so a full disk cannot stop a rollback.
//!
//! A record of an older version is read and goes on as one of this version: the next write goes over the other copy, so
//! the old one stays until the write after that. A record of a newer version is never written over.

use std::{io, path::PathBuf};

use protocol::{cbor, digest::Hasher, time::UnixMs};

use crate::{
    boot::BootRecord,
    disk::{self, Disk},
    install,
    layout::StateDir,
    record_v1,
    state::Event,
    transition::{Effect, Refused},
};

/// Size of one copy, in bytes.
pub const COPY_BYTES: usize = 4096;
const MAGIC: &[u8; 7] = b"SOCLEBR";
/// The version of the format that is written.
pub const VERSION: u8 = b'2';
const VERSION_1: u8 = b'1';
const HEADER_BYTES: usize = 8 + 8 + 4 + 32;
/// Largest encoded record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = COPY_BYTES - HEADER_BYTES;

/// A record and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The record.
    pub record: BootRecord,
    /// Its generation; 0 when it is not on the disk yet.
    pub generation: u64,
    /// How it was found.
    pub source: Source,
}

/// How a record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Both copies are whole.
    Whole,
    /// One copy is whole; a power cut tore the other, or it was never written.
    OneCopy,
    /// There is no record and no stamped slot: a machine that never had a release.
    Fresh,
    /// Neither copy is whole: made anew from the stamped slot or the factory slot, with an alarm in it.
    Recovered,
    /// The disk does not give a copy back: what it may hold is not written over. The record is the other copy, or made
    /// anew.
    Unreadable,
    /// The newest copy is of this newer version of the format, and is not written over. The record is made anew.
    Newer(u8),
}

/// Why a record cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be written.
    #[error("writing boot record {path}; check that the disk is mounted read-write and healthy")]
    Write {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read, so it is not written over.
    #[error(
        "boot record {path} cannot be read from the disk, and is left as it is; the committed release runs, updates wait; check the disk"
    )]
    Unreadable {
        /// File.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "boot record {path} has format {found}, this program knows up to {VERSION_TEXT}; the committed release runs, updates wait; install the socle package that goes with the newer release"
    )]
    Newer {
        /// File.
        path: PathBuf,
        /// Its version.
        found: char,
    },
    /// The value does not fit. Bounded fields make this a mistake of ours.
    #[error("boot record of {0} bytes does not fit into {PAYLOAD_BYTES_MAX}")]
    TooLarge(usize),
    /// The value cannot be encoded.
    #[error("encoding the boot record")]
    Encode(#[source] cbor::EncodeError),
    /// The event changes nothing.
    #[error("the boot record stays as it is")]
    Refused(#[source] Refused),
}

const VERSION_TEXT: char = VERSION as char;

/// What one copy holds.
enum Copy {
    Whole(u64, Box<BootRecord>),
    Newer(u64, u8),
}

impl Copy {
    const fn generation(&self) -> u64 {
        match self {
            Self::Whole(generation, _) | Self::Newer(generation, _) => *generation,
        }
    }
}

impl Loaded {
    /// Holds unless writing would destroy what another program, or a healthier disk, may still read.
    pub fn may_be_replaced(&self, dir: &StateDir) -> Result<(), RecordError> {
        let path = dir.record();
        match self.source {
            Source::Unreadable => Err(RecordError::Unreadable { path }),
            Source::Newer(version) => Err(RecordError::Newer { path, found: version.into() }),
            Source::Whole | Source::OneCopy | Source::Fresh | Source::Recovered => Ok(()),
        }
    }
}

/// The record as it stands on the disk. Never fails: what cannot be read is as good as lost.
pub fn load(disk: &dyn Disk, dir: &StateDir, now: UnixMs) -> Loaded {
    let path = dir.record();
    let (mut missing, mut unreadable, mut copies) = (false, false, Vec::new());
    for offset in [0, COPY_BYTES] {
        match disk.read_at(&path, offset as u64, COPY_BYTES) {
            Ok(bytes) => copies.extend(parse(&bytes, now)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = true,
            Err(_) => unreadable = true,
        }
    }
    let whole = copies.len();
    let found = |record, generation, source| {
        let source = if unreadable { Source::Unreadable } else { source };
        Loaded { record, generation, source }
    };
    match copies.into_iter().max_by_key(Copy::generation) {
        Some(Copy::Whole(generation, record)) => {
            let source = if whole == 2 { Source::Whole } else { Source::OneCopy };
            found(*record, generation, source)
        }
        Some(Copy::Newer(generation, version)) => {
            let record = BootRecord::recovered(install::stamped(disk, dir), now);
            found(record, generation, Source::Newer(version))
        }
        None => {
            let stamped = install::stamped(disk, dir);
            if missing && !unreadable && stamped.is_none() {
                return found(BootRecord::new(now), 0, Source::Fresh);
            }
            found(BootRecord::recovered(stamped, now), 0, Source::Recovered)
        }
    }
}

/// Makes the record durable as it is read now. Whoever wrote it may have been stopped before it was; who acts on it, or
/// tells others of it, waits for this. A disk that refuses says so at the next write.
pub fn settle(disk: &dyn Disk, dir: &StateDir) {
    let path = dir.record();
    if matches!(disk.length(&path), Ok(Some(_))) {
        drop(disk.sync_data(&path).and_then(|()| disk.sync_dir(&dir.boot())));
    }
}

/// Writes `record` in place of what was `loaded`, durably, over the older copy. The caller holds the record's lock since
/// it loaded. Returns the new generation.
pub fn save(
    disk: &dyn Disk,
    dir: &StateDir,
    record: &BootRecord,
    loaded: &Loaded,
) -> Result<u64, RecordError> {
    let path = dir.record();
    loaded.may_be_replaced(dir)?;
    let next = loaded.generation.saturating_add(1);
    let copy = encode(record, next)?;
    let place = if next.is_multiple_of(2) { 0 } else { COPY_BYTES };
    let write = || {
        let there = disk.length(&path)? == Some(2 * COPY_BYTES as u64);
        // Until a second write follows the one that made the file, its name may not be durable.
        if !there || loaded.generation == 1 {
            let mut whole = vec![0; 2 * COPY_BYTES];
            if let Some(part) = whole.get_mut(place..place + COPY_BYTES) {
                part.copy_from_slice(&copy);
            }
            return disk::replace(disk, &path, &whole);
        }
        disk.write_at(&path, place as u64, &copy)?;
        disk.sync_data(&path)
    };
    write().map_err(|source| RecordError::Write { path: path.clone(), source })?;
    Ok(next)
}

/// Loads, takes the event, saves. The caller holds the record's lock. Effects are to be done afterwards.
pub fn advance(
    disk: &dyn Disk,
    dir: &StateDir,
    event: Event,
    now: UnixMs,
) -> Result<(BootRecord, Vec<Effect>), RecordError> {
    let loaded = load(disk, dir, now);
    let (record, effects) =
        loaded.record.clone().advance(event, now).map_err(RecordError::Refused)?;
    save(disk, dir, &record, &loaded)?;
    Ok((record, effects))
}

fn encode(record: &BootRecord, generation: u64) -> Result<Vec<u8>, RecordError> {
    let payload = cbor::encode(record).map_err(RecordError::Encode)?;
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(RecordError::TooLarge(payload.len()));
    }
    let mut copy = Vec::with_capacity(COPY_BYTES);
    copy.extend_from_slice(MAGIC);
    copy.push(VERSION);
    copy.extend_from_slice(&generation.to_le_bytes());
    copy.extend_from_slice(&length.to_le_bytes());
    let mut hasher = Hasher::default();
    hasher.update(&copy);
    hasher.update(&payload);
    copy.extend_from_slice(hasher.finish().as_bytes());
    copy.extend_from_slice(&payload);
    copy.resize(COPY_BYTES, 0);
    Ok(copy)
}

fn parse(copy: &[u8], now: UnixMs) -> Option<Copy> {
    let head = copy.get(..20)?;
    let checksum = copy.get(20..HEADER_BYTES)?;
    let (magic, version) = (head.get(..7)?, *head.get(7)?);
    if magic != MAGIC {
        return None;
    }
    let generation = u64::from_le_bytes(head.get(8..16)?.try_into().ok()?);
    let length = u32::from_le_bytes(head.get(16..20)?.try_into().ok()?);
    let end = HEADER_BYTES.checked_add(usize::try_from(length).ok()?)?;
    let payload = copy.get(HEADER_BYTES..end)?;
    let mut hasher = Hasher::default();
    hasher.update(head);
    hasher.update(payload);
    if hasher.finish().as_bytes() != checksum {
        return None;
    }
    let record: BootRecord = match version {
        VERSION_1 => record_v1::decode(payload, PAYLOAD_BYTES_MAX, now)?,
        VERSION => cbor::decode(payload, PAYLOAD_BYTES_MAX).ok()?,
        newer if newer > VERSION => return Some(Copy::Newer(generation, newer)),
        _ => return None,
    };
    Some(Copy::Whole(generation, Box::new(record)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        boot::{HISTORY_MAX, QUARANTINE_MAX, Subject},
        crash_disk::CrashDisk,
        state::{Held, StartId, State, Trial},
    };
    use protocol::{digest::Digest, id::Slot, report::EventKind};

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn held(slot: Slot) -> Held {
        Held { slot, release: Digest::of(b"x"), name: "x".repeat(64), counter: u64::MAX }
    }

    /// Every field as long as it can get.
    fn largest() -> BootRecord {
        let mut record = BootRecord::new(UnixMs(u64::MAX / 2));
        let trial = Trial {
            held: held(Slot::B),
            rollout: u64::MAX,
            tries: 255,
            load_ms: u64::MAX,
            golden_ms: u64::MAX,
            probation_ms: u64::MAX,
        };
        for i in 0..QUARANTINE_MAX + 1 {
            record.state = State::Probation {
                active: Some(held(Slot::A)),
                trial: Trial {
                    held: Held { release: Digest::of(&i.to_le_bytes()), ..trial.held.clone() },
                    ..trial.clone()
                },
                tries_left: 255,
                refunds_left: 255,
                deadline: UnixMs(u64::MAX),
                start: StartId::named("x"),
            };
            let event = Event::Rejected { reason: "é".repeat(2000) };
            record = record.advance(event, UnixMs(u64::MAX)).unwrap().0;
        }
        for _ in 0..HISTORY_MAX {
            let subject = Subject {
                release: Some(Digest::of(b"x")),
                name: &"x".repeat(64),
                rollout: u64::MAX,
            };
            record.remember(
                EventKind::WorkerRestarted,
                subject,
                &"é".repeat(2000),
                UnixMs(u64::MAX),
            );
        }
        record.state = State::Probation {
            active: Some(held(Slot::A)),
            trial,
            tries_left: 255,
            refunds_left: 255,
            deadline: UnixMs(u64::MAX),
            start: StartId::named("x"),
        };
        BootRecord {
            counter_floor: u64::MAX,
            commits: u64::MAX,
            time_floor: UnixMs(u64::MAX),
            desired_sequence: u64::MAX,
            ..record
        }
    }

    fn disk() -> (CrashDisk, StateDir) {
        let (disk, dir) = (CrashDisk::new(), StateDir::new("/s"));
        dir.prepare(&disk).unwrap();
        (disk, dir)
    }

    /// Writes `record` over what is there, and says its generation.
    fn keep(disk: &CrashDisk, dir: &StateDir, record: &BootRecord) -> u64 {
        save(disk, dir, record, &load(disk, dir, NOW)).unwrap()
    }

    #[test]
    fn the_largest_record_fits() {
        let bytes = cbor::encode(&largest()).unwrap();
        assert!(bytes.len() <= PAYLOAD_BYTES_MAX, "{} bytes", bytes.len());
        let (disk, dir) = disk();
        keep(&disk, &dir, &largest());
        assert_eq!(load(&disk, &dir, NOW).record, largest());
    }

    #[test]
    fn the_newest_whole_copy_counts() {
        let (disk, dir) = disk();
        let mut generation = 0;
        for i in 0..5 {
            let record = BootRecord { desired_sequence: i, ..BootRecord::new(NOW) };
            generation = keep(&disk, &dir, &record);
            let loaded = load(&disk, &dir, NOW);
            assert_eq!((loaded.record.desired_sequence, loaded.generation), (i, generation));
        }
        assert_eq!(load(&disk, &dir, NOW).source, Source::Whole);
        // Tear the newest: the one before it counts, and the next write goes over the torn one.
        let offset = (generation % 2) * COPY_BYTES as u64;
        disk.write_at(&dir.record(), offset + 30, &[0xff; 8]).unwrap();
        let loaded = load(&disk, &dir, NOW);
        assert_eq!((loaded.record.desired_sequence, loaded.source), (3, Source::OneCopy));
        let record = BootRecord { desired_sequence: 9, ..BootRecord::new(NOW) };
        keep(&disk, &dir, &record);
        let loaded = load(&disk, &dir, NOW);
        assert_eq!((loaded.record.desired_sequence, loaded.source), (9, Source::Whole));
    }

    #[test]
    fn any_flipped_byte_of_a_copy_is_noticed() {
        let record = BootRecord::new(NOW);
        let copy = encode(&record, 7).unwrap();
        let whole = |copy: &[u8]| match parse(copy, NOW) {
            Some(Copy::Whole(generation, record)) => Some((generation, *record)),
            Some(Copy::Newer(..)) | None => None,
        };
        assert_eq!(whole(&copy), Some((7, record)));
        let used = HEADER_BYTES + cbor::encode(&BootRecord::new(NOW)).unwrap().len();
        for i in 0..used {
            let mut flipped = copy.clone();
            flipped[i] ^= 1;
            assert!(parse(&flipped, NOW).is_none(), "byte {i}");
        }
        for end in 0..used {
            assert!(parse(&copy[..end], NOW).is_none(), "cut at {end}");
        }
    }

    #[test]
    fn both_copies_lost_means_an_alarm_and_the_factory_slot() {
        let (disk, dir) = disk();
        keep(&disk, &dir, &BootRecord::new(NOW));
        disk.write_at(&dir.record(), 0, &vec![0x5a; 2 * COPY_BYTES]).unwrap();
        let loaded = load(&disk, &dir, NOW);
        assert_eq!(loaded.source, Source::Recovered);
        assert_eq!(loaded.record.state, State::FACTORY);
        assert_eq!(loaded.record.last().map(|last| last.kind), Some(EventKind::Alarm));
    }

    #[test]
    fn a_full_disk_cannot_stop_the_record_even_when_both_copies_are_lost() {
        let (disk, dir) = disk();
        keep(&disk, &dir, &BootRecord::new(NOW));
        keep(&disk, &dir, &BootRecord::new(NOW));
        disk.set_capacity_bytes(0);
        assert!(disk.write(&dir.staging().join("x"), &mut b"x".as_slice()).is_err());
        let record = largest();
        keep(&disk, &dir, &record);
        assert_eq!(load(&disk, &dir, NOW).record, record);
        disk.write_at(&dir.record(), 0, &vec![0x5a; 2 * COPY_BYTES]).unwrap();
        keep(&disk, &dir, &record);
        assert_eq!(load(&disk, &dir, NOW).record, record);
    }

    #[test]
    fn what_the_disk_does_not_give_back_is_not_written_over() {
        let (disk, dir) = disk();
        for sequence in [1, 2] {
            keep(&disk, &dir, &BootRecord { desired_sequence: sequence, ..BootRecord::new(NOW) });
        }
        disk.make_unreadable(&dir.record());
        let loaded = load(&disk, &dir, NOW);
        assert_eq!(loaded.source, Source::Unreadable);
        let refused = save(&disk, &dir, &loaded.record, &loaded).unwrap_err();
        assert!(matches!(refused, RecordError::Unreadable { .. }), "{refused}");
        disk.heal();
        assert_eq!(load(&disk, &dir, NOW).record.desired_sequence, 2);
    }

    #[test]
    fn a_newer_record_is_said_so_and_not_written_over() {
        let (disk, dir) = disk();
        let generation = keep(&disk, &dir, &BootRecord::new(NOW));
        keep(&disk, &dir, &BootRecord::new(NOW));
        let mut newer = encode(&BootRecord::new(NOW), generation + 2).unwrap();
        newer[7] = VERSION + 1;
        let mut hasher = Hasher::default();
        let length = u32::from_le_bytes(newer[16..20].try_into().unwrap()) as usize;
        hasher.update(&newer[..20]);
        hasher.update(&newer[HEADER_BYTES..HEADER_BYTES + length]);
        newer[20..HEADER_BYTES].copy_from_slice(hasher.finish().as_bytes());
        disk.write_at(&dir.record(), (generation % 2) * COPY_BYTES as u64, &newer).unwrap();
        let loaded = load(&disk, &dir, NOW);
        assert_eq!(loaded.source, Source::Newer(VERSION + 1));
        assert_eq!(loaded.record.state, State::FACTORY);
        let refused = save(&disk, &dir, &BootRecord::new(NOW), &loaded).unwrap_err().to_string();
        assert!(refused.contains("format 3") && refused.contains("install the socle package"));
    }

    /// Written by version 0.1.0 of this program before it knew of deadlines at the gates: release 1 committed, release 2
    /// given up, release 3 on its first start.
    const WRITTEN_BY_VERSION_1: &[u8] = include_bytes!("../tests/vectors/boot-record-1.bin");

    #[test]
    fn an_older_record_goes_on_and_stays_until_the_write_after_the_next() {
        let (disk, dir) = disk();
        disk.write(&dir.record(), &mut &*WRITTEN_BY_VERSION_1).unwrap();
        let loaded = load(&disk, &dir, NOW);
        let State::Probation { active: Some(active), trial, tries_left: 2, .. } =
            &loaded.record.state
        else {
            panic!("{:?}", loaded.record.state)
        };
        assert_eq!((active.name.as_str(), trial.held.name.as_str()), ("2026.1", "2026.3"));
        assert_eq!(loaded.record.quarantine.len(), 1);
        let floors = (loaded.record.counter_floor, loaded.record.commits);
        assert_eq!((floors, loaded.record.desired_sequence), ((1, 1), 12));
        assert_eq!(loaded.record.time_floor, NOW);

        let versions = || {
            let bytes = disk.read(&dir.record(), 2 * COPY_BYTES as u64).unwrap();
            let mut versions = [bytes[7], bytes[COPY_BYTES + 7]];
            versions.sort_unstable();
            versions
        };
        assert_eq!(versions(), [VERSION_1, VERSION_1]);
        let (next, _) = advance(&disk, &dir, Event::Start(StartId::named("next")), NOW).unwrap();
        assert_eq!(versions(), [VERSION_1, VERSION], "the old one stays");
        assert_eq!(load(&disk, &dir, NOW).record, next);
        keep(&disk, &dir, &next);
        assert_eq!(versions(), [VERSION, VERSION]);
    }
}
