//! The boot record on a device's disk.

use fastrand::Rng;
use protocol::{
    digest::{Digest, Hasher},
    id::Slot,
    time::UnixMs,
};
use slots::{
    boot::BootRecord,
    crash_disk::CrashDisk,
    disk::{self, Disk as _},
    layout::StateDir,
    record::{self, COPY_BYTES},
    state::{Held, State},
};

use crate::attacks::fuzz::{mutation, target::Target};

const NOW: UnixMs = UnixMs(1_800_000_000_000);
/// Magic and version, generation, length; then the digest; then the payload.
const HEAD_BYTES: usize = 20;
const PAYLOAD_AT: usize = HEAD_BYTES + 32;

/// `boot/record`.
pub struct Records {
    good: Vec<u8>,
}

impl Records {
    /// From a record with a committed release and some history.
    pub fn new() -> anyhow::Result<Self> {
        let (disk, dir) = (CrashDisk::new(), StateDir::new("/s"));
        dir.prepare(&disk)?;
        let held = Held {
            slot: Slot::A,
            release: Digest::of(b"x"),
            name: "2027.1.1".to_owned(),
            counter: 1,
        };
        let mut record =
            BootRecord { state: State::Steady { active: Some(held) }, ..BootRecord::new(NOW) };
        record.alarm("something happened", NOW);
        for _ in 0..2 {
            let loaded = record::load(&disk, &dir, NOW);
            record::save(&disk, &dir, &record, &loaded)?;
        }
        let good = disk.read(&dir.record(), 2 * COPY_BYTES as u64)?;
        Ok(Self { good })
    }
}

impl Target for Records {
    fn name(&self) -> &'static str {
        "boot-record"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        let mut bytes = self.good.clone();
        match random.u32(0..8) {
            0 => bytes = mutation::noise(random),
            1..=3 => mutation::bytes(&mut bytes, random),
            _ => {
                for copy in bytes.chunks_mut(COPY_BYTES) {
                    reseal(copy, random);
                }
            }
        }
        Ok(bytes)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        let (disk, dir) = (CrashDisk::new(), StateDir::new("/s"));
        dir.prepare(&disk)?;
        disk::replace(&disk, &dir.record(), input)?;
        let loaded = record::load(&disk, &dir, NOW);
        Ok(loaded.generation > 0)
    }
}

/// Changes a copy's payload and makes its digest right again.
fn reseal(copy: &mut [u8], random: &mut Rng) {
    let length = copy.get(16..HEAD_BYTES).and_then(|bytes| bytes.try_into().ok());
    let length = length.map_or(0, u32::from_le_bytes) as usize;
    let Some(payload) = copy.get(PAYLOAD_AT..PAYLOAD_AT + length) else { return };
    let mut payload = payload.to_vec();
    mutation::bytes(&mut payload, random);
    payload.truncate(copy.len() - PAYLOAD_AT);
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    copy[16..HEAD_BYTES].copy_from_slice(&length);
    let mut hasher = Hasher::default();
    hasher.update(&copy[..HEAD_BYTES]);
    hasher.update(&payload);
    copy[HEAD_BYTES..PAYLOAD_AT].copy_from_slice(hasher.finish().as_bytes());
    copy[PAYLOAD_AT..PAYLOAD_AT + payload.len()].copy_from_slice(&payload);
}
