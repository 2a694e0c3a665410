//! Models that give scores, on a worker: a classifier, a reranker and Magika.

use engine::{
    embedder::{Embedder, LongText},
    encoder_spec::{InputKind, Pooling},
    golden::GoldenInput,
    head::{Activation, ClassificationSpec, RerankSpec},
    magika,
    model::Model,
    package::{MODEL_FILE, Package, Spec, TOKENIZER_FILE, Task},
    text_tokenizer::Special,
    worker::{
        failure::FailureKind,
        message::{BytesInput, Call, FileEnds, Reply, Scores, Scoring, Terms, TextInput},
    },
};

use crate::{
    fixture::{lay_scores, magika as magika_file, real, spec},
    heads::{logits, with_head},
    worker::{Worker, empty, refused},
};

fn scored(task: Task, dim: u32) -> Spec {
    let mut spec = spec();
    spec.name = format!("{task:?}").to_lowercase();
    (spec.task, spec.encoder.dim) = (task, dim);
    spec.encoder.output = "logits".into();
    spec.encoder.pooling = Pooling::None;
    spec.encoder.normalize = false;
    spec
}

pub(crate) fn classifier() -> Spec {
    let labels = ["mail", "print", "other"].map(str::to_owned).to_vec();
    Spec {
        classification: Some(ClassificationSpec { labels, activation: Activation::Softmax }),
        ..scored(Task::Classification, 3)
    }
}

fn reranker() -> Spec {
    let rerank = Some(RerankSpec { activation: Activation::Sigmoid });
    Spec { rerank, ..scored(Task::Rerank, 1) }
}

/// The real model, giving the state of the first token.
fn first_states() -> Embedder {
    let mut spec = spec();
    (spec.encoder.pooling, spec.encoder.normalize) = (Pooling::Cls, false);
    Embedder::load(&spec, &real(MODEL_FILE), &real(TOKENIZER_FILE)).unwrap()
}

fn near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 2e-3 * expected.abs().max(1.0), "{found} {expected}");
    }
}

fn scores(reply: Reply) -> Scores {
    let Reply::Scores(scores) = reply else { panic!("no scores: {reply:?}") };
    scores
}

#[test]
fn a_classifier_and_a_reranker_give_what_their_head_says() {
    let slot = empty();
    let text = |text: &str| GoldenInput::Text(text.into());
    let dir = lay_scores(
        slot.path(),
        &classifier(),
        &with_head(real(MODEL_FILE), 3),
        vec![text("the printer")],
    );
    let report = Model::load(&Package::open(&dir).unwrap()).unwrap().check_golden(|| 0).unwrap();
    assert!(report.passed() && report.cases == 1, "{report:?}");
    let pair = GoldenInput::Pair("paper".into(), "the printer has none".into());
    lay_scores(slot.path(), &reranker(), &with_head(real(MODEL_FILE), 1), vec![pair]);
    let worker = Worker::start(slot);
    let mut client = worker.client();
    let states = first_states();

    let input = |text: &str, pair: Option<&str>| TextInput {
        text: text.into(),
        pair: pair.map(str::to_owned),
    };
    let classify = |scoring| Call::Classify {
        model: "classification".into(),
        inputs: vec![input("The printer is out of paper.", None), input("hello", Some("world"))],
        long: LongText::Refuse,
        scoring,
        terms: Terms::default(),
    };
    let raw = scores(client.call(classify(Scoring::Logits)).unwrap());
    let alone = states.embed_one("The printer is out of paper.", InputKind::Plain).unwrap().vector;
    near(&raw.vectors()[0], &logits(&alone, 3));
    let together = states.embed_pair("hello", "world").unwrap();
    near(&raw.vectors()[1], &logits(&together.vector, 3));
    assert_eq!(raw.tokens[1], together.tokens);
    let found = scores(client.call(classify(Scoring::Scores)).unwrap());
    let mut expected = logits(&alone, 3);
    Activation::Softmax.apply(&mut expected);
    near(&found.vectors()[0], &expected);
    let (at, _) = engine::head::best(&expected).unwrap();
    assert_eq!(found.labels[0].as_deref(), Some(["mail", "print", "other"][at]));

    let documents = ["Fill the paper tray.", "Open the VPN client.", "Paper is in room 4."];
    let rerank = Call::Rerank {
        model: "rerank".into(),
        query: "no paper".into(),
        documents: documents.map(str::to_owned).to_vec(),
        long: LongText::Cut,
        scoring: Scoring::Scores,
        terms: Terms::default(),
    };
    let found = scores(client.call(rerank).unwrap());
    assert_eq!((found.columns, found.labels.len()), (1, 0));
    for (row, document) in found.vectors().iter().zip(documents) {
        let mut expected = logits(&states.embed_pair("no paper", document).unwrap().vector, 1);
        Activation::Sigmoid.apply(&mut expected);
        near(row, &expected);
    }

    let wrong = Call::Embed {
        model: "rerank".into(),
        texts: vec!["a".into()],
        long: LongText::Cut,
        kind: InputKind::Plain,
        terms: Terms::default(),
    };
    let (kind, said) = refused(client.call(wrong));
    assert_eq!(kind, FailureKind::WrongTask);
    assert!(said.contains("`rerank` does not give embeddings, its task is rerank"), "{said}");
    worker.stop();
}

