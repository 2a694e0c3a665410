//! What the releases of this test answer: to each of a few questions every variant has one right answer of its own.

use std::{fs, ops::Range, path::Path};

use anyhow::{Context as _, ensure};
use engine::{
    faq,
    golden::GoldenSet,
    pack::{FaqRecipe, GoldenRecipe, Recipe, pack},
    package::{FAQ_FILE, GOLDEN_FILE, MODEL_FILE, Spec, TOKENIZER_FILE},
};
use protocol::manifest::Role;
use serde_json::json;

/// The model's name on the machine.
pub const MODEL: &str = "it-faq";
/// What clients ask; short, so that a request costs little. The last one has no entry.
pub const QUESTIONS: [&str; 6] = [
    "How do I reset my password?",
    "How do I reach the VPN?",
    "The printer is jammed",
    "Is there Wi-Fi for guests?",
    "Mot de passe oublié",
    "Which wine goes with fish?",
];
/// Id, language, question, and the answer before the variant's own words.
const ENTRIES: [(&str, &str, &str, &str); 5] = [
    ("password", "en", "How do I reset my password?", "Use the self-service portal."),
    ("vpn", "en", "How do I reach the VPN?", "Open the VPN client."),
    ("printer", "en", "The printer is jammed", "Open the tray and pull gently."),
    ("guests", "en", "Is there Wi-Fi for guests?", "Ask the front desk for a code."),
    ("mot-de-passe", "fr", "Mot de passe oublié", "Passez par le portail."),
];
/// Width of an embedding.
const DIM: u32 = 384;
/// Bytes of the pinned `model.onnx` that are all inside the raw data of its word embeddings.
const WORD_EMBEDDINGS: Range<usize> = 262_144..11_534_336;
/// Embeddings by two kinds of weights differ by more than this in some number, and those by one kind by less.
pub const APART: f32 = 1e-4;

/// The weights of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// As fetched.
    First,
    /// As if trained once more: a little different everywhere.
    Second,
}

/// A model package and what it answers.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The version that the package says; no two variants share one.
    pub version: String,
    /// Its files, as a release lists them.
    pub files: Vec<(String, Role, Vec<u8>)>,
    /// For each of [`QUESTIONS`].
    pub expected: Vec<Expected>,
}

/// What is right for one question.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its embedding.
    pub vector: Vec<f32>,
    /// What is answered; none is an abstention.
    pub answer: Option<String>,
}

/// What packages are made from.
#[derive(Debug)]
pub struct Ingredients {
    onnx: [Vec<u8>; 2],
    tokenizer: Vec<u8>,
}

impl Ingredients {
    /// The model in `folder`, and one that is a little different.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| {
                format!("reading {}; fetch the model with `cargo xtask fetch`", path.display())
            })
        };
        let first = read(MODEL_FILE)?;
        let mut second = first.clone();
        let words = second.get_mut(WORD_EMBEDDINGS).context("the model is not the pinned one")?;
        words.iter_mut().for_each(|byte| *byte ^= 1);
        Ok(Self { onnx: [first, second], tokenizer: read(TOKENIZER_FILE)? })
    }

    /// A package called `version`.
    pub fn variant(&self, version: &str, weights: Weights) -> anyhow::Result<Variant> {
        let [first, second] = &self.onnx;
        let onnx = match weights {
            Weights::First => first,
            Weights::Second => second,
        };
        let mut spec = Spec::sentence_encoder(MODEL, version, DIM);
        // The machine is kept busy on purpose, and is not what is tried here.
        spec.golden.latency_ms_max = 60_000;
        let entries = entries(version);
        let questions = labelled();
        let recipe = Recipe {
            spec: &spec,
            onnx,
            tokenizer: &self.tokenizer,
            faq: Some(FaqRecipe {
                entries: &entries,
                questions: &questions,
                false_answers_allowed_per_mille: 0,
            }),
            golden: GoldenRecipe::Record(&QUESTIONS),
        };
        let packed = pack(&recipe, |_, _| {}).context("packing the model")?;
        let golden = packed.files.iter().find(|(name, _)| name == GOLDEN_FILE);
        let golden = GoldenSet::parse(&golden.context("a package without golden set")?.1)?;
        let expected = expected(&golden, &entries)?;
        let place = |name: &str| format!("models/{MODEL}/{name}");
        let mut files = vec![
            (place(MODEL_FILE), Role::Model, onnx.clone()),
            (place(TOKENIZER_FILE), Role::Tokenizer, self.tokenizer.clone()),
            (place(FAQ_FILE), Role::Data, entries),
        ];
        for (name, content) in packed.files {
            let role = match name.as_str() {
                GOLDEN_FILE => Role::Golden,
                name if name.ends_with(".toml") => Role::Config,
                _ => Role::Data,
            };
            files.push((place(&name), role, content));
        }
        Ok(Variant { version: version.to_owned(), files, expected })
    }
}

