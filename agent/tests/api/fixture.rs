//! A gateway's API and its worker, as the daemon builds them.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use agent::{
    daemon::worker_keeper::{self, Keeper},
    observe::{
        clock, events,
        heartbeat::Heartbeats,
        metrics::Metrics,
        status::{Mode, Snapshot, Status, WorkerHealth},
        tally::Tally,
    },
    serve::{
        bequest::Bequest,
        context::Context,
        router::{Access, router},
        server::{self, Listener, Server},
        taking::Taking,
        token::Token,
    },
    worker::client::WorkerClient,
};
use engine::{
    pack::{FaqRecipe, GoldenRecipe, Recipe, pack},
    package::{FAQ_FILE, MODEL_FILE, Spec, TOKENIZER_FILE},
    worker::{
        policy::Policy,
        serve::{MemoryLimit, WorkerConfig, run},
    },
};
use protocol::{digest::Digest, id::Slot};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle};

use crate::http::{self, Response};

pub(crate) const MODEL: &str = "it-faq";
pub(crate) const TOKEN: &str = "a-token-of-at-least-thirty-two-characters";

/// Everything that runs.
pub(crate) struct Gateway {
    pub(crate) runtime: Runtime,
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) listener: TcpListener,
    pub(crate) context: Context,
    pub(crate) taking: watch::Sender<Taking>,
    pub(crate) servers: Vec<JoinHandle<()>>,
    _stop: watch::Sender<bool>,
}

impl Gateway {
    /// A gateway in slot a, whose worker has loaded the real model.
    pub(crate) fn with_model() -> Self {
        let folder = slot();
        let worker = worker_of(&folder);
        Self::start(folder, worker)
    }

    /// The factory agent.
    pub(crate) fn without_model() -> Self {
        Self::start(TempDir::new().unwrap(), None)
    }

    pub(crate) fn start(folder: TempDir, worker: Option<WorkerClient>) -> Self {
        Self::start_with(folder, worker, |_| ())
    }

    /// The same with another context.
    pub(crate) fn start_with(
        folder: TempDir,
        worker: Option<WorkerClient>,
        change: impl FnOnce(&mut Context),
    ) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut context = context(worker);
        change(&mut context);
        let (taking, taken) = watch::channel(Taking::All);
        let (stop, stopping) = watch::channel(false);
        let servers = {
            let _entered = runtime.enter();
            if let Some(worker) = &context.worker {
                tokio::spawn(worker_keeper::run(keeper(&context, worker), stopping));
            }
            vec![
                serve_tcp(&context, &listener, taken.clone(), None),
                serve_unix(&context, &folder.path().join("api.sock"), taken),
            ]
        };
        let ready = context.status.watch();
        let gateway =
            Self { runtime, folder, address, listener, context, taking, servers, _stop: stop };
        if gateway.context.worker.is_some() {
            gateway.wait_ready(ready);
        }
        gateway
    }

    fn wait_ready(&self, mut status: watch::Receiver<Snapshot>) {
        self.runtime.block_on(async {
            let ready = status.wait_for(Snapshot::ready);
            let limit = std::time::Duration::from_secs(60);
            drop(tokio::time::timeout(limit, ready).await.unwrap().unwrap());
        });
    }

    pub(crate) fn send(&self, request: &str, body: &[u8]) -> Response {
        http::send(&mut http::connect(self.address), request, Some(TOKEN), body)
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.send(&format!("GET {path}"), b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.send(&format!("POST {path}"), body.to_string().as_bytes())
    }

    pub(crate) fn over_unix(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("api.sock")).unwrap()
    }
}

fn keeper(context: &Context, worker: &Arc<WorkerClient>) -> Keeper {
    Keeper {
        worker: Arc::clone(worker),
        release: None,
        status: Arc::clone(&context.status),
        metrics: Arc::clone(&context.metrics),
        events: events::channel().0,
        beat: Heartbeats::default().beat("worker", worker_keeper::SILENCE_MAX),
    }
}

/// What the routes need, as of a gateway that just started.
pub(crate) fn context(worker: Option<WorkerClient>) -> Context {
    let health = match &worker {
        Some(_) => WorkerHealth::Starting,
        None => WorkerHealth::Absent { reason: "no release is committed yet".into() },
    };
    let snapshot = Snapshot {
        mode: Mode::Single,
        started_at: clock::now(),
        slot: worker.as_ref().map(|_| Slot::A),
        release: worker.as_ref().map(|_| Digest::of(b"release")),
        release_name: None,
        record: None,
        worker: health,
        draining: false,
    };
    Context {
        status: Arc::new(Status::new(snapshot)),
        tally: Arc::new(Tally::default()),
        figures: Arc::default(),
        collector: None,
        metrics: Arc::new(Metrics::new("0", "a", "")),
        worker: worker.map(Arc::new),
        fleet: Arc::new(|| Value::Null),
        in_flight: Arc::default(),
    }
}

