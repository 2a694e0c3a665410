//! Packages: what is refused when one is opened or loaded, and what a golden set is worth.

use std::{error::Error, fs, num::NonZeroUsize, path::Path, time::Duration};

use engine::{
    assistant::Decision,
    encoder::Encoder,
    encoder_spec::{EncoderInput, Pooling, Prefixes},
    golden::GoldenReport,
    head::{Activation, BytesSpec, ClassificationSpec, RerankSpec},
    index::Index,
    model::Model,
    package::{
        FAQ_FILE, GOLDEN_FILE, INDEX_FILE, MODEL_FILE, Package, SPEC_FILE, Spec, TOKENIZER_FILE,
        Task,
    },
    sequence::Sequence,
};
use protocol::digest::Digest;

use crate::fixture::{GOLDEN_TEXTS, put, real, slot, spec};

fn load(dir: &Path) -> Result<Model, Box<dyn Error>> {
    Ok(Model::load(&Package::open(dir)?)?)
}

/// The whole chain of why `dir` does not load.
fn refusal(dir: &Path) -> String {
    let mut text = String::new();
    let Err(reason) = load(dir) else { return "loaded".into() };
    let mut reason: Option<&dyn Error> = Some(&*reason);
    while let Some(error) = reason {
        text = format!("{text}{}{error}", if text.is_empty() { "" } else { ": " });
        reason = error.source();
    }
    text.replace(&dir.display().to_string(), "PKG")
}

fn golden(dir: &Path) -> GoldenReport {
    load(dir).unwrap().check_golden(|| 0).unwrap()
}

/// Flips bits in the middle of the word embeddings: the file stays well-formed and the model answers garbage.
fn poison(dir: &Path) {
    let mut onnx = fs::read(dir.join(MODEL_FILE)).unwrap();
    for byte in &mut onnx[262_144..11_534_336] {
        *byte ^= 0x55;
    }
    let mut index = Index::decode(&fs::read(dir.join(INDEX_FILE)).unwrap()).unwrap();
    index.model = Digest::of(&onnx);
    put(&dir.join(MODEL_FILE), &onnx);
    put(&dir.join(INDEX_FILE), &index.encode());
}

#[test]
fn a_packed_assistant_loads_answers_and_passes_its_golden_set() {
    let (_slot, dir) = slot();
    let model = load(&dir).unwrap();
    let asked = |text: &str, lang| {
        let answer = model.ask(text, lang).unwrap();
        (answer.decision, answer.nearest.map(|(entry, _)| entry.id.clone()).unwrap())
    };
    assert_eq!(asked("I forgot my password", None), (Decision::Answered, "password.en".into()));
    assert_eq!(
        asked("J'ai oublié mon mot de passe", None),
        (Decision::Answered, "password.fr".into())
    );
    assert_eq!(asked("Which wine goes with fish?", None).0, Decision::Abstained);
    assert!(asked("I forgot my password", Some("fr")).1.ends_with(".fr"));
    let report = golden(&dir);
    assert!(report.passed(), "{report:?}");
    assert_eq!(report.cases as usize, 2 * GOLDEN_TEXTS.len());
    assert!(report.worst_cosine >= 0.9999, "{report:?}");
}

#[test]
fn a_poisoned_model_loads_and_fails_its_golden_set() {
    let (_slot, dir) = slot();
    poison(&dir);
    let report = golden(&dir);
    assert!(!report.passed());
    assert!(report.worst_cosine < 0.9, "{report:?}");
    assert!(report.failures[0].contains("cosine"), "{report:?}");
}

#[test]
fn a_model_that_is_too_slow_fails_its_golden_set() {
    let (_slot, dir) = slot();
    let clock = std::cell::Cell::new(0);
    let report = load(&dir).unwrap().check_golden(|| {
        clock.set(clock.get() + 5_001_000);
        clock.get()
    });
    let report = report.unwrap();
    assert_eq!((report.failed, report.slowest_us), (report.cases, 5_001_000));
    assert!(report.failures[0].ends_with("took 5001 ms, most allowed 5000"), "{report:?}");
}

