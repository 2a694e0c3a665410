//! The worker over a real socket.

use std::{
    io::{Read as _, Write as _},
    num::NonZeroUsize,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread::JoinHandle,
    time::Duration,
};

use engine::{
    assistant::Decision,
    embedder::LongText,
    encoder_spec::InputKind,
    golden::GoldenReport,
    pooling::cosine,
    text_tokenizer::Special,
    worker::{
        client::{Client, ClientError},
        failure::FailureKind,
        frame::{self, BODY_BYTES_MAX},
        lanes::QueuePolicy,
        message::{
            BytesInput, Call, Embeddings, FileEnds, ModelState, Priority, Reply, Request, Response,
            Scoring, Terms, TextInput,
        },
        policy::Policy,
        roster::{Roster, SignedPackages},
        serve::{CONNECTIONS_MAX, MemoryLimit, ServeError, WorkerConfig, run},
        spoken::Spoken,
        wire::{self, Frames},
    },
};
use proptest::prelude::*;
use protocol::digest::Digest;
use tempfile::TempDir;

use crate::fixture::{embedder, put, slot};

const MODEL: &str = "it-faq";
/// Requests that may wait where a full queue is to be seen.
const WAITING_MAX: usize = 64;
/// Longer than any answer takes on a busy machine.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

pub(crate) struct Worker {
    _folder: TempDir,
    socket: PathBuf,
    thread: JoinHandle<Result<(), ServeError>>,
}

impl Worker {
    pub(crate) fn start(folder: TempDir) -> Self {
        Self::under(Policy::default(), folder)
    }

    pub(crate) fn under(policy: Policy, folder: TempDir) -> Self {
        let socket = folder.path().join("w.sock");
        let config = WorkerConfig {
            threads: NonZeroUsize::MIN,
            release: Some(Digest::of(b"release")),
            memory: MemoryLimit::Unlimited,
            policy,
            ..WorkerConfig::new(folder.path().into(), UnixListener::bind(&socket).unwrap())
        };
        Self { _folder: folder, socket, thread: std::thread::spawn(move || run(config)) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket, WAIT).unwrap()
    }

    pub(crate) fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream
    }

    pub(crate) fn stop(self) {
        assert_eq!(self.client().call(Call::Shutdown).unwrap(), Reply::Bye);
        self.stopped();
    }

    /// Somebody else told it to.
    pub(crate) fn stopped(self) {
        self.thread.join().unwrap().unwrap();
    }
}

pub(crate) fn empty() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    folder
}

fn ask(text: &str) -> Call {
    Call::Ask { model: MODEL.into(), text: text.into(), lang: None, terms: Terms::default() }
}

fn embed(texts: &[&str]) -> Call {
    let texts = texts.iter().copied().map(Into::into).collect();
    Call::Embed {
        model: MODEL.into(),
        texts,
        long: LongText::Refuse,
        kind: InputKind::Plain,
        terms: Terms::default(),
    }
}

pub(crate) fn refused(result: Result<Reply, ClientError>) -> (FailureKind, String) {
    match result {
        Err(ClientError::Failed(failure)) => (failure.kind, failure.message),
        other => panic!("not refused: {other:?}"),
    }
}

/// What a worker says to raw bytes before it closes the connection.
fn said_to(worker: &Worker, bytes: &[u8]) -> Response {
    let mut stream = worker.stream();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut responses = Frames::new(stream.try_clone().unwrap());
    let response = responses.next(Some(WAIT)).unwrap().unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the connection is closed");
    frame::decode(&response).unwrap()
}

#[test]
fn a_worker_serves_from_hello_to_bye() {
    let worker = Worker::start(slot().0);
    let mut client = worker.client();
    let Reply::Hello(info) = client.call(Call::hello()).unwrap() else { panic!("no hello") };
    assert_eq!((info.protocol, info.speaks), (Spoken::OURS.newest, Spoken::OURS));
    assert_eq!((info.release, info.names), (Some(Digest::of(b"release")), vec![MODEL.to_owned()]));
    assert_eq!((info.pid, info.broken.len()), (std::process::id(), 0));
    assert_eq!((info.models[0].name.as_str(), info.models[0].dim), (MODEL, 384));
    assert_eq!(info.models[0].state, ModelState::OnDisk);

    let Reply::Loaded(loaded) = client.call(Call::Load { model: MODEL.into() }).unwrap() else {
        panic!("not loaded")
    };
    println!("{loaded:?}");
    assert!(loaded.load_us > 0 && loaded.resident_bytes > 20 << 20, "{loaded:?}");
    let Reply::Golden(report) = client.call(Call::Golden { model: MODEL.into() }).unwrap() else {
        panic!("no report")
    };
    assert!(report.passed(), "{report:?}");

    let Reply::Embeddings(found) = client.call(embed(&["Bonjour", "printer"])).unwrap() else {
        panic!("no embeddings")
    };
    let vectors = found.vectors();
    assert_eq!((vectors.len(), found.tokens.as_slice()), (2, [5, 3].as_slice()));
    let alone = embedder().embed_one("Bonjour", InputKind::Plain).unwrap().vector;
    assert!(cosine(&vectors[0], &alone) > 0.999_999);

    let Reply::Answer(answer) = client.call(ask("I forgot my password")).unwrap() else {
        panic!("no answer")
    };
    assert_eq!(answer.decision, Decision::Answered);
    let text = answer.answer.unwrap();
    assert_eq!((text.id.as_str(), text.source.as_str()), ("password.en", "handbook §1"));
    assert!(answer.score >= answer.threshold);
    let Reply::Answer(answer) = client.call(ask("Which wine goes with fish?")).unwrap() else {
        panic!("no answer")
    };
    assert_eq!((answer.decision, answer.answer), (Decision::Abstained, None));
    assert!(answer.nearest.is_some() && answer.score < answer.threshold);
    worker.stop();
}