impl Variant {
    /// The files with `change` done to the one called `name`.
    pub fn with(
        &self,
        name: &str,
        change: impl FnOnce(&[u8]) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Vec<(String, Role, Vec<u8>)>> {
        let mut files = self.files.clone();
        let wanted = format!("models/{MODEL}/{name}");
        let file = files.iter_mut().find(|(path, ..)| *path == wanted);
        let file = file.with_context(|| format!("a package without {name}"))?;
        file.2 = change(&file.2)?;
        Ok(files)
    }
}

/// Whether `vector` is the embedding `expected`.
pub fn same(vector: &[f32], expected: &[f32]) -> bool {
    vector.len() == expected.len() && distance(vector, expected) < APART
}

/// Makes sure that a wrong variant's answer would be seen.
pub fn all_differ(variants: &[Variant]) -> anyhow::Result<()> {
    for (at, one) in variants.iter().enumerate() {
        let answered = one.expected.iter().filter(|expected| expected.answer.is_some()).count();
        ensure!(answered >= 3, "{} answers only {answered} questions", one.version);
        ensure!(answered < QUESTIONS.len(), "{} abstains from nothing", one.version);
        for other in variants.iter().skip(at + 1) {
            let differ =
                one.expected.iter().zip(&other.expected).any(|(a, b)| a.answer != b.answer);
            ensure!(differ, "{} and {} answer the same", one.version, other.version);
        }
    }
    Ok(())
}

/// Whether the two kinds of weights give embeddings that are told apart.
pub fn weights_differ(first: &Variant, second: &Variant) -> bool {
    let mut pairs = first.expected.iter().zip(&second.expected);
    pairs.all(|(a, b)| distance(&a.vector, &b.vector) > 2.0 * APART)
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn entries(version: &str) -> Vec<u8> {
    lines(ENTRIES.map(|(id, lang, question, answer)| {
        json!({"id": id, "lang": lang, "question": question, "paraphrases": [],
            "answer": format!("{answer} ({version})"), "source": "handbook §1"})
    }))
}

fn labelled() -> Vec<u8> {
    let questions = [
        ("How can I reset my password?", "en", Some("password")),
        ("Paper is stuck in the printer", "en", Some("printer")),
        ("Which wine goes with fish?", "en", None),
        ("J'ai oublié mon mot de passe", "fr", Some("mot-de-passe")),
        ("Quel vin servir avec du poisson ?", "fr", None),
    ];
    lines(["calibrate", "test"].into_iter().flat_map(|split| {
        questions.map(|(text, lang, expect)| {
            json!({"text": text, "lang": lang, "expect": expect, "split": split})
        })
    }))
}

fn lines(values: impl IntoIterator<Item = serde_json::Value>) -> Vec<u8> {
    let lines: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    lines.join("\n").into_bytes()
}

fn expected(golden: &GoldenSet, entries: &[u8]) -> anyhow::Result<Vec<Expected>> {
    let entries = faq::parse(entries)?;
    let cases = golden.embeddings.iter().zip(&golden.answers);
    let expected: Vec<Expected> = cases
        .map(|(embedding, answer)| Expected {
            vector: embedding.vector.clone(),
            answer: answer.expect.as_ref().and_then(|id| {
                entries.iter().find(|entry| entry.id == *id).map(|entry| entry.answer.clone())
            }),
        })
        .collect();
    ensure!(expected.len() == QUESTIONS.len(), "the golden set has not every question");
    Ok(expected)
}
