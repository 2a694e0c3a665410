//! Workers of older and newer versions in front of this gateway's client, by the bytes they read and write.

use std::{
    io::Write as _,
    os::unix::net::UnixListener,
    path::PathBuf,
    thread::{self, JoinHandle},
    time::Duration,
};

use agent::{
    fleet::gates,
    worker::{by_release::ByRelease, call_error::CallError, client::WorkerClient},
};
use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    worker::{
        failure::FailureKind,
        frame,
        message::{Call, Request, Terms},
        spoken::Spoken,
        wire::Frames,
    },
};
use protocol::{cbor, digest::Digest};
use serde::Serialize;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{first_protocol as first, workers::manifest};

const WAIT: Duration = Duration::from_secs(60);

/// A worker of another version: `answer` gives for the body of a request the body of its response, until it gives none.
struct Peer {
    _folder: TempDir,
    socket: PathBuf,
    thread: JoinHandle<()>,
}

impl Peer {
    fn start(mut answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("w.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = Frames::new(stream.try_clone().unwrap());
            while let Some(body) = requests.next(Some(WAIT)).unwrap() {
                let Some(body) = answer(&body) else { return };
                stream.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).unwrap();
                stream.write_all(&body).unwrap();
            }
        });
        Self { _folder: folder, socket, thread }
    }

    fn end(self) {
        self.thread.join().unwrap();
    }
}

/// What a worker of protocol 1 answers, which refuses to read anything that is not of it.
fn first_answer(release: Digest, body: &[u8]) -> Option<Vec<u8>> {
    let request: first::Request = first::read(body).unwrap();
    let reply = match request.call {
        first::Call::Hello { .. } => first::Reply::Hello(first::WorkerInfo {
            protocol: first::PROTOCOL,
            release: Some(release),
            pid: 7,
            device: "cpu".into(),
            models: vec![first::ModelInfo {
                name: "faq".into(),
                version: "1".into(),
                task: first::Task::Embedding,
                dim: 384,
                digest: Digest::of(b"package"),
                text_bytes_max: 1,
                batch_max: 1,
                state: first::ModelState::OnDisk,
            }],
            broken: Vec::new(),
        }),
        first::Call::Load { .. } => {
            first::Reply::Loaded(first::LoadedInfo { load_us: 5, resident_bytes: 6 })
        }
        first::Call::Golden { .. } => first::Reply::Golden(first::GoldenReport {
            cases: 3,
            failed: 0,
            worst_cosine: 1.0,
            slowest_us: 9,
            failures: Vec::new(),
        }),
        first::Call::Embed { texts, .. } => first::Reply::Embeddings(first::Embeddings {
            package: Digest::of(b"package"),
            dim: 1,
            rows: 0.5_f32.to_le_bytes().to_vec().into(),
            tokens: vec![u32::try_from(texts.len()).unwrap()],
            compute_us: 4,
        }),
        first::Call::Ask { .. } => first::Reply::Failed(first::Failure {
            kind: first::FailureKind::WrongTask,
            message: "no assistant".into(),
        }),
        first::Call::Ping => first::Reply::Pong,
        first::Call::Shutdown => return None,
    };
    Some(first::written(&first::Response { id: request.id, reply }))
}

#[test]
fn a_worker_of_protocol_1_is_gated_by_this_gateway() {
    let manifest = manifest("r", &["faq"]);
    let release = Digest::of(&manifest.to_bytes().unwrap());
    let peer = Peer::start(move |body| first_answer(release, body));
    let client = ByRelease::default().client(peer.socket.clone(), release);
    let deadline = Terms { deadline_us: Some(1), ..Terms::default() };
    Runtime::new().unwrap().block_on(async {
        let info = client.hello(WAIT).await.unwrap();
        assert_eq!((info.protocol, info.speaks, info.start), (1, Spoken::FIRST, 0));
        assert_eq!(gates::introduced(&info, &release, &manifest), Ok(()));
        assert!(info.models[0].newest && info.models[0].preload, "{info:?}");
        assert_eq!(client.load("faq", WAIT).await.unwrap().load_us, 5);
        assert!(client.golden("faq", WAIT).await.unwrap().passed());
        // In its own words, without what it does not know.
        let plain = InputKind::Plain;
        let texts = vec!["a".to_owned()];
        let embed = client.embed("faq", texts.clone(), LongText::Cut, plain, deadline, WAIT);
        assert_eq!(embed.await.unwrap().vectors(), [[0.5]]);
        let asked = client.answer("faq", "?".into(), None, deadline, WAIT).await.unwrap_err();
        assert!(
            matches!(&asked, CallError::Failed(failure) if failure.kind == FailureKind::WrongTask)
        );
        let query = client.embed("faq", texts, LongText::Cut, InputKind::Query, deadline, WAIT);
        for asked in [query.await.map(drop), client.statistics(WAIT).await.map(drop)] {
            let refused = asked.unwrap_err();
            assert!(matches!(refused, CallError::Version { theirs: Spoken::FIRST }), "{refused:?}");
        }
        client.ping(WAIT).await.unwrap();
        client.shutdown(WAIT).await.unwrap();
    });
    peer.end();
}

#[derive(Serialize)]
struct NewerResponse<T> {
    id: u64,
    reply: T,
    since: u64,
}

