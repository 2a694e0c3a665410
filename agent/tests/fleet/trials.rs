//! The gates as this side watches them: workers that are well, broken, wrong, slow or gone, and what is said of each.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agent::{
    fleet::{
        fleet_status::FleetStatus,
        host::{Health, Host, WorkerReply},
        service::{FleetConfig, FleetError, Parts, run},
    },
    observe::heartbeat::Heartbeats,
};
use engine::{
    encoder_spec::Pooling,
    golden::GoldenReport,
    package::Task,
    worker::{
        failure::{Failure, FailureKind},
        message::{BrokenPackage, Call, LoadedInfo, ModelInfo, ModelState, Reply, WorkerInfo},
        spoken::Spoken,
    },
};
use protocol::{
    cbor,
    digest::Digest,
    handover::{Gate, Outcome, Verdict},
    id::Slot,
    manifest::Manifest,
    report::Vitals,
    time::UnixMs,
};
use slots::{
    boot::BootRecord,
    disk::RealDisk,
    layout::StateDir,
    record,
    state::{Held, StartId, State, Trial},
};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{broker::PATIENCE, release::Release};

const NEVER: UnixMs = UnixMs(u64::MAX);

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    Well,
    /// Serves another release.
    Stale,
    /// One of its packages is unusable.
    Broken,
    /// Does not offer the model.
    Empty,
    /// Cannot load it.
    CannotLoad,
    /// Never answers.
    Hangs,
    /// Dies at each call.
    Dies,
    /// Answers, but not what was signed.
    Wrong,
    /// Is another one after its first load.
    EndsOnce,
    /// Is another one after each load.
    EndsAgain,
}

struct Gateway {
    worker: Worker,
    release: Digest,
    answered: u64,
    failed: u64,
    loads: AtomicU64,
}

impl Gateway {
    fn reply(&self, call: &Call) -> Result<Reply, String> {
        match (call, self.worker) {
            (_, Worker::Dies) => Err("the connection broke".into()),
            (Call::Hello { .. }, worker) => Ok(Reply::Hello(self.introduction(worker))),
            (Call::Load { model }, Worker::CannotLoad) => Ok(Reply::Failed(Failure::new(
                FailureKind::CannotLoad,
                format!("model `{model}` cannot be loaded: node 7 is unknown"),
            ))),
            (Call::Load { .. }, _) => {
                self.loads.fetch_add(1, Ordering::Relaxed);
                Ok(Reply::Loaded(LoadedInfo { load_us: 5, resident_bytes: 140_000_000 }))
            }
            (Call::Golden { .. }, worker) => {
                let failed = if worker == Worker::Wrong { 3 } else { 0 };
                Ok(Reply::Golden(GoldenReport {
                    cases: 12,
                    failed,
                    worst_cosine: 0.5,
                    slowest_us: 9000,
                    failures: vec!["`VPN?`: an abstention given, `vpn.fr` expected".into()],
                }))
            }
            (
                Call::Embed { .. }
                | Call::Ask { .. }
                | Call::Ping
                | Call::Shutdown
                | Call::Classify { .. }
                | Call::Rerank { .. }
                | Call::Bytes { .. }
                | Call::Tokenize { .. }
                | Call::Decode { .. }
                | Call::Statistics
                | Call::Unload { .. },
                _,
            ) => Ok(Reply::Pong),
        }
    }

    fn introduction(&self, worker: Worker) -> WorkerInfo {
        let model = ModelInfo {
            name: "faq".into(),
            version: "1".into(),
            task: Task::Embedding,
            dim: 384,
            digest: Digest::of(b"package"),
            text_bytes_max: 1,
            batch_max: 1,
            state: ModelState::OnDisk,
            newest: true,
            preload: true,
            tokens_max: 256,
            pooling: Pooling::Mean,
            prefixes: false,
            labels: Vec::new(),
            licence: "Apache-2.0".into(),
            weights: None,
        };
        let loads = self.loads.load(Ordering::Relaxed);
        let start = match worker {
            Worker::EndsOnce => 1 + loads.min(1),
            Worker::EndsAgain => 1 + loads,
            Worker::Well
            | Worker::Stale
            | Worker::Broken
            | Worker::Empty
            | Worker::CannotLoad
            | Worker::Hangs
            | Worker::Dies
            | Worker::Wrong => 1,
        };
        let broken = BrokenPackage { dir: "faq".into(), message: "no tokenizer.json".into() };
        WorkerInfo {
            protocol: Spoken::OURS.newest,
            release: Some(if worker == Worker::Stale { Digest::of(b"old") } else { self.release }),
            pid: 1,
            device: "cpu".into(),
            threads: 1,
            memory_bytes: 1 << 30,
            start,
            speaks: Spoken::OURS,
            names: Vec::new(),
            models: if worker == Worker::Empty { vec![] } else { vec![model] },
            broken: if worker == Worker::Broken { vec![broken] } else { vec![] },
        }
    }
}

