//! Gateways of older and newer versions in front of this worker, by the bytes they send and read.

use std::{io::Write as _, os::unix::net::UnixStream};

use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    golden::GoldenInput,
    package::MODEL_FILE,
    worker::{
        failure::{Failure, FailureKind},
        frame,
        message::{Call, LoadedInfo, Reply, Request, Response, WorkerInfo},
        older,
        spoken::Spoken,
        wire::Frames,
    },
};
use proptest::prelude::*;
use protocol::{cbor, digest::Digest};
use serde::Serialize;

use crate::{
    families::classifier,
    first_protocol as first,
    fixture::{lay_scores, real, slot},
    heads::with_head,
    worker::{WAIT, Worker},
};

const MODEL: &str = "it-faq";

/// The body of the answer to `body`.
fn asked(stream: &mut UnixStream, body: &[u8]) -> Vec<u8> {
    stream.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).unwrap();
    stream.write_all(body).unwrap();
    // One answer comes for one request, so nothing of a next one is read along.
    Frames::new(stream.try_clone().unwrap()).next(Some(WAIT)).unwrap().unwrap()
}

fn hex(body: &[u8]) -> String {
    body.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A worker whose slot holds a task that protocol 1 does not know.
fn worker() -> Worker {
    let slot = slot().0;
    let golden = vec![GoldenInput::Text("printer".into())];
    lay_scores(slot.path(), &classifier(), &with_head(real(MODEL_FILE), 3), golden);
    Worker::start(slot)
}

#[test]
fn a_gateway_of_protocol_1_gates_this_worker() {
    let worker = worker();
    let mut stream = worker.stream();
    let mut ask = |call| {
        let body = first::written(&first::Request { id: 3, call });
        let response: first::Response = first::read(&asked(&mut stream, &body)).unwrap();
        assert_eq!(response.id, 3);
        response.reply
    };
    let first::Reply::Hello(info) = ask(first::Call::Hello { protocol: first::PROTOCOL }) else {
        panic!("no greeting")
    };
    // It takes no worker that says another version.
    assert_eq!((info.protocol, info.release), (first::PROTOCOL, Some(Digest::of(b"release"))));
    let names: Vec<_> = info.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!((names, info.broken.len()), (vec!["classification", MODEL], 0));
    for model in [MODEL, "classification"] {
        let loaded = ask(first::Call::Load { model: model.into() });
        assert!(matches!(loaded, first::Reply::Loaded(_)), "{loaded:?}");
        let first::Reply::Golden(report) = ask(first::Call::Golden { model: model.into() }) else {
            panic!("no report")
        };
        assert!(report.cases > 0 && report.failed == 0, "{report:?}");
    }
    let refused = ask(first::Call::Load { model: "gpt".into() });
    assert!(
        matches!(&refused, first::Reply::Failed(failure) if failure.kind == first::FailureKind::UnknownModel),
        "{refused:?}"
    );
    let text = || "How do I reset my password?".to_owned();
    let embed =
        first::Call::Embed { model: MODEL.into(), texts: vec![text()], long: first::LongText::Cut };
    assert!(matches!(ask(embed), first::Reply::Embeddings(found) if found.dim == 384));
    let answer = ask(first::Call::Ask { model: MODEL.into(), text: text(), lang: None });
    assert!(matches!(answer, first::Reply::Answer(found) if found.answer.is_some()));
    assert_eq!(ask(first::Call::Ping), first::Reply::Pong);
    assert_eq!(ask(first::Call::Shutdown), first::Reply::Bye);
    worker.stopped();
}

#[test]
fn what_protocol_1_wrote_is_pinned_and_read() {
    let name = || MODEL.to_owned();
    let cases = [
        (
            7,
            first::Call::Hello { protocol: 1 },
            Call::Hello { protocol: 1, oldest: 1 },
            "a2000701a100a10001",
        ),
        (
            8,
            first::Call::Load { model: name() },
            Call::Load { model: name() },
            "a2000801a101a1006669742d666171",
        ),
        (
            9,
            first::Call::Golden { model: name() },
            Call::Golden { model: name() },
            "a2000901a102a1006669742d666171",
        ),
    ];
    for (id, theirs, call, pinned) in cases {
        let body = first::written(&first::Request { id, call: theirs });
        assert_eq!(hex(&body), pinned);
        assert_eq!(frame::decode::<Request>(&body).unwrap(), Request { id, call });
    }
}

#[derive(Serialize)]
struct NewerRequest<T> {
    id: u64,
    call: T,
    urgency: Vec<String>,
}

/// Calls as they may be some day: some with more fields, and new ones. The place of each in the list is its number.
#[derive(Serialize)]
#[expect(dead_code, reason = "they stand for the numbers before the one that is used")]
enum NewerCall {
    Hello { protocol: u16, oldest: u16, wish: Option<String> },
    Load { model: String, pages: Vec<u8> },
    Golden { model: String, again: bool },
    C3,
    C4,
    C5,
    C6,
    C7,
    C8,
    C9,
    C10,
    C11,
    C12,
    C13,
    C14,
    Explain { model: String, text: String },
    Doze,
}

#[test]
fn a_newer_gateway_is_answered_and_told_what_is_not_known() {
    let worker = worker();
    let mut stream = worker.stream();
    let mut ask = |id, call| {
        let urgency = vec!["high".to_owned()];
        let body = cbor::encode(&NewerRequest { id, call, urgency }).unwrap();
        let response: Response = frame::decode(&asked(&mut stream, &body)).unwrap();
        assert_eq!(response.id, id);
        response.reply
    };
    let hello = |oldest| NewerCall::Hello { protocol: 9, oldest, wish: Some("tea".into()) };
    let Reply::Failed(Failure { kind, message, .. }) = ask(1, hello(5)) else {
        panic!("nothing in common, and no refusal")
    };
    assert_eq!(kind, FailureKind::Unsupported);
    assert!(message.contains("speaks protocol 1 to 2, the gateway 5 to 9"), "{message}");
    let Reply::Hello(info) = ask(2, hello(2)) else { panic!("no greeting") };
    assert_eq!((info.protocol, info.speaks), (2, Spoken::OURS));
    let load = NewerCall::Load { model: MODEL.into(), pages: vec![1, 2] };
    assert!(matches!(ask(3, load), Reply::Loaded(_)));
    let golden = NewerCall::Golden { model: MODEL.into(), again: true };
    assert!(matches!(ask(4, golden), Reply::Golden(report) if report.passed()));
    let explain = NewerCall::Explain { model: MODEL.into(), text: "why?".into() };
    for (id, call) in [(5, explain), (6, NewerCall::Doze)] {
        let Reply::Failed(failure) = ask(id, call) else { panic!("{id} was done") };
        assert_eq!(failure.kind, FailureKind::Unsupported, "{failure:?}");
        assert!(failure.message.contains("speaks protocol 1 to 2"), "{failure:?}");
    }
    // The connection goes on.
    assert!(matches!(ask(7, hello(1)), Reply::Hello(_)));
    worker.stop();
}

#[test]
fn each_start_of_a_worker_has_a_number_of_its_own() {
    let start = || {
        let worker = Worker::start(crate::worker::empty());
        let Reply::Hello(WorkerInfo { start, .. }) = worker.client().call(Call::hello()).unwrap()
        else {
            panic!("no greeting")
        };
        worker.stop();
        start
    };
    let (one, other) = (start(), start());
    assert!(one != 0 && other != 0 && one != other, "{one} {other}");
}

/// Whoever changes one of these lines breaks updates from every release that is out.
#[test]
fn what_protocol_2_writes_is_pinned() {
    let info = WorkerInfo {
        protocol: 2,
        release: None,
        pid: 5,
        device: "cpu".into(),
        models: Vec::new(),
        broken: Vec::new(),
        threads: 2,
        memory_bytes: 9,
        start: 11,
        speaks: Spoken { oldest: 1, newest: 2 },
        names: vec!["m".into()],
    };
    let failure =
        Failure { retry_after_ms: Some(20), ..Failure::new(FailureKind::Overloaded, "full") };
    let cases = [
        (
            Reply::Hello(info),
            "a2000101a16548656c6c6fab000201f6020503636370750480058006020709080b09a2000101020a81616d",
        ),
        (Reply::Failed(failure), "a2000101a1664661696c6564a30007016466756c6c0214"),
        (
            Reply::Failed(Failure::new(FailureKind::Unsupported, "")),
            "a2000101a1664661696c6564a2000f0160",
        ),
        (
            Reply::Loaded(LoadedInfo { load_us: 1, resident_bytes: 2 }),
            "a2000101a1664c6f61646564a200010102",
        ),
    ];
    for (reply, pinned) in cases {
        let response = Response { id: 1, reply };
        let body = cbor::encode(&response).unwrap();
        assert_eq!(hex(&body), pinned);
        assert_eq!(frame::decode::<Response>(&body).unwrap(), response);
    }
}

fn greeting() -> impl Strategy<Value = Call> {
    let name = || "[a-z@.0-9]{0,12}";
    prop_oneof![
        (any::<u16>(), any::<u16>())
            .prop_map(|(protocol, oldest)| Call::Hello { protocol, oldest }),
        name().prop_map(|model| Call::Load { model }),
        name().prop_map(|model| Call::Golden { model }),
        name().prop_map(|model| Call::Embed {
            model,
            texts: vec!["a".into()],
            long: LongText::Cut,
            kind: InputKind::Plain,
            terms: Default::default(),
        }),
    ]
}

/// `body`, a map of at most 22 entries at `at`, with one more: `key` and its value.
fn with_entry(body: &[u8], at: usize, key: u8, value: &[u8]) -> Vec<u8> {
    // The new entry comes first: the order of keys means nothing to who reads.
    let mut longer = body.to_vec();
    longer[at] += 1;
    longer.splice(at + 1..at + 1, [&[0x18, key], value].concat());
    longer
}

proptest! {
    /// A field that a newer version adds changes nothing in what this one reads, wherever it is added.
    #[test]
    fn a_field_that_is_not_known_is_skipped(
        id in 0_u64..20, call in greeting(), key in 30_u8..255, value in proptest::collection::vec(any::<i32>(), 0..4),
    ) {
        let request = Request { id, call };
        let body = cbor::encode(&request).unwrap();
        let value = cbor::encode(&value).unwrap();
        // A request is a map of two: its id in a byte, and the call, a map of one to a map.
        prop_assert_eq!((body[0], body[4] & 0xe0), (0xa2, 0xa0));
        let around = with_entry(&body, 0, key, &value);
        prop_assert_eq!(&frame::decode::<Request>(&around).unwrap(), &request);
        let within = with_entry(&body, 6, key, &value);
        prop_assert_eq!(&frame::decode::<Request>(&within).unwrap(), &request);
        prop_assert_eq!(frame::id(&within), Some(id));
    }

    /// What is said to a peer of protocol 1 it reads, whatever it was before.
    #[test]
    fn whatever_is_said_to_protocol_1_it_reads(kind in 0..FailureKind::ALL.len(), ms in any::<Option<u32>>(), text in ".{0,20}") {
        let failure = Failure { kind: FailureKind::ALL[kind], message: text, retry_after_ms: ms };
        for reply in [Reply::Failed(failure), Reply::Texts(Vec::new()), Reply::Unloaded, Reply::Pong] {
            let response = Response { id: 1, reply: older::reply(reply, first::PROTOCOL) };
            let body = cbor::encode(&response).unwrap();
            prop_assert!(first::read::<first::Response>(&body).is_ok(), "{:?}", response);
        }
    }
}