#[test]
fn what_cannot_be_done_is_named_and_the_connection_lives_on() {
    let worker = Worker::start(slot().0);
    let mut client = worker.client();
    let megabyte = "a ".repeat(512 * 1024);
    let many = vec!["a"; 257];
    let long = "mot ".repeat(300);
    let cases = [
        (
            Call::Load { model: "no".into() },
            FailureKind::UnknownModel,
            "no model is named `no`; this slot has: it-faq",
        ),
        (ask(""), FailureKind::EmptyText, "text is empty"),
        (ask(&megabyte), FailureKind::TextTooLong, "text of 1048576 bytes"),
        (embed(&["ok", " "]), FailureKind::EmptyText, "text 1 of the request"),
        (embed(&[]), FailureKind::TextCount, "request has no text"),
        (embed(&many), FailureKind::TextCount, "request of 257 texts"),
        (embed(&[&long]), FailureKind::TooManyTokens, "more tokens than the model takes"),
    ];
    for (call, kind, message) in cases {
        let (found, said) = refused(client.call(call));
        assert_eq!(found, kind, "{said}");
        assert!(said.contains(message), "{said}");
    }
    assert_eq!(client.call(Call::Ping).unwrap(), Reply::Pong);
    worker.stop();
}

#[test]
fn a_broken_package_is_reported_and_refused() {
    let folder = empty();
    std::fs::create_dir(folder.path().join("models/half")).unwrap();
    put(&folder.path().join("models/half/model.toml"), b"schema = 1");
    let worker = Worker::start(folder);
    let mut client = worker.client();
    let Reply::Hello(info) = client.call(Call::hello()).unwrap() else { panic!("no hello") };
    assert_eq!((info.models.len(), info.broken[0].dir.as_str()), (0, "half"));
    assert!(info.broken[0].message.contains("missing field"), "{:?}", info.broken);
    let (kind, message) = refused(client.call(Call::Load { model: "half".into() }));
    assert_eq!(kind, FailureKind::CannotLoad);
    assert!(message.contains("model package `half` is broken"), "{message}");
    worker.stop();
}

#[test]
fn frames_that_are_none_are_refused_and_the_worker_lives_on() {
    let worker = Worker::start(empty());
    let oversized = u32::try_from(BODY_BYTES_MAX + 1).unwrap().to_le_bytes();
    let good = frame::encode(&Request { id: 9, call: Call::Ping }).unwrap();
    let cases: [(&[u8], &str); 6] = [
        (&oversized, "frame of 16777217 bytes refused; allowed are 1 to 16777216"),
        (&[0; 4], "frame of 0 bytes refused"),
        (&[1], "stream ended after 1 bytes of a frame"),
        (&good[..good.len() - 1], "stream ended after"),
        (&[3, 0, 0, 0, 0xff, 0xff, 0xff], "reading the body of a frame"),
        (&[&good[..], &[0xff; 8]].concat()[..], "pong first"),
    ];
    for (bytes, expected) in cases {
        if expected == "pong first" {
            let mut stream = worker.stream();
            stream.write_all(bytes).unwrap();
            let mut responses = Frames::new(stream);
            let body = responses.next(Some(WAIT)).unwrap().unwrap();
            let pong: Response = frame::decode(&body).unwrap();
            assert_eq!(pong, Response { id: 9, reply: Reply::Pong });
            let body = responses.next(Some(WAIT)).unwrap().unwrap();
            let refusal: Response = frame::decode(&body).unwrap();
            assert!(
                matches!(refusal.reply, Reply::Failed(failure) if failure.kind == FailureKind::BadFrame)
            );
            continue;
        }
        let Response { id: 0, reply: Reply::Failed(failure) } = said_to(&worker, bytes) else {
            panic!("{bytes:?} was taken")
        };
        assert_eq!(failure.kind, FailureKind::BadFrame);
        assert!(failure.message.contains(expected), "{}", failure.message);
    }
    assert_eq!(worker.client().call(Call::Ping).unwrap(), Reply::Pong);
    worker.stop();
}

