//! Models that give scores through each dialect, on a worker that is a process of its own.

use std::{fs, os::unix::net::UnixListener, path::Path, process::Child};

use agent::worker::client::WorkerClient;
use engine::{
    embedder::Embedder,
    encoder_spec::{InputKind, Pooling},
    golden::{self, GoldenInput},
    head::{Activation, ClassificationSpec, RerankSpec},
    model::Model,
    package::{GOLDEN_FILE, MODEL_FILE, SPEC_FILE, Spec, TOKENIZER_FILE, Task},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    fixture::{Gateway, put, real},
    heads::{logits, with_head},
    workers,
};

const LABELS: [&str; 3] = ["mail", "print", "other"];

/// A gateway in front of a real worker process, which ends with it.
struct Served {
    gateway: Gateway,
    worker: Child,
}

impl Served {
    fn start(folder: TempDir) -> Self {
        let socket = folder.path().join("w.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let worker = workers::start(folder.path(), &listener, None);
        let gateway = Gateway::start(folder, Some(WorkerClient::new(socket)));
        Self { gateway, worker }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.worker.kill());
        drop(self.worker.wait());
    }
}

fn scored(task: Task, dim: u32) -> Spec {
    let mut spec = Spec::sentence_encoder(&format!("{task:?}").to_lowercase(), "1", 384);
    (spec.task, spec.encoder.dim) = (task, dim);
    spec.encoder.output = "logits".into();
    spec.encoder.pooling = Pooling::None;
    spec.encoder.normalize = false;
    spec
}

fn lay(slot: &Path, spec: &Spec, input: GoldenInput) {
    let (onnx, tokenizer) = (head(spec.encoder.dim), real(TOKENIZER_FILE));
    let model = Model::assemble(spec.clone(), &onnx, &tokenizer).unwrap();
    let golden = golden::expect_scores(vec![input], |input| model.scores(input)).unwrap();
    let dir = slot.join("models").join(&spec.name);
    fs::create_dir_all(&dir).unwrap();
    put(&dir.join(MODEL_FILE), &onnx);
    put(&dir.join(TOKENIZER_FILE), &tokenizer);
    put(&dir.join(SPEC_FILE), spec.to_toml().unwrap().as_bytes());
    put(&dir.join(GOLDEN_FILE), &serde_json::to_vec(&golden).unwrap());
}

fn head(columns: u32) -> Vec<u8> {
    with_head(real(MODEL_FILE), usize::try_from(columns).unwrap())
}

/// A slot with a classifier of three labels and a cross-encoder.
fn slot() -> TempDir {
    let slot = TempDir::new().unwrap();
    let labels = LABELS.map(str::to_owned).to_vec();
    let classifier = Spec {
        classification: Some(ClassificationSpec { labels, activation: Activation::Softmax }),
        ..scored(Task::Classification, 3)
    };
    lay(slot.path(), &classifier, GoldenInput::Text("the printer".into()));
    let reranker = Spec {
        rerank: Some(RerankSpec { activation: Activation::Sigmoid }),
        ..scored(Task::Rerank, 1)
    };
    lay(slot.path(), &reranker, GoldenInput::Pair("paper".into(), "the printer has none".into()));
    slot
}

/// What the models must give, by another way: the state of the first token, and the head in plain arithmetic.
struct Expected(Embedder);

impl Expected {
    fn new() -> Self {
        let mut spec = Spec::sentence_encoder("states", "1", 384);
        (spec.encoder.pooling, spec.encoder.normalize) = (Pooling::Cls, false);
        Self(Embedder::load(&spec, &real(MODEL_FILE), &real(TOKENIZER_FILE)).unwrap())
    }

    fn class_logits(&self, text: &str) -> Vec<f32> {
        logits(&self.0.embed_one(text, InputKind::Plain).unwrap().vector, 3)
    }

    fn classes(&self, text: &str) -> Vec<f32> {
        let mut scores = self.class_logits(text);
        Activation::Softmax.apply(&mut scores);
        scores
    }

    fn class_of_pair(&self, text: &str, pair: &str) -> Vec<f32> {
        let mut scores = logits(&self.0.embed_pair(text, pair).unwrap().vector, 3);
        Activation::Softmax.apply(&mut scores);
        scores
    }

    fn relevance(&self, query: &str, document: &str) -> (f32, f32) {
        let raw = logits(&self.0.embed_pair(query, document).unwrap().vector, 1);
        let mut score = raw.clone();
        Activation::Sigmoid.apply(&mut score);
        (raw[0], score[0])
    }
}

fn near(found: f32, expected: f32) {
    assert!((found - expected).abs() < 2e-3 * expected.abs().max(1.0), "{found} {expected}");
}