#[test]
fn tokens_are_shown_as_the_model_reads_them() {
    let worker = Worker::start(crate::fixture::slot().0);
    let mut client = worker.client();
    let long = "word ".repeat(400);
    let tokenize = |text: &str, special| Call::Tokenize {
        model: "it-faq".into(),
        texts: vec![text.into()],
        special,
    };
    let mut read = |call| {
        let Reply::Tokens(tokens) = client.call(call).unwrap() else { panic!("no tokens") };
        tokens.into_iter().next().unwrap()
    };
    let tokens = read(tokenize("Un café, unbelievable", Special::Keep));
    assert_eq!((tokens.tokens[0].as_str(), tokens.special[0]), ("[CLS]", 1));
    assert_eq!(tokens.tokens.last().map(String::as_str), Some("[SEP]"));
    let text = "Un café, unbelievable";
    let cafe = tokens.offsets.iter().find(|offsets| offsets.0 == 3).unwrap();
    assert_eq!(&text[cafe.0 as usize..cafe.1 as usize], "café");
    let bare = read(tokenize("Un café, unbelievable", Special::Leave));
    assert_eq!(bare.ids, tokens.ids[1..tokens.ids.len() - 1]);
    assert_eq!(read(tokenize(&long, Special::Leave)).ids.len(), 400, "nothing is cut");
    assert_eq!(read(tokenize(&long, Special::Keep)).ids.len(), 402);
    let decode =
        Call::Decode { model: "it-faq".into(), ids: vec![bare.ids], special: Special::Leave };
    assert_eq!(
        worker.client().call(decode).unwrap(),
        Reply::Texts(vec!["un cafe, unbelievable".into()])
    );
    worker.stop();
}

#[test]
fn magika_tells_files_apart_as_onnxruntime_does() {
    const RUST: &[u8] = b"//! A crate.\nuse std::collections::HashMap;\n\n/// Doc.\npub fn main() {\n    let mut map: HashMap<String, u32> = HashMap::new();\n    map.insert(\"a\".into(), 1);\n    println!(\"{map:?}\");\n}\n";
    const JSON: &[u8] =
        b"{\"name\": \"socle\", \"version\": 1, \"items\": [1, 2, 3], \"nested\": {\"a\": null, \"b\": true}}\n";
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89\x00\x00\x00\rIDATx\x9cc\xf8\xff\xff?\x00\x05\xfe\x02\xfe\xdc\xccY\xe7\x00\x00\x00\x00IEND\xaeB`\x82";
    let long: Vec<u8> = (0..400)
        .flat_map(|at| {
            format!("line {at} of a long text about the weather in spring\n").into_bytes()
        })
        .collect();
    let slot = empty();
    let spec = magika::describe("files", "3.3", &magika_file("config.min.json")).unwrap();
    let labels = spec.bytes.as_ref().unwrap().labels.clone();
    let golden = [RUST, PNG].map(|file| GoldenInput::Bytes(file.to_vec())).to_vec();
    let dir = lay_scores(slot.path(), &spec, &magika_file(MODEL_FILE), golden);
    let report = Model::load(&Package::open(&dir).unwrap()).unwrap().check_golden(|| 0).unwrap();
    assert!(report.passed() && report.cases == 2, "{report:?}");
    let worker = Worker::start(slot);
    let mut client = worker.client();
    let mut ask =
        |input| client.call(Call::Bytes { model: "files".into(), input, terms: Terms::default() });
    let whole = |bytes: &[u8]| FileEnds { head: bytes.to_vec().into(), tail: None };
    // What onnxruntime 1.x gives: the best label, its score, and whether it reaches its threshold.
    let ends = FileEnds {
        head: long[..4096].to_vec().into(),
        tail: Some(long[long.len() - 4096..].to_vec().into()),
    };
    let cases = [
        (whole(RUST), "rust", 0.999_709, Some("rust")),
        (whole(JSON), "jsonl", 0.898_433, Some("jsonl")),
        (whole(PNG), "png", 0.999_736, Some("png")),
        (whole(&long), "csv", 0.335_547, None),
        (ends, "csv", 0.335_547, None),
    ];
    let files = cases.iter().map(|(file, ..)| file.clone()).collect();
    let found = scores(ask(BytesInput::Files(files)).unwrap());
    for ((_, label, score, named), (row, given)) in
        cases.iter().zip(found.vectors().iter().zip(&found.labels))
    {
        let (at, best) = engine::head::best(row).unwrap();
        assert_eq!((labels[at].as_str(), given.as_deref()), (*label, *named));
        assert!((best - score).abs() < 1e-3, "{label}: {best} {score}");
    }
    let rows: Vec<u8> = spec
        .bytes
        .as_ref()
        .unwrap()
        .window(RUST, RUST)
        .into_iter()
        .flat_map(i32::to_le_bytes)
        .collect();
    let same = scores(ask(BytesInput::Rows(rows.clone().into())).unwrap());
    assert_eq!(same.vectors()[0], found.vectors()[0], "one alone as among others");
    let (kind, said) = refused(ask(BytesInput::Rows(rows[..40].to_vec().into())));
    assert_eq!(kind, FailureKind::BadInput, "{said}");
    let (kind, said) = refused(ask(BytesInput::Files(vec![whole(b"  ab ")])));
    assert_eq!(kind, FailureKind::EmptyText);
    assert!(said.contains("fewer than 8 bytes"), "{said}");
    worker.stop();
}
