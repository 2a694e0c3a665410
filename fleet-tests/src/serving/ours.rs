//! Our agent on one machine, with a release of two models: an encoder, and one so small that what is left is what the
//! way of a request costs.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context as _, ensure};
use engine::{
    encoder_spec::EncoderInput,
    pack::{GoldenRecipe, Recipe as PackRecipe, pack},
    package::Spec,
};
use protocol::{
    digest::Digest,
    manifest::{Policy, Role},
};
use slots::state::State;

use crate::{
    crash::bench::{Programs, instant, now},
    device::{Device, Wish, factory},
    release::{PackedAgent, Recipe, build},
    serving::{
        processor::Group,
        target::{Form, Target},
        wire::Address,
    },
    signing::FleetKeys,
    swap::{http, machine::Machine},
};

/// Longest wait for the release to be committed.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
/// Patient, for a machine that also runs the peers.
const POLICY: Policy = Policy {
    tries: 3,
    load_ms: 180_000,
    golden_ms: 180_000,
    probation_ms: 180_000,
    probation_answers: 3,
};
/// Width of the small model's vectors.
const SMALL_DIM: u32 = 8;

/// The running agent.
#[derive(Debug)]
pub struct Ours {
    machine: Machine,
}

impl Ours {
    /// Starts it in `folder`, with `encoder` (an ONNX file and the width of its vectors) and `identity`, each with its
    /// tokenizer beside it, and waits until its release is committed.
    ///
    /// # Errors
    /// It does not get there; the log is named.
    pub fn start(
        folder: &Path,
        bin_dir: &Path,
        (encoder, dim): (&Path, u32),
        identity: &Path,
    ) -> anyhow::Result<Self> {
        let programs = Programs::in_folder(bin_dir)?;
        let keys = FleetKeys::new()?;
        let mut device = Device::enrol(&folder.join("state"), &keys)?;
        let factory_folder = folder.join("factory");
        factory(&factory_folder, &programs.agent)?;
        let mut files = package("encoder", encoder, dim)?;
        files.extend(package("identity", identity, SMALL_DIM)?);
        let recipe = Recipe {
            counter: 1,
            agent: PackedAgent::pack(&programs.agent)?,
            files,
            policy: POLICY,
            signers: 2,
        };
        let release = build(&keys, recipe)?;
        let mut machine = Machine::start(folder, &programs, &device, &factory_folder)?;
        let request = device.request(&keys, &release, now(), Wish::default())?;
        device.stage(&release.objects, &request)?;
        let log = machine.log.clone();
        committed(&mut machine, &device, release.digest())
            .with_context(|| format!("the log is {}", log.display()))?;
        Ok(Self { machine })
    }

    /// Where `model` is asked in this form, over TCP.
    ///
    /// # Errors
    /// There is no token.
    pub fn tcp(&self, model: &str, form: Form) -> anyhow::Result<Target> {
        Ok(target(self.machine.tcp()?, model, form))
    }

    /// Where `model` is asked in this form, over the Unix socket.
    pub fn unix(&self, model: &str, form: Form) -> Target {
        target(self.machine.unix(), model, form)
    }

    /// The processes that answer.
    pub fn processes(&self) -> Vec<Group> {
        let tree = self.machine.processes();
        let of = |name| {
            let own = tree.iter().filter(|process| process.role == name);
            Group { name, pids: own.map(|process| process.pid).collect() }
        };
        ["gateway", "worker"].map(of).to_vec()
    }

    /// Has it end in order.
    ///
    /// # Errors
    /// It does not.
    pub fn end(self) -> anyhow::Result<()> {
        self.machine.end()
    }
}

fn target(address: http::Address, model: &str, form: Form) -> Target {
    let (address, token) = match address {
        http::Address::Tcp(address, token) => (Address::Tcp(address), Some(token)),
        http::Address::Unix(path) => (Address::Unix(path), None),
    };
    Target { address, model: model.to_owned(), token, form }
}

fn committed(machine: &mut Machine, device: &Device, release: Digest) -> anyhow::Result<()> {
    let until = instant() + PATIENCE;
    loop {
        machine.runs()?;
        let record = device.record();
        if let State::Steady { active } = &record.state {
            if active.as_ref().is_some_and(|held| held.release == release) {
                return Ok(());
            }
            let given_up = record.quarantined(&release).is_some();
            let last = record.last().map_or("nothing happened", |last| last.detail.as_str());
            ensure!(!given_up, "the release was given up: {last}");
        }
        ensure!(instant() < until, "the release was not committed within {PATIENCE:?}");
        thread::sleep(POLL);
    }
}

/// The files of a model package.
fn package(name: &str, onnx: &Path, dim: u32) -> anyhow::Result<Vec<(String, Role, Vec<u8>)>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let tokenizer = read(&onnx.with_file_name("tokenizer.json"))?;
    let onnx = read(onnx)?;
    let mut spec = Spec::sentence_encoder(name, "1", dim);
    if dim == SMALL_DIM {
        spec.encoder.inputs = vec![EncoderInput::InputIds];
    }
    let recipe = PackRecipe {
        spec: &spec,
        onnx: &onnx,
        tokenizer: &tokenizer,
        faq: None,
        golden: GoldenRecipe::Record(&["How do I reset my password?"]),
    };
    let packed = pack(&recipe, |_, _| {}).with_context(|| format!("packing {name}"))?;
    let place = |file: &str| format!("models/{name}/{file}");
    let mut files = vec![
        (place("model.onnx"), Role::Model, onnx),
        (place("tokenizer.json"), Role::Tokenizer, tokenizer),
    ];
    for (file, content) in packed.files {
        let role = if file == "golden.json" { Role::Golden } else { Role::Config };
        files.push((place(&file), role, content));
    }
    Ok(files)
}