fn number(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

/// The scores of TEI's answer, which come best first, in the order of the labels.
fn by_label(answer: &Value) -> Vec<f32> {
    let rows = answer.as_array().unwrap();
    let scores: Vec<f32> = rows.iter().map(|row| number(&row["score"])).collect();
    assert!(scores.is_sorted_by(|one, next| one >= next), "{answer}");
    let of = |label: &&str| rows.iter().find(|row| row["label"] == **label).unwrap();
    LABELS.iter().map(|label| number(&of(label)["score"])).collect()
}

fn all_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).for_each(|(found, expected)| near(*found, *expected));
}

#[test]
fn a_classifier_and_a_cross_encoder_answer_in_every_dialect_from_a_process_of_their_own() {
    let served = Served::start(slot());
    let (gateway, expected) = (&served.gateway, Expected::new());
    let texts = ["The printer is out of paper.", "My mailbox is full."];

    // text-embeddings-inference: one text, a pair, several of either, and the raw numbers.
    let one = gateway.post("/predict", &json!({"inputs": texts[0]}));
    assert_eq!(one.status, 200, "{}", one.message());
    all_near(&by_label(&one.json()), &expected.classes(texts[0]));
    let several = gateway.post("/predict", &json!({"inputs": [[texts[0]], [texts[1]]]})).json();
    for (row, text) in several.as_array().unwrap().iter().zip(texts) {
        all_near(&by_label(row), &expected.classes(text));
    }
    let pair = gateway.post("/predict", &json!({"inputs": [[texts[0], texts[1]]]})).json();
    all_near(&by_label(&pair[0]), &expected.class_of_pair(texts[0], texts[1]));
    let raw = gateway.post("/predict", &json!({"inputs": texts[0], "raw_scores": true})).json();
    all_near(&by_label(&raw), &expected.class_logits(texts[0]));

    // The Open Inference Protocol.
    let infer = json!({"inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [2], "data": texts}]});
    let answer = gateway.post("/v2/models/classification/infer", &infer);
    assert_eq!(answer.status, 200, "{}", answer.message());
    let answer = answer.json();
    let output = |name: &str| {
        let outputs = answer["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == name).unwrap().clone()
    };
    let (label, scores) = (output("label"), output("scores"));
    assert_eq!((&label["shape"], &scores["shape"]), (&json!([2]), &json!([2, 3])));
    let found: Vec<f32> = scores["data"].as_array().unwrap().iter().map(number).collect();
    for (at, text) in texts.iter().enumerate() {
        let wanted = expected.classes(text);
        all_near(&found[at * 3..at * 3 + 3], &wanted);
        let best = engine::head::best(&wanted).unwrap().0;
        assert_eq!(label["data"][at], LABELS[best]);
    }

    // The cross-encoder, in both forms.
    let query = "no paper";
    let documents = ["Fill the paper tray.", "Open the VPN client.", "Paper is in room 4."];
    let tei = gateway.post("/rerank", &json!({"query": query, "texts": documents}));
    assert_eq!(tei.status, 200, "{}", tei.message());
    let tei = tei.json();
    assert_eq!(tei.as_array().unwrap().len(), 3);
    let ranked: Vec<f32> =
        tei.as_array().unwrap().iter().map(|row| number(&row["score"])).collect();
    assert!(ranked.is_sorted_by(|one, next| one >= next), "{tei}");
    let at = |row: &Value| usize::try_from(row["index"].as_u64().unwrap()).unwrap();
    for row in tei.as_array().unwrap() {
        near(number(&row["score"]), expected.relevance(query, documents[at(row)]).1);
    }
    let raw = json!({"query": query, "texts": documents, "raw_scores": true});
    for row in gateway.post("/rerank", &raw).json().as_array().unwrap() {
        near(number(&row["score"]), expected.relevance(query, documents[at(row)]).0);
    }
    let cohere = json!({"model": "rerank", "query": query, "documents": documents, "top_n": 2});
    for path in ["/v1/rerank", "/v2/rerank", "/rerank"] {
        let answer = gateway.post(path, &cohere).json();
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), 2, "{path}: {answer}");
        for (result, best) in results.iter().zip(tei.as_array().unwrap()) {
            assert_eq!(result["index"], best["index"], "{path}");
            near(number(&result["relevance_score"]), number(&best["score"]));
        }
    }
    assert_eq!(gateway.context.tally.failed(), 0);
    let wrong = gateway.post("/embed", &json!({"inputs": "a"}));
    assert_eq!(wrong.status, 404, "no model of this slot embeds: {}", wrong.message());
    let pid = gateway.get("/v1/status").json()["worker"]["pid"].as_u64();
    assert_eq!(pid, Some(u64::from(served.worker.id())), "it was that process that answered");
}