/// Replies as they may be some day: those that carry something go by their name, the others by their place in the list.
#[derive(Serialize)]
#[expect(dead_code, reason = "they stand for the numbers before the one that is used")]
enum NewerReply {
    Hello(NewerInfo),
    Loaded(NewerLoaded),
    R2,
    R3,
    R4,
    Pong,
    Bye,
    Failed(NewerFailure),
    R8,
    R9,
    R10,
    R11,
    R12,
    Explained(String),
    Dozed,
}

#[derive(Serialize)]
struct NewerLoaded {
    load_us: u64,
    resident_bytes: u64,
    pages: Vec<u8>,
}

#[derive(Serialize)]
struct NewerFailure {
    kind: u8,
    message: String,
    retry_after_ms: Option<u32>,
    blame: Vec<String>,
}

#[derive(Serialize)]
struct NewerInfo {
    protocol: u16,
    release: Option<Digest>,
    pid: u32,
    device: String,
    models: Vec<NewerModel>,
    broken: Vec<u8>,
    threads: u32,
    memory_bytes: u64,
    start: u64,
    speaks: Spoken,
    names: Vec<String>,
    mood: Vec<String>,
}

#[derive(Serialize)]
struct NewerModel {
    name: String,
    version: String,
    task: u8,
    dim: u32,
    digest: Digest,
    text_bytes_max: u32,
    batch_max: u32,
    state: u8,
}

fn newer_info(protocol: u16, release: Digest) -> NewerInfo {
    let model = |name: &str, task| NewerModel {
        name: name.into(),
        version: "1".into(),
        task,
        dim: 384,
        digest: Digest::of(b"package"),
        text_bytes_max: 1,
        batch_max: 1,
        state: 0,
    };
    NewerInfo {
        protocol,
        release: Some(release),
        pid: 7,
        device: "cpu".into(),
        // The second does something that is not known here.
        models: vec![model("faq", 0), model("dreams", 77)],
        broken: Vec::new(),
        threads: 1,
        memory_bytes: 1,
        start: 8,
        speaks: Spoken { oldest: 2, newest: 9 },
        names: vec!["faq".into(), "dreams".into()],
        mood: vec!["good".into()],
    }
}

fn newer(id: u64, reply: NewerReply) -> Option<Vec<u8>> {
    Some(cbor::encode(&NewerResponse { id, reply, since: 3 }).unwrap())
}

#[test]
fn a_newer_worker_is_gated_by_what_can_be_read_of_it() {
    let manifest = manifest("r", &["faq", "dreams"]);
    let release = Digest::of(&manifest.to_bytes().unwrap());
    let failed = |kind| {
        let (message, blame) = ("not today".into(), vec!["weather".into()]);
        NewerReply::Failed(NewerFailure { kind, message, retry_after_ms: None, blame })
    };
    let peer = Peer::start(move |body| {
        let Request { id, call } = frame::decode(body).unwrap();
        let answer = match call {
            Call::Hello { protocol, oldest } => {
                assert_eq!(Spoken { oldest, newest: protocol }, Spoken::OURS);
                NewerReply::Hello(newer_info(2, release))
            }
            Call::Load { model } if model == "faq" => {
                NewerReply::Loaded(NewerLoaded { load_us: 5, resident_bytes: 6, pages: vec![1] })
            }
            Call::Load { model } if model == "dreams" => NewerReply::Explained("it sleeps".into()),
            Call::Load { .. } => NewerReply::Dozed,
            Call::Golden { .. } => failed(200),
            Call::Ping => NewerReply::Pong,
            Call::Shutdown
            | Call::Embed { .. }
            | Call::Ask { .. }
            | Call::Classify { .. }
            | Call::Rerank { .. }
            | Call::Bytes { .. }
            | Call::Tokenize { .. }
            | Call::Decode { .. }
            | Call::Statistics
            | Call::Unload { .. } => return None,
        };
        newer(id, answer)
    });
    let client = WorkerClient::for_release(peer.socket.clone(), Some(release));
    Runtime::new().unwrap().block_on(async {
        let info = client.hello(WAIT).await.unwrap();
        let names: Vec<_> = info.models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!((names, info.start, info.speaks.newest), (vec!["faq"], 8, 9));
        assert_eq!(gates::introduced(&info, &release, &manifest), Ok(()));
        assert_eq!(client.load("faq", WAIT).await.unwrap().load_us, 5);
        // An answer that cannot be read is an error of its own caller; the connection stays.
        for model in ["dreams", "naps"] {
            let unread = client.load(model, WAIT).await.unwrap_err();
            assert!(matches!(unread, CallError::Unreadable(_)), "{model}: {unread:?}");
        }
        let CallError::Failed(failure) = client.golden("faq", WAIT).await.unwrap_err() else {
            panic!("no refusal")
        };
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Other, "not today"));
        client.ping(WAIT).await.unwrap();
        client.shutdown(WAIT).await.unwrap();
    });
    peer.end();
}

#[test]
fn a_worker_with_no_version_in_common_is_refused_with_both_named() {
    let release = Digest::of(b"r");
    let peer = Peer::start(move |body| {
        newer(frame::id(body).unwrap(), NewerReply::Hello(newer_info(9, release)))
    });
    let client = WorkerClient::for_release(peer.socket.clone(), Some(release));
    let refused = Runtime::new().unwrap().block_on(client.hello(WAIT)).unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("worker speaks protocol 9, this gateway 1 to 2"), "{said}");
    drop(client);
    peer.end();
}