#[test]
fn connections_above_the_bound_are_told_so() {
    let worker = Worker::start(empty());
    let mut clients: Vec<Client> = (0..CONNECTIONS_MAX).map(|_| worker.client()).collect();
    for client in &mut clients {
        assert_eq!(client.call(Call::Ping).unwrap(), Reply::Pong);
    }
    assert_eq!(refused(worker.client().call(Call::Ping)).0, FailureKind::Overloaded);
    assert_eq!(clients[0].call(Call::Shutdown).unwrap(), Reply::Bye);
    worker.thread.join().unwrap().unwrap();
}

#[test]
fn a_full_queue_says_overloaded_and_loses_nothing() {
    let small = Policy::default();
    let queue = QueuePolicy { orders_max: WAITING_MAX, ..small.queue };
    let worker = Worker::under(Policy { requests_max: WAITING_MAX, queue, ..small }, slot().0);
    worker.client().call(Call::Load { model: MODEL.into() }).unwrap();
    let mut stream = worker.stream();
    let text = "un texte assez long pour occuper le moteur ".repeat(3);
    let asked = 3 * WAITING_MAX as u64;
    for id in 1..=asked {
        wire::write(&mut stream, &Request { id, call: ask(&text) }).unwrap();
    }
    let (mut ids, mut overloaded) = (Vec::new(), 0);
    let mut responses = Frames::new(stream);
    for _ in 0..asked {
        let body = responses.next(Some(WAIT)).unwrap().unwrap();
        let response: Response = frame::decode(&body).unwrap();
        ids.push(response.id);
        if let Reply::Failed(failure) = response.reply {
            assert_eq!(failure.kind, FailureKind::Overloaded, "{failure:?}");
            assert!(failure.retry_after_ms.is_some_and(|ms| ms >= 20), "{failure:?}");
            overloaded += 1;
        } else {
            assert!(matches!(response.reply, Reply::Answer(_)), "{:?}", response.reply);
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=asked).collect::<Vec<_>>(), "every request has one response");
    assert!(overloaded > 0);
    worker.stop();
}

#[test]
fn a_model_that_its_release_does_not_sign_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("models").join("faq");
    std::fs::create_dir_all(&package).unwrap();
    put(&package.join("model.toml"), b"schema = 1");
    let broken = |signed: &SignedPackages| {
        let policy = Policy::default();
        let roster = Roster::open(folder.path(), Some(signed), &policy, || 0).unwrap();
        roster.broken().iter().map(|broken| broken.message.clone()).collect::<Vec<_>>().join(" ")
    };
    let none = broken(&SignedPackages::new());
    assert!(none.contains("the release names no such file"), "{none}");
    let other = [("model.toml".to_owned(), Digest::of(b"other"))].into();
    let other = broken(&[("faq".to_owned(), other)].into());
    assert!(other.contains("is not the file it should be"), "{other}");
    let same = [("model.toml".to_owned(), Digest::of(b"schema = 1"))].into();
    let same = broken(&[("faq".to_owned(), same)].into());
    assert!(same.contains("reading the description"), "as signed, it is read: {same}");
}

#[test]
fn a_listener_outlives_its_worker() {
    let folder = empty();
    let socket = folder.path().join("w.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    for _ in 0..2 {
        let mine = listener.try_clone().unwrap();
        let config = WorkerConfig {
            memory: MemoryLimit::Unlimited,
            ..WorkerConfig::new(folder.path().into(), mine)
        };
        let worker = std::thread::spawn(move || run(config));
        let mut client = Client::connect(&socket, WAIT).unwrap();
        assert_eq!(client.call(Call::Shutdown).unwrap(), Reply::Bye);
        worker.join().unwrap().unwrap();
    }
}

fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex(".{0,40}").unwrap()
}

