//! What a machine lives through on the recorded disk: enrolment, a first release, further ones, some of which fail; and
//! what was acknowledged after each step of it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, bail, ensure};
use fastrand::Rng;
use protocol::{
    blob::Blob,
    digest::Digest,
    id::{DeviceId, FleetId},
    manifest::{Policy, Role},
};
use slots::{disk::RealDisk, store::Store};

use crate::{
    blocks::{
        course::{Move, Quality},
        disks::Disks,
        log::Shape,
        machine::{Machine, Programs, Seen},
        mounted::{self, Mounted},
        orders::Order,
        place::Place,
    },
    crash::bench::now,
    device::{Device, Wish},
    release::{PackedAgent, Recipe, Release, build},
    signing::FleetKeys,
};

/// The disk that is recorded.
pub const RECORDED: usize = 0;
/// More moves than any release needs.
const MOVES_MAX: u32 = 40;
const MODEL_BYTES: usize = 2 << 20;
const AGENT_PADDING_BYTES: usize = 1 << 20;
const PROBATION_MS: u64 = 3_600_000;
const TRIES: u8 = 2;
/// Sequence of the assignments after a power cut: above all that were recorded.
const LATER: u64 = 1_000_000;

/// What was recorded.
#[derive(Debug)]
pub struct History {
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// The shape of the log.
    pub shape: Shape,
    /// The keys of the fleet.
    pub keys: FleetKeys,
    /// The device.
    pub device: DeviceId,
    /// Its fleet.
    pub fleet: FleetId,
    /// A release that comes after those.
    pub spare: Release,
    /// A release that comes after all others.
    pub next: Release,
}

/// One step. Before its end nothing of it is promised; from then on all is.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was done.
    pub what: String,
    /// How many entries the log had when it was acknowledged.
    pub end: usize,
    /// What was acknowledged before.
    pub before: Seen,
    /// What was acknowledged after.
    pub after: Seen,
    /// The release that its gateway staged last.
    pub offered: Option<Digest>,
}

/// What a disk may hold when power was cut.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// What was acknowledged.
    pub promised: &'a Seen,
    /// What the interrupted step would have acknowledged next.
    pub possible: &'a Seen,
    /// A release that may wait in the staging area.
    pub offered: Option<Digest>,
}

/// Whether a release brings another executable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    Same,
    New,
}

/// The operator's side.
struct Operator<'a> {
    keys: &'a FleetKeys,
    slot_agent: Vec<u8>,
    random: Rng,
    counter: u64,
    agent: Option<PackedAgent>,
}

/// The machine on the recorded disk.
struct Recorder<'a> {
    disks: &'a Mutex<Disks>,
    machine: Machine,
    steps: Vec<Step>,
    seen: Seen,
    offered: Option<Digest>,
    /// The gateway was stopped on purpose once.
    was_stopped: bool,
}

/// Lets a machine live on the recorded disk.
pub fn record(place: &Place<'_>, random: &mut Rng) -> anyhow::Result<History> {
    let Place { disks, factory, programs, .. } = *place;
    let lock = || disks.lock().unwrap_or_else(PoisonError::into_inner);
    lock().order(&Order::Blank { disk: RECORDED })?;
    let file = lock().file(RECORDED);
    mounted::make(&file)?;
    let folder = place.folder.join("recorded");
    let mounted = Mounted::new(&file, &folder, place.journal)?;
    lock().order(&Order::Record { disk: RECORDED })?;

    let keys = FleetKeys::new()?;
    let slot_agent = std::fs::read(&programs.slot_agent).context("reading the slots' agent")?;
    let mut operator =
        Operator { keys: &keys, slot_agent, random: random.fork(), counter: 0, agent: None };
    let nothing = Seen { record: None, trust: None, enrolled: false };
    let device = Device::enrol(&folder.join("state"), &keys)?;
    let machine = Machine { device, factory: factory.to_owned(), programs: programs.clone() };
    let mut recorder = Recorder {
        disks,
        machine,
        steps: Vec::new(),
        seen: nothing,
        offered: None,
        was_stopped: false,
    };
    recorder.acknowledge("enrolment")?;
    recorder.live(&mut operator)?;

    let spare = operator.release(Agent::New, 2)?;
    let next = operator.release(Agent::New, 2)?;
    let Recorder { machine, steps, .. } = recorder;
    let shape = lock().finish(RECORDED)?;
    mounted.end()?;
    let Device { id, fleet, .. } = machine.device;
    Ok(History { steps, shape, keys, device: id, fleet, spare, next })
}

