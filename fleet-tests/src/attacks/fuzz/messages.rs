//! CBOR: what the controller signs, what the gateway hands over, the list of a file's chunks.

use fastrand::Rng;
use protocol::{
    blob::Blob,
    cbor,
    chunks::{ChunkIndex, ChunkName, Cut, IndexWriter, Lengths},
    command::{Desired, Reader, Signable as _},
    digest::Digest,
    handover::{REQUEST_BYTES_MAX, Request, RoleDocument},
    id::{DeviceId, FleetId},
    key::{Purpose, SigningKey},
    signed::Signed,
    time::UnixMs,
};

use crate::attacks::{
    draft,
    fuzz::{mutation, target::Target},
};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// `staging/request.cbor`.
#[derive(Debug, Default)]
pub struct Requests;

impl Target for Requests {
    fn name(&self) -> &'static str {
        "request"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        let blob = |bytes: &[u8]| Blob::from(bytes.to_vec());
        let document = |role: &str| RoleDocument { role: role.to_owned(), document: blob(b"{}") };
        let request = Request {
            desired: blob(b"desired"),
            roots: vec![blob(b"root"); random.usize(0..3)],
            timestamp: blob(b"timestamp"),
            snapshot: blob(b"snapshot"),
            targets: vec![document("targets"), document("prod")],
            manifest: blob(b"manifest"),
            permit: random.bool().then(|| blob(b"permit")),
        };
        changed(cbor::encode(&request)?, random)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        Ok(cbor::decode::<Request>(input, REQUEST_BYTES_MAX).is_ok())
    }
}

/// Assignments: half of them changed inside and signed again.
pub struct Assignments {
    key: SigningKey,
    fleet: FleetId,
    device: DeviceId,
}

impl Assignments {
    /// With a controller's key.
    pub fn new() -> anyhow::Result<Self> {
        let key = draft::key(1)?;
        let device = DeviceId::of(&key.public());
        Ok(Self { key, fleet: "demo".parse()?, device })
    }
}

impl Target for Assignments {
    fn name(&self) -> &'static str {
        "assignment"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        let desired = Desired {
            fleet: self.fleet.clone(),
            device: self.device,
            sequence: 3,
            issued_at: NOW,
            expires_at: NOW.plus(1_000_000),
            release: Digest::of(b"release"),
            manifest_bytes: 1,
            targets_version: 1,
            rollout: 7,
            retry_quarantined: false,
            permit: None,
        };
        if random.bool() {
            return changed(desired.signed_by(&self.key)?, random);
        }
        let payload = changed(cbor::encode(&desired)?, random)?;
        Ok(Signed::seal(&self.key, Purpose::Desired, payload)?)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        let controller_keys = [self.key.public()];
        let reader =
            Reader { fleet: &self.fleet, device: self.device, controller_keys: &controller_keys };
        Ok(reader.desired(input, 2, NOW).is_ok())
    }
}

/// Chunk indexes.
#[derive(Debug, Default)]
pub struct Chunks;

impl Target for Chunks {
    fn name(&self) -> &'static str {
        "chunks"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        let mut writer = IndexWriter::new(Cut::for_length(4096));
        for number in 0..random.u8(1..20) {
            writer.push(ChunkName::of(&[number]), 100, 50);
        }
        changed(writer.with_pack()?, random)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        let lengths = [
            Lengths { object: 100, pack: Some(50) },
            Lengths { object: 1900, pack: Some(950) },
            Lengths { object: u64::MAX, pack: None },
        ];
        Ok(lengths.into_iter().any(|signed| ChunkIndex::read(input, signed).is_ok()))
    }
}

fn changed(mut bytes: Vec<u8>, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
    if random.u32(0..8) == 0 {
        return Ok(mutation::noise(random));
    }
    mutation::bytes(&mut bytes, random);
    Ok(bytes)
}
