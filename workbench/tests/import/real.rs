//! Real models: packed, cut and released. They are fetched, not committed.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{env, fs, path::PathBuf};

use clap::Parser as _;
use engine::{
    golden::GoldenInput,
    model::Model,
    package::{Package, TOKENIZER_FILE, Task},
};
use protocol::{id::Environment, time::UnixMs};
use tempfile::TempDir;
use workbench::{
    model::{self, PackArgs},
    release::build::{self, BuildArgs},
    terminal::{Audience, Terminal},
};

use crate::{files::put, packages::import};

/// The folder of a fetched model.
fn fetched(model: &str) -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let folder = cache.unwrap().join("socle/models").join(model);
    assert!(folder.is_dir(), "`{}`: fetch it with `cargo xtask fetch`", folder.display());
    folder
}

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: PackArgs,
}

#[test]
fn magika_is_packed_tells_files_apart_and_stands_in_a_release() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("magika");
    let (from, to) = (fetched("magika"), out.clone());
    let words = ["pack", "--name", "files", "--version", "3.3", "--from"].map(Into::into);
    let words = words.into_iter().chain([from.into_os_string(), "--out".into(), to.into()]);
    let args = Line::try_parse_from(words).unwrap().args;
    let packed = model::pack(&args, &Terminal::new(Audience::Machine)).unwrap();
    assert_eq!((packed.spec.task, packed.spec.licence.as_str()), (Task::Bytes, "Apache-2.0"));
    assert!(!out.join(TOKENIZER_FILE).exists());

    let loaded = Model::load(&Package::open(&out).unwrap()).unwrap();
    let report = loaded.check_golden(|| 0).unwrap();
    assert!(report.passed() && report.cases == 6, "{report:?}");
    let program = b"import os\n\nfor name in sorted(os.listdir('.')):\n    print(name)\n".to_vec();
    let scores = loaded.scores(&GoldenInput::Bytes(program)).unwrap();
    assert_eq!(packed.spec.bytes.as_ref().unwrap().label(&scores), Some("python"));

    let agent = folder.path().join("socle-agent");
    put(&agent, b"not started here");
    let args = BuildArgs {
        environment: Environment::production(),
        name: "files.1".into(),
        counter: 1,
        agent,
        agent_version: "0.0.0".into(),
        models: vec![out],
        out: folder.path().join("release"),
        previous: None,
        role: "targets".into(),
        days: 30,
        memory_bytes: 1 << 20,
        probation_answers: 1,
        probation_ms: 60_000,
        tries: 3,
    };
    let built = build::build(&args, UnixMs(1_800_000_000_000)).unwrap();
    let paths: Vec<&str> = built.manifest.files.iter().map(|file| file.path.as_str()).collect();
    for name in ["model.onnx", "model.toml", "golden.json"] {
        assert!(paths.contains(&format!("models/files/{name}").as_str()), "{paths:?}");
    }
}

#[test]
fn a_real_graph_comes_in_with_fewer_words_and_the_same_vectors() {
    let folder = TempDir::new().unwrap();
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/faq");
    let texts = ["sentences-50.txt", "faq-v2.jsonl"].map(|name| fs::read(data.join(name)).unwrap());
    let text = folder.path().join("text.txt");
    put(&text, &texts.concat());
    let from = fetched("minilm-int8");
    let (from, text) = (from.to_str().unwrap(), text.to_str().unwrap());
    let words = ["--from", from, "--languages", "en,fr", "--text", text];
    let out = folder.path().join("cut");
    let report = import(&words, &out).unwrap();
    let cut = report.vocabulary.as_ref().unwrap();
    assert_eq!(cut.tokens_before, 30_522);
    assert!(cut.tokens_kept < 10_000, "{cut:?}");
    // The sentences that are compared were counted, so they are read as before.
    assert!(report.whole.least_cosine > 0.9999 && report.whole.same_nearest == 1.0, "{report:?}");
    let (before, after) = report.model_bytes;
    assert!(before - after > 7_000_000, "{report:?}");
    assert!(
        Model::load(&Package::open(&out).unwrap()).unwrap().check_golden(|| 0).unwrap().passed()
    );

    let words = ["--from", from, "--max-tokens", "513"];
    let refused = import(&words, &folder.path().join("long")).unwrap_err();
    assert_eq!(refused, "model knows 512 positions, --max-tokens asks for 513: say 512 or less");
}