impl Recorder<'_> {
    fn live(&mut self, operator: &mut Operator<'_>) -> anyhow::Result<()> {
        self.step("first start, from the factory slot", |machine| {
            let started = machine.start()?.0;
            ensure!(started.is_none(), "the first start was not the factory's");
            Ok(())
        })?;

        let first = operator.release(Agent::New, 2)?;
        self.deliver("first release", operator, &first, Quality::Good, &[])?;
        ensure!(self.seen.active() == Some(first.digest()), "the first release did not commit");

        let second = operator.release(Agent::Same, 2)?;
        let root = operator.keys.root(2)?;
        self.deliver("second release, new root", operator, &second, Quality::Good, &[root])?;
        ensure!(self.seen.active() == Some(second.digest()), "the second release did not commit");
        let trusted = self.seen.trust.map(|trusted| trusted.root);
        ensure!(trusted == Some(2), "the new root is not trusted, but {trusted:?}");

        let crashing = operator.release(Agent::New, 2)?;
        self.deliver("crashing release", operator, &crashing, Quality::Crashing, &[])?;
        let wrong = operator.release(Agent::Same, 2)?;
        self.deliver("release with wrong answers", operator, &wrong, Quality::WrongAnswers, &[])?;
        let unsigned = operator.release(Agent::Same, 1)?;
        self.deliver("release short of a signature", operator, &unsigned, Quality::Good, &[])?;
        ensure!(self.seen.active() == Some(second.digest()), "a bad release committed");

        let last = operator.release(Agent::New, 2)?;
        self.deliver("last release", operator, &last, Quality::Good, &[])?;
        ensure!(self.seen.active() == Some(last.digest()), "the last release did not commit");
        Ok(())
    }

    fn deliver(
        &mut self,
        name: &str,
        operator: &Operator<'_>,
        release: &Release,
        quality: Quality,
        roots: &[Vec<u8>],
    ) -> anyhow::Result<()> {
        self.offered = Some(release.digest());
        self.step(&format!("{name}: staged by the gateway"), |machine| {
            machine.offer(operator.keys, release, roots)
        })?;
        for _ in 0..MOVES_MAX {
            let Some(next) = self.machine.next(quality) else { return Ok(()) };
            let phase = self.seen.phase();
            self.step(&format!("{name}: {}", sentence(next, phase)), |machine| {
                machine.do_move(next)
            })?;
            if next == Move::Start && !std::mem::replace(&mut self.was_stopped, true) {
                self.step(&format!("{name}: clean stop"), |machine| machine.refund())?;
            }
        }
        bail!("{name} did not come to rest in {MOVES_MAX} moves");
    }

    fn step(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Machine) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        work(&mut self.machine).with_context(|| what.to_owned())?;
        self.acknowledge(what)
    }

    /// Up to here everything is promised.
    fn acknowledge(&mut self, what: &str) -> anyhow::Result<()> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let end = disks.length(RECORDED)?;
        drop(disks);
        let after = self.machine.look().with_context(|| format!("after {what}"))?;
        let before = std::mem::replace(&mut self.seen, after.clone());
        let offered = self.offered;
        self.steps.push(Step { what: what.to_owned(), end, before, after, offered });
        Ok(())
    }
}