fn terms() -> impl Strategy<Value = Terms> {
    (any::<bool>(), proptest::option::of(any::<u64>())).prop_map(|(bulk, deadline_us)| Terms {
        priority: if bulk { Priority::Bulk } else { Priority::Interactive },
        deadline_us,
    })
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        (any::<u16>(), any::<u16>())
            .prop_map(|(protocol, oldest)| Call::Hello { protocol, oldest }),
        text().prop_map(|model| Call::Load { model }),
        text().prop_map(|model| Call::Golden { model }),
        (text(), proptest::collection::vec(text(), 0..5), any::<bool>()).prop_map(
            |(model, texts, cut)| {
                let long = if cut { LongText::Cut } else { LongText::Refuse };
                Call::Embed { model, texts, long, kind: InputKind::Query, terms: Terms::default() }
            }
        ),
        (text(), text(), proptest::option::of(text()), terms())
            .prop_map(|(model, text, lang, terms)| Call::Ask { model, text, lang, terms }),
        (text(), text(), proptest::option::of(text()), terms()).prop_map(
            |(model, text, pair, terms)| {
                let (long, scoring) = (LongText::Cut, Scoring::Logits);
                Call::Classify {
                    model,
                    inputs: vec![TextInput { text, pair }],
                    long,
                    scoring,
                    terms,
                }
            }
        ),
        (text(), text(), proptest::collection::vec(text(), 0..4), terms()).prop_map(
            |(model, query, documents, terms)| {
                let (long, scoring) = (LongText::Cut, Scoring::Scores);
                Call::Rerank { model, query, documents, long, scoring, terms }
            }
        ),
        (text(), proptest::collection::vec(any::<u8>(), 0..40), any::<bool>(), terms()).prop_map(
            |(model, bytes, rows, terms)| {
                let (head, tail) = (bytes.clone().into(), Some(bytes.clone().into()));
                let input = match rows {
                    true => BytesInput::Rows(bytes.into()),
                    false => BytesInput::Files(vec![FileEnds { head, tail }]),
                };
                Call::Bytes { model, input, terms }
            }
        ),
        (text(), proptest::collection::vec(text(), 0..3))
            .prop_map(|(model, texts)| Call::Tokenize { model, texts, special: Special::Keep }),
        (text(), proptest::collection::vec(proptest::collection::vec(any::<u32>(), 0..4), 0..3))
            .prop_map(|(model, ids)| Call::Decode { model, ids, special: Special::Leave }),
        text().prop_map(|model| Call::Unload { model }),
        Just(Call::Statistics),
        Just(Call::Ping),
        Just(Call::Shutdown),
    ]
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(id in any::<u64>(), call in call()) {
        let request = Request { id, call };
        let bytes = frame::encode(&request).unwrap();
        let header = *bytes.first_chunk::<4>().unwrap();
        prop_assert_eq!(frame::body_len(header).unwrap(), bytes.len() - 4);
        prop_assert_eq!(frame::decode::<Request>(&bytes[4..]).unwrap(), request);
        for end in 4..bytes.len() {
            prop_assert!(frame::decode::<Request>(&bytes[4..end]).is_err());
        }
    }

    #[test]
    fn a_response_is_read_as_it_was_written(
        cosine in any::<f32>(), failures in proptest::collection::vec(text(), 0..3),
        rows in proptest::collection::vec(any::<f32>(), 0..20), kind in any::<bool>(),
    ) {
        let report = GoldenReport { cases: 3, failed: 1, worst_cosine: cosine, slowest_us: u64::MAX, failures };
        let rows: Vec<u8> = rows.iter().flat_map(|number| number.to_le_bytes()).collect();
        let embeddings = Embeddings {
            package: Digest::of(&rows), dim: 1, rows: rows.clone().into(), tokens: vec![1], compute_us: 7, queue_us: 3,
        };
        let reply = if kind { Reply::Golden(report) } else { Reply::Embeddings(embeddings) };
        let bytes = frame::encode(&Response { id: 1, reply }).unwrap();
        // Bytes are compared, not values: not-a-number differs from itself.
        let again: Response = frame::decode(&bytes[4..]).unwrap();
        prop_assert_eq!(frame::encode(&again).unwrap(), bytes);
        if let Reply::Embeddings(found) = again.reply {
            let numbers: Vec<u8> = found.vectors().concat().iter().flat_map(|n| n.to_le_bytes()).collect();
            prop_assert_eq!(numbers, rows);
        }
    }

    #[test]
    fn arbitrary_bytes_are_a_refusal_or_a_message_never_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        drop(frame::decode::<Request>(&bytes));
        drop(frame::decode::<Response>(&bytes));
    }
}

#[test]
fn the_bytes_of_a_frame_are_pinned() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let request = |call| hex(frame::encode(&Request { id: 7, call }).unwrap());
    let response = |reply| hex(frame::encode(&Response { id: 7, reply }).unwrap());
    let asked =
        Call::Ask { model: "m".into(), text: "é".into(), lang: None, terms: Terms::default() };
    let cases =
        [request(Call::Ping), request(Call::hello()), request(asked), response(Reply::Pong)];
    // A gateway of one release speaks to a worker of another; more of them in `versions.rs`.
    let expected = [
        "05000000a200070105",
        "09000000a2000701a100a10002",
        "10000000a2000701a104a300616d0162c3a902f6",
        "05000000a200070105",
    ];
    assert_eq!(cases, expected);
}