impl Host for Gateway {
    fn health(&self) -> Health {
        let (answered, failed) = (self.answered, self.failed);
        Health { ready: true, compute: "cpu".into(), answered, failed }
    }

    fn vitals(&self) -> Vitals {
        Vitals {
            cpu_permille: 0,
            memory_used_bytes: 0,
            memory_total_bytes: 0,
            disk_free_bytes: 0,
            uptime_s: 0,
            answered: self.answered,
            failed: self.failed,
            latency_us_p99: 0,
        }
    }

    fn ask_worker(&self, slot: Slot, release: Digest, call: Call, _: Duration) -> WorkerReply<'_> {
        assert_eq!((slot, release), (Slot::B, self.release), "asked of the worker on trial");
        let reply = self.reply(&call);
        let hangs = self.worker == Worker::Hangs;
        Box::pin(async move { if hangs { std::future::pending().await } else { reply } })
    }
}

/// A state folder with a release on trial in slot b.
struct Rig {
    state: StateDir,
    release: Digest,
    trial: Trial,
    _folder: TempDir,
}

impl Rig {
    /// Gates that may take `limit_ms`.
    fn new(limit_ms: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        state.prepare(&RealDisk).unwrap();
        let release = Release::new("r2", 2, &[("model.onnx", b"weights")]);
        let mut manifest = Manifest::parse(&release.manifest).unwrap();
        (manifest.policy.load_ms, manifest.policy.golden_ms) = (limit_ms, limit_ms);
        let bytes = manifest.to_bytes().unwrap();
        let release = Digest::of(&bytes);
        put(&state.slot(Slot::B).manifest(), &bytes);
        let held = Held { slot: Slot::B, release, name: "r2".into(), counter: 2 };
        let trial = Trial {
            held,
            rollout: 7,
            tries: 3,
            load_ms: limit_ms,
            golden_ms: limit_ms,
            probation_ms: 60_000,
        };
        Self { state, release, trial, _folder: folder }
    }

    fn record(&self, state: State) {
        let record = BootRecord { state, ..BootRecord::new(UnixMs(1)) };
        let loaded = record::load(&RealDisk, &self.state, UnixMs(1));
        record::save(&RealDisk, &self.state, &record, &loaded).unwrap();
    }

    fn start(&self, gateway: Gateway, own: Option<Slot>) -> Running {
        let socket = self.state.root().join("mqtt.sock");
        let mut config = FleetConfig::new(self.state.clone(), socket, "0.1.0".into(), own);
        config.record_every = Duration::from_millis(20);
        let (news, queue) = mpsc::channel(1);
        let (status_sender, status) = watch::channel(FleetStatus::default());
        let (stop, stopped) = watch::channel(false);
        let beats = Heartbeats::default();
        let task = tokio::spawn(run(Parts {
            config,
            host: Arc::new(gateway),
            news: queue,
            status: status_sender,
            link_beat: beats.beat("link", PATIENCE),
            trial_beat: beats.beat("trial", PATIENCE),
            stop: stopped,
        }));
        Running { task, stop, status, _news: news }
    }

    fn verdict(&self) -> Option<Verdict> {
        let bytes = std::fs::read(self.state.verdict()).ok()?;
        Some(cbor::decode(&bytes, bytes.len()).unwrap())
    }

    /// The verdict of one gateway on one phase.
    async fn judged(&self, phase: State, gateway: Gateway, own: Option<Slot>) -> Verdict {
        self.record(phase);
        let running = self.start(gateway, own);
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        let wait = async {
            loop {
                looks.tick().await;
                if let Some(verdict) = self.verdict() {
                    return verdict;
                }
            }
        };
        let verdict = timeout(PATIENCE, wait).await.expect("no verdict");
        running.end().await;
        std::fs::remove_file(self.state.verdict()).unwrap();
        verdict
    }

    fn gateway(&self, worker: Worker) -> Gateway {
        let loads = AtomicU64::new(0);
        Gateway { worker, release: self.release, answered: 0, failed: 0, loads }
    }
}

struct Running {
    task: JoinHandle<Result<(), FleetError>>,
    stop: watch::Sender<bool>,
    status: watch::Receiver<FleetStatus>,
    _news: mpsc::Sender<protocol::report::Event>,
}