fn sentence(next: Move, phase: &str) -> String {
    match next {
        Move::Judge { gate, passes: true } => format!("verdict, {} passed", gate.as_str()),
        Move::Judge { gate, passes: false } => format!("verdict, {} failed", gate.as_str()),
        Move::Update => format!("updater, {phase}"),
        Move::Start => format!("start, {phase}"),
    }
}

impl Operator<'_> {
    fn release(&mut self, agent: Agent, signers: usize) -> anyhow::Result<Release> {
        self.counter += 1;
        let packed = match &self.agent {
            Some(packed) if agent == Agent::Same => packed.clone(),
            Some(_) | None => {
                // Bytes after an executable's last section change its digest and nothing it does.
                let mut content = self.slot_agent.clone();
                content.extend(noise(&mut self.random, AGENT_PADDING_BYTES));
                PackedAgent::of(&content)?
            }
        };
        self.agent = Some(packed.clone());
        let files = vec![
            ("models/faq/model.onnx".to_owned(), Role::Model, noise(&mut self.random, MODEL_BYTES)),
            ("models/faq/faq.jsonl".to_owned(), Role::Data, noise(&mut self.random, 9_000)),
            ("models/faq/shared.json".to_owned(), Role::Config, b"{}".to_vec()),
        ];
        let policy = Policy { tries: TRIES, probation_ms: PROBATION_MS, ..Policy::standard() };
        build(self.keys, Recipe { counter: self.counter, agent: packed, files, policy, signers })
    }
}

impl Machine {
    /// What a gateway leaves for the updater: the objects that the store lacks, then the request.
    pub fn offer(
        &mut self,
        keys: &FleetKeys,
        release: &Release,
        roots: &[Vec<u8>],
    ) -> anyhow::Result<()> {
        let missing = Store::new(&RealDisk, &self.device.dir).missing(&release.manifest);
        let objects: BTreeMap<Digest, Vec<u8>> = missing
            .iter()
            .filter_map(|object| release.objects.get_key_value(&object.sha256))
            .map(|(digest, content)| (*digest, content.clone()))
            .collect();
        let mut request = self.device.request(keys, release, now(), Wish::default())?;
        request.roots.extend(roots.iter().map(|root| Blob::from(root.clone())));
        self.device.stage(&objects, &request)
    }

    /// Goes on until nothing is left to do, every gate passing.
    pub fn settle(&self) -> anyhow::Result<()> {
        for _ in 0..MOVES_MAX {
            let Some(next) = self.next(Quality::Good) else { return Ok(()) };
            self.do_move(next)?;
        }
        bail!("the machine did not come to rest in {MOVES_MAX} moves")
    }
}

impl History {
    /// The recorded machine as it would be at `folder`.
    pub fn machine(&self, folder: &Path, factory: &Path, programs: &Programs) -> Machine {
        let device = Device {
            dir: slots::layout::StateDir::new(folder.join("state")),
            id: self.device,
            fleet: self.fleet.clone(),
            sequence: LATER,
        };
        Machine { device, factory: factory.to_owned(), programs: programs.clone() }
    }

    /// The step that a cut after so many entries interrupts; none after a whole one.
    pub fn interrupted(&self, at: usize) -> Option<&Step> {
        let done = self.steps.partition_point(|step| step.end <= at);
        let begin = done.checked_sub(1).and_then(|last| self.steps.get(last)).map_or(0, |s| s.end);
        self.steps.get(done).filter(|_| at > begin)
    }

    /// What is promised after so many entries, and the most that may be there.
    pub fn bounds(&self, at: usize) -> Option<Bounds<'_>> {
        let done = self.steps.partition_point(|step| step.end <= at);
        let last = done.checked_sub(1).and_then(|last| self.steps.get(last));
        let promised = match last {
            Some(step) => &step.after,
            None => &self.steps.first()?.before,
        };
        let (possible, offered) = match self.interrupted(at) {
            Some(step) => (&step.after, step.offered),
            None => (promised, last.and_then(|step| step.offered)),
        };
        Some(Bounds { promised, possible, offered })
    }
}

fn noise(random: &mut Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}