#[test]
fn each_file_of_a_package_is_missed_by_name() {
    let (_slot, dir) = slot();
    for name in [MODEL_FILE, TOKENIZER_FILE, SPEC_FILE, FAQ_FILE, INDEX_FILE, GOLDEN_FILE] {
        let bytes = fs::read(dir.join(name)).unwrap();
        fs::remove_file(dir.join(name)).unwrap();
        let expected = format!(
            "model package `PKG` has no `{name}`: put the file there, or pack the model again with `socle model pack`"
        );
        assert_eq!(refusal(&dir), expected);
        put(&dir.join(name), &bytes);
    }
    assert_eq!(refusal(&dir), "loaded");
}

#[test]
fn a_wrong_file_of_a_package_is_named() {
    let (_slot, dir) = slot();
    let good = fs::read(dir.join(MODEL_FILE)).unwrap();
    let cut = good[..good.len() / 2].to_vec();
    let cases: [(&str, Vec<u8>, &str); 9] = [
        (
            TOKENIZER_FILE,
            b"{}".to_vec(),
            "loading the tokenizer: tokenizer.json is not a tokenizer",
        ),
        (MODEL_FILE, b"not onnx".to_vec(), "model.onnx is not an ONNX model"),
        (MODEL_FILE, Vec::new(), "model.onnx has no graph"),
        (MODEL_FILE, cut, "model.onnx is not an ONNX model"),
        (FAQ_FILE, b"{}".to_vec(), "FAQ line 1 is not an entry"),
        (FAQ_FILE, crate::fixture::faq()[1..].to_vec(), "FAQ line 1 is not an entry"),
        (INDEX_FILE, b"SOCLEIX2".to_vec(), "index is 8 bytes long, its header says 84"),
        (GOLDEN_FILE, b"[]".to_vec(), "golden set cannot be read"),
        (SPEC_FILE, b"schema = 1".to_vec(), "reading the description `PKG/model.toml`: "),
    ];
    for (name, bytes, expected) in cases {
        let before = fs::read(dir.join(name)).unwrap();
        put(&dir.join(name), &bytes);
        let refusal = refusal(&dir);
        assert!(refusal.contains(expected), "{name}: {refusal}");
        put(&dir.join(name), &before);
    }
}

#[test]
fn an_index_of_other_entries_or_another_model_is_refused() {
    let (_slot, dir) = slot();
    let mut faq = fs::read(dir.join(FAQ_FILE)).unwrap();
    faq.push(b'\n');
    put(&dir.join(FAQ_FILE), &faq);
    let refusal = refusal(&dir);
    assert!(refusal.contains("index was built from another faq.jsonl"), "{refusal}");
}

#[test]
fn a_description_that_asks_for_the_impossible_is_refused() {
    let good = spec().to_toml().unwrap();
    let parse = |text: &str| {
        let error = Spec::parse(Path::new("model.toml"), text.as_bytes()).unwrap_err();
        format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
    };
    let cases = [
        ("schema = 1", "schema = 2", "has schema 2"),
        ("name = \"it-faq\"", "name = \"../etc\"", "names the model `../etc`"),
        ("task = \"embedding\"", "task = \"assistant\"", "must have [assistant] exactly when"),
        ("dim = 384", "dim = 0", "says encoder.dim = 0; allowed are 1 to 16384"),
        ("max_tokens = 256", "max_tokens = 0", "says tokenizer.max_tokens = 0"),
        ("text_bytes_max = 65536", "text_bytes_max = 2000000", "says limits.text_bytes_max"),
        ("file = \"golden.json\"", "file = \"../golden\"", "names the golden set `../golden`"),
        ("version = \"1\"", "version = \"1\"\nextra = 1", "unknown field `extra`"),
        ("\"input_ids\", ", "", "lists no encoder input `input_ids`"),
    ];
    for (from, to, expected) in cases {
        assert!(good.contains(from), "{good}");
        let refusal = parse(&good.replace(from, to));
        assert!(refusal.contains(expected), "{refusal}");
    }
    let sections = [
        ("task = \"embedding\"", "task = \"rerank\"", "must have [rerank] exactly when"),
        ("pooling = \"mean\"", "pooling = \"max\"", "unknown variant `max`"),
        ("\"token_type_ids\"", "\"bytes\"", "lists the encoder input `bytes`"),
    ];
    for (from, to, expected) in sections {
        assert!(good.contains(from), "{good}");
        let refusal = parse(&good.replace(from, to));
        assert!(refusal.contains(expected), "{refusal}");
    }
    assert!(
        Spec::parse(Path::new("model.toml"), b"\xff").unwrap_err().to_string().contains("UTF-8")
    );
}