/// Serves the API with a token on a copy of `listener`, and on what lies in `bequest`. Must be called in a runtime.
pub(crate) fn serve_tcp(
    context: &Context,
    listener: &TcpListener,
    taking: watch::Receiver<Taking>,
    bequest: Option<&Arc<Bequest>>,
) -> JoinHandle<()> {
    let listener = listener.try_clone().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = Listener::Tcp(tokio::net::TcpListener::from_std(listener).unwrap());
    let access = Access::Token(Arc::new(Token::new(TOKEN).unwrap()));
    let left = bequest.map(|bequest| bequest.take_all()).unwrap_or_default();
    let server = Server {
        listener,
        router: router(context.clone(), access),
        connections: context.metrics.connections.clone(),
        taking,
        bequest: bequest.cloned(),
    };
    tokio::spawn(server::serve(server, left))
}

fn serve_unix(context: &Context, path: &Path, taking: watch::Receiver<Taking>) -> JoinHandle<()> {
    let listener = Listener::Unix(tokio::net::UnixListener::bind(path).unwrap());
    let server = Server {
        listener,
        router: router(context.clone(), Access::Socket),
        connections: context.metrics.connections.clone(),
        taking,
        bequest: None,
    };
    tokio::spawn(server::serve(server, Vec::new()))
}

/// A client of a worker with the models in `folder`, if there are any.
pub(crate) fn worker_of(folder: &TempDir) -> Option<WorkerClient> {
    worker_under(folder, Policy::default())
}

/// The same of a worker that shares the machine so.
pub(crate) fn worker_under(folder: &TempDir, policy: Policy) -> Option<WorkerClient> {
    if !folder.path().join("models").exists() {
        return None;
    }
    let socket = folder.path().join("worker.sock");
    serve_models(folder.path(), UnixListener::bind(&socket).unwrap(), policy);
    Some(WorkerClient::new(socket))
}

fn serve_models(slot: &Path, listener: UnixListener, policy: Policy) {
    let config = WorkerConfig {
        threads: NonZeroUsize::MIN,
        policy,
        memory: MemoryLimit::Unlimited,
        ..WorkerConfig::new(slot.to_owned(), listener)
    };
    thread::spawn(move || run(config).unwrap());
}

/// Reads one file of the real model. It is fetched, not committed.
pub(crate) fn real(file: &str) -> Vec<u8> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let dir = env::var_os("SOCLE_MODEL_DIR").map(PathBuf::from);
    let dir = dir.or_else(|| Some(cache?.join("socle/models/minilm-int8"))).unwrap();
    let path = dir.join(file);
    fs::read(&path).unwrap_or_else(|reason| {
        panic!("`{}`: {reason}: fetch the model with `cargo xtask fetch`", path.display())
    })
}

/// A slot with one assistant of three entries.
pub(crate) fn slot() -> TempDir {
    let faq = [
        ("password", "en", "How do I reset my password?", "Use the self-service portal."),
        ("vpn", "en", "How do I connect to the VPN from home?", "Open the VPN client."),
        ("mot-de-passe", "fr", "Comment réinitialiser mon mot de passe ?", "Par le portail."),
    ];
    let faq = lines(faq.map(|(id, lang, question, answer)| {
        serde_json::json!({"id": id, "lang": lang, "question": question, "paraphrases": [],
            "answer": answer, "source": "handbook §1"})
    }));
    let questions = [
        ("I forgot my password", "en", Some("password")),
        ("Which wine goes with fish?", "en", None),
        ("J'ai oublié mon mot de passe", "fr", Some("mot-de-passe")),
        ("Quel vin servir avec du poisson ?", "fr", None),
    ];
    let questions = lines(["calibrate", "test"].iter().flat_map(|split| {
        questions.map(|(text, lang, expect)| {
            serde_json::json!({"text": text, "lang": lang, "expect": expect, "split": split})
        })
    }));
    let (onnx, tokenizer) = (real(MODEL_FILE), real(TOKENIZER_FILE));
    let recipe = Recipe {
        spec: &Spec::sentence_encoder(MODEL, "1", 384),
        onnx: &onnx,
        tokenizer: &tokenizer,
        faq: Some(FaqRecipe {
            entries: &faq,
            questions: &questions,
            false_answers_allowed_per_mille: 0,
        }),
        golden: GoldenRecipe::Record(&["How do I reset my password?"]),
    };
    let packed = pack(&recipe, |_, _| ()).unwrap();
    let slot = TempDir::new().unwrap();
    let dir = slot.path().join("models").join(MODEL);
    fs::create_dir_all(&dir).unwrap();
    let given = [(MODEL_FILE, onnx), (TOKENIZER_FILE, tokenizer), (FAQ_FILE, faq)];
    let given = given.map(|(name, bytes)| (name.to_owned(), bytes));
    for (name, bytes) in packed.files.into_iter().chain(given) {
        put(&dir.join(name), &bytes);
    }
    slot
}

fn lines(values: impl IntoIterator<Item = Value>) -> Vec<u8> {
    let lines: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    lines.join("\n").into_bytes()
}

#[expect(clippy::disallowed_methods, reason = "a temporary folder of a test needs no durability")]
pub(crate) fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}
