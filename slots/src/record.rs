//! The boot record: a preallocated file of two 4 KiB copies, written in turn; the newest whole one counts.
//!
//! A copy is `SOCLEBR1`, generation (u64 LE), length (u32 LE), SHA-256 over those and the payload, payload (CBOR),
//! zeros up to 4096. Writing never allocates, so a full disk cannot stop a rollback.

use std::{io, path::PathBuf};

use protocol::{cbor, digest::Hasher, time::UnixMs};

use crate::{
    boot::BootRecord,
    disk::{self, Disk},
    install,
    layout::StateDir,
    state::Event,
    transition::{Effect, Refused},
};

/// Size of one copy, in bytes.
pub const COPY_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"SOCLEBR1";
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

/// The record as it stands on the disk. Never fails: what cannot be read is as good as lost.
pub fn load(disk: &dyn Disk, dir: &StateDir, now: UnixMs) -> Loaded {
    let bytes = disk.read(&dir.record(), 2 * COPY_BYTES as u64);
    let missing = matches!(&bytes, Err(error) if error.kind() == io::ErrorKind::NotFound);
    let bytes = bytes.unwrap_or_default();
    let copies: Vec<_> = bytes.chunks(COPY_BYTES).filter_map(parse).collect();
    let source = if copies.len() == 2 { Source::Whole } else { Source::OneCopy };
    if let Some((generation, record)) = copies.into_iter().max_by_key(|(generation, _)| *generation)
    {
        return Loaded { record, generation, source };
    }
    let stamped = install::stamped(disk, dir);
    if missing && stamped.is_none() {
        return Loaded { record: BootRecord::new(now), generation: 0, source: Source::Fresh };
    }
    Loaded { record: BootRecord::recovered(stamped, now), generation: 0, source: Source::Recovered }
}

/// Writes `record` as the generation after `generation`, durably, over the older copy. The caller holds the record's
/// lock since it loaded. Returns the new generation.
pub fn save(
    disk: &dyn Disk,
    dir: &StateDir,
    record: &BootRecord,
    generation: u64,
) -> Result<u64, RecordError> {
    let path = dir.record();
    let next = generation.saturating_add(1);
    let copy = encode(record, next)?;
    let offset = (next % 2) * COPY_BYTES as u64;
    let write = || {
        if generation == 0 || disk.length(&path)? != Some(2 * COPY_BYTES as u64) {
            let mut whole = vec![0; 2 * COPY_BYTES];
            let start = if next.is_multiple_of(2) { 0 } else { COPY_BYTES };
            whole[start..start + COPY_BYTES].copy_from_slice(&copy);
            return disk::replace(disk, &path, &whole);
        }
        disk.write_at(&path, offset, &copy)?;
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
    let (record, effects) = loaded.record.advance(event, now).map_err(RecordError::Refused)?;
    save(disk, dir, &record, loaded.generation)?;
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

fn parse(copy: &[u8]) -> Option<(u64, BootRecord)> {
    let head = copy.get(..20)?;
    let checksum = copy.get(20..HEADER_BYTES)?;
    if head.get(..8)? != MAGIC {
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
    cbor::decode(payload, PAYLOAD_BYTES_MAX).ok().map(|record| (generation, record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        boot::{HISTORY_MAX, QUARANTINE_MAX, Subject},
        crash_disk::CrashDisk,
        state::{Held, State, Trial},
    };
    use protocol::{digest::Digest, id::Slot, report::EventKind};

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn held(slot: Slot) -> Held {
        Held { slot, release: Digest::of(b"x"), name: "x".repeat(64), counter: u64::MAX }
    }

    /// Every field as long as it can get.
    fn largest() -> BootRecord {
        let mut record = BootRecord::new(UnixMs(u64::MAX / 2));
        let trial =
            Trial { held: held(Slot::B), rollout: u64::MAX, tries: 255, probation_ms: u64::MAX };
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
        };
        BootRecord {
            counter_floor: u64::MAX,
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

    #[test]
    fn the_largest_record_fits() {
        let bytes = cbor::encode(&largest()).unwrap();
        assert!(bytes.len() <= PAYLOAD_BYTES_MAX, "{} bytes", bytes.len());
        let (disk, dir) = disk();
        save(&disk, &dir, &largest(), 0).unwrap();
        assert_eq!(load(&disk, &dir, NOW).record, largest());
    }

    #[test]
    fn the_newest_whole_copy_counts() {
        let (disk, dir) = disk();
        let mut generation = 0;
        for i in 0..5 {
            let record = BootRecord { desired_sequence: i, ..BootRecord::new(NOW) };
            generation = save(&disk, &dir, &record, generation).unwrap();
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
        save(&disk, &dir, &record, loaded.generation).unwrap();
        let loaded = load(&disk, &dir, NOW);
        assert_eq!((loaded.record.desired_sequence, loaded.source), (9, Source::Whole));
    }

    #[test]
    fn any_flipped_byte_of_a_copy_is_noticed() {
        let record = BootRecord::new(NOW);
        let copy = encode(&record, 7).unwrap();
        assert_eq!(parse(&copy), Some((7, record)));
        let used = HEADER_BYTES + cbor::encode(&BootRecord::new(NOW)).unwrap().len();
        for i in 0..used {
            let mut flipped = copy.clone();
            flipped[i] ^= 1;
            assert_eq!(parse(&flipped), None, "byte {i}");
        }
        for end in 0..used {
            assert_eq!(parse(&copy[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn both_copies_lost_means_an_alarm_and_the_factory_slot() {
        let (disk, dir) = disk();
        save(&disk, &dir, &BootRecord::new(NOW), 0).unwrap();
        disk.write_at(&dir.record(), 0, &vec![0x5a; 2 * COPY_BYTES]).unwrap();
        let loaded = load(&disk, &dir, NOW);
        assert_eq!(loaded.source, Source::Recovered);
        assert_eq!(loaded.record.state, State::FACTORY);
        assert_eq!(loaded.record.last().map(|last| last.kind), Some(EventKind::Alarm));
    }

    #[test]
    fn a_full_disk_cannot_stop_the_record() {
        let (disk, dir) = disk();
        let generation = save(&disk, &dir, &BootRecord::new(NOW), 0).unwrap();
        disk.set_free_bytes(0);
        assert!(disk.write(&dir.staging().join("x"), &mut b"x".as_slice()).is_err());
        let record = largest();
        save(&disk, &dir, &record, generation).unwrap();
        assert_eq!(load(&disk, &dir, NOW).record, record);
    }
}