impl Running {
    async fn end(self) {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.task).await.expect("it did not end").unwrap().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own files")]
fn put(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn words(outcome: &Outcome) -> (bool, &str) {
    match outcome {
        Outcome::Passed { detail } => (true, detail),
        Outcome::Failed { reason } => (false, reason),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_gate_says_what_it_saw() {
    let rig = Rig::new(400);
    let (load, golden) = (Gate::Load, Gate::Golden);
    let cases = [
        (load, Worker::Well, true, "1 models loaded in"),
        (load, Worker::Stale, false, "serves another release"),
        (load, Worker::Broken, false, "`faq` is not usable: no tokenizer.json"),
        (load, Worker::Empty, false, "does not offer model `faq`"),
        (load, Worker::CannotLoad, false, "node 7 is unknown"),
        (load, Worker::Hangs, false, "longer than the 400 ms allowed"),
        (load, Worker::Dies, false, "was lost twice: the connection broke"),
        (load, Worker::EndsOnce, true, "1 models loaded in"),
        (load, Worker::EndsAgain, false, "ended while it loaded its models, 2 times"),
        (golden, Worker::Well, true, "faq: 12 of 12 golden answers"),
        (golden, Worker::Wrong, false, "3 of 12 golden answers were wrong or late: `VPN?`"),
        (golden, Worker::Hangs, false, "longer than the 400 ms allowed"),
        (golden, Worker::Dies, false, "was lost twice"),
    ];
    for (gate, worker, passed, expected) in cases {
        let trial = rig.trial.clone();
        let phase = match gate {
            Gate::Load => State::Staged { active: None, trial, deadline: NEVER },
            Gate::Golden | Gate::Probation => {
                State::Loaded { active: None, trial, deadline: NEVER }
            }
        };
        let verdict = rig.judged(phase, rig.gateway(worker), None).await;
        assert_eq!((verdict.release, verdict.gate), (rig.release, gate), "{worker:?}");
        let (did_pass, said) = words(&verdict.outcome);
        assert_eq!(did_pass, passed, "{gate:?} {worker:?}: {said}");
        assert!(said.contains(expected), "{gate:?} {worker:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_gateway_proves_itself_by_traffic_or_by_its_own_questions() {
    let rig = Rig::new(60_000);
    let probation = || State::Probation {
        active: None,
        trial: rig.trial.clone(),
        tries_left: 1,
        refunds_left: 1,
        deadline: NEVER,
        start: StartId::UNKNOWN,
    };
    let gateway = |worker, answered, failed| Gateway { answered, failed, ..rig.gateway(worker) };
    let own = Some(Slot::B);
    let cases = [
        (gateway(Worker::Dies, 20, 0), true, "20 good answers of 20 wanted (0 asked by itself)"),
        (gateway(Worker::Well, 3, 0), true, "27 good answers of 20 wanted (24 asked by itself)"),
        (gateway(Worker::Well, 3, 9), false, "9 requests failed, 3 were answered"),
        (gateway(Worker::Wrong, 0, 0), false, "3 of 12 golden answers"),
        (gateway(Worker::Dies, 0, 0), false, "its worker was lost 5 times"),
    ];
    for (gateway, passed, expected) in cases {
        let verdict = rig.judged(probation(), gateway, own).await;
        assert_eq!(verdict.gate, Gate::Probation);
        let (did_pass, said) = words(&verdict.outcome);
        assert!(did_pass == passed && said.contains(expected), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_of_another_slot_says_nothing_of_a_probation_and_a_trial_that_ends_is_left() {
    let rig = Rig::new(60_000);
    let mut running = rig.start(rig.gateway(Worker::Hangs), Some(Slot::A));
    let said = |words: &'static str| move |status: &FleetStatus| status.trial.contains(words);
    rig.record(State::Probation {
        active: None,
        trial: rig.trial.clone(),
        tries_left: 1,
        refunds_left: 1,
        deadline: NEVER,
        start: StartId::UNKNOWN,
    });
    let own = running.status.wait_for(said("does not run from the slot"));
    timeout(PATIENCE, own).await.unwrap().unwrap();
    // A gate that hangs is left when the updater gives the trial up, long before its time is over.
    rig.record(State::Staged { active: None, trial: rig.trial.clone(), deadline: NEVER });
    timeout(PATIENCE, running.status.wait_for(said("watching the load gate")))
        .await
        .unwrap()
        .unwrap();
    rig.record(State::FACTORY);
    timeout(PATIENCE, running.status.wait_for(said("no trial"))).await.unwrap().unwrap();
    assert!(rig.verdict().is_none());
    running.end().await;
}