#[test]
fn a_description_is_read_as_it_was_written() {
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    let classification =
        ClassificationSpec { labels: labels(&["spam", "ham"]), activation: Activation::Softmax };
    let bytes = BytesSpec {
        beginning: 128,
        end: 128,
        block: 4096,
        padding: 256,
        least_bytes: 8,
        labels: labels(&["png", "text"]),
        threshold: 0.5,
        thresholds: [("text".to_owned(), 0.75)].into(),
        rename: [("text".to_owned(), "txt".to_owned())].into(),
    };
    let changes: [&dyn Fn(&mut Spec); 4] = [
        &|spec| {
            spec.encoder.pooling = Pooling::Last;
            spec.encoder.prefixes =
                Prefixes { query: "query: ".into(), passage: "passage: ".into() };
        },
        &|spec| {
            (spec.task, spec.encoder.dim) = (Task::Classification, 2);
            spec.classification = Some(classification.clone());
        },
        &|spec| {
            (spec.task, spec.encoder.dim) = (Task::Rerank, 1);
            spec.rerank = Some(RerankSpec { activation: Activation::Sigmoid });
        },
        &|spec| {
            (spec.task, spec.encoder.dim) = (Task::Bytes, 2);
            spec.encoder.inputs = vec![EncoderInput::Bytes];
            spec.encoder.pooling = Pooling::None;
            spec.bytes = Some(bytes.clone());
        },
    ];
    for change in changes {
        let mut written = spec();
        change(&mut written);
        let text = written.to_toml().unwrap();
        assert_eq!(
            Spec::parse(Path::new("model.toml"), text.as_bytes()).unwrap(),
            written,
            "{text}"
        );
    }
}

#[test]
fn a_file_above_its_limit_is_refused_before_it_is_read() {
    let (_slot, dir) = slot();
    let toml = String::from_utf8(fs::read(dir.join(SPEC_FILE)).unwrap()).unwrap();
    let small = toml.replace("model_bytes_max = 268435456", "model_bytes_max = 1000000");
    assert_ne!(small, toml);
    put(&dir.join(SPEC_FILE), small.as_bytes());
    assert_eq!(refusal(&dir), "`PKG/model.onnx` is larger than the 1000000 bytes allowed");
}

#[test]
fn a_graph_above_its_limits_or_of_another_shape_is_refused() {
    let (_slot, dir) = slot();
    let toml = String::from_utf8(fs::read(dir.join(SPEC_FILE)).unwrap()).unwrap();
    let cases = [
        ("nodes_max = 20000", "nodes_max = 100", "model.onnx has more than 100 nodes"),
        (
            "dim = 384",
            "dim = 383",
            "has shape [1, 5, 384], model.toml says [1, 5, 383] of f32 for 5 tokens",
        ),
        (
            "output = \"last_hidden_state\"",
            "output = \"nothing\"",
            "model.onnx has no output `nothing`",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(toml.contains(from), "{toml}");
        put(&dir.join(SPEC_FILE), toml.replace(from, to).as_bytes());
        let refusal = refusal(&dir);
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn the_real_model_runs_as_our_operators() {
    let spec = spec().encoder;
    let encoder = Encoder::load(&real(MODEL_FILE), 1000, &spec, NonZeroUsize::MIN).unwrap();
    assert!(encoder.is_ragged());
    let sequence = Sequence::single(&[101, 2054, 102]);
    let plan = encoder.profile(&[sequence], &|| Duration::ZERO).unwrap();
    let mut kinds: Vec<&str> = plan.iter().map(|timing| timing.op.as_str()).collect();
    // Of tract's, only what looks up the rows of token types is left.
    kinds.retain(|kind| !["Gather", "Source", "Positions"].contains(kind));
    let counts = ["Table", "Sum", "LayerNorm", "Linear.q8", "Attention"]
        .map(|kind| kinds.iter().filter(|found| **found == kind).count());
    assert_eq!((counts, kinds.len()), ([2, 2, 13, 24, 6], 47), "{kinds:?}");
}
