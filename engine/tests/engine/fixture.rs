//! The real model, and packages made from it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use engine::{
    embedder::Embedder,
    golden::{self, GoldenInput},
    model::Model,
    pack::{FaqRecipe, GoldenRecipe, Recipe, pack},
    package::{FAQ_FILE, GOLDEN_FILE, MODEL_FILE, SPEC_FILE, Spec, TOKENIZER_FILE, Task},
};
use tempfile::TempDir;

/// Texts of the golden set of [`package`].
pub(crate) const GOLDEN_TEXTS: [&str; 4] = [
    "I forgot my password, how do I get a new one?",
    "Comment puis-je réinitialiser mon mot de passe ?",
    "How do I connect to the VPN from home?",
    "Quelle est la capitale de l'Australie ?",
];

/// Reads one file of the real model. It is fetched, not committed.
pub(crate) fn real(file: &str) -> Vec<u8> {
    let dir = env::var_os("SOCLE_MODEL_DIR").map(PathBuf::from);
    fetched(dir.unwrap_or_else(|| cached("minilm-int8")).join(file))
}

/// Reads one file of Magika. It is fetched, not committed.
pub(crate) fn magika(file: &str) -> Vec<u8> {
    fetched(cached("magika").join(file))
}

fn cached(model: &str) -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    cache.unwrap().join("socle/models").join(model)
}

fn fetched(path: PathBuf) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|reason| {
        panic!("`{}`: {reason}: fetch the model with `cargo xtask fetch`", path.display())
    })
}

pub(crate) fn spec() -> Spec {
    Spec::sentence_encoder("it-faq", "1", 384)
}

pub(crate) fn embedder() -> &'static Embedder {
    static EMBEDDER: OnceLock<Embedder> = OnceLock::new();
    EMBEDDER
        .get_or_init(|| Embedder::load(&spec(), &real(MODEL_FILE), &real(TOKENIZER_FILE)).unwrap())
}

/// A small FAQ in both languages.
pub(crate) fn faq() -> Vec<u8> {
    let lines = [
        ("password.en", "en", "How do I reset my password?", "Use the self-service portal."),
        ("vpn.en", "en", "How do I connect to the VPN from home?", "Open the VPN client."),
        ("printer.en", "en", "How do I install a printer?", "Scan the label on it."),
        ("password.fr", "fr", "Comment réinitialiser mon mot de passe ?", "Par le portail."),
        ("vpn.fr", "fr", "Comment se connecter au VPN depuis chez moi ?", "Ouvrez le client VPN."),
        ("printer.fr", "fr", "Comment installer une imprimante ?", "Lisez son étiquette."),
    ];
    let lines = lines.map(|(id, lang, question, answer)| {
        serde_json::json!({"id": id, "lang": lang, "question": question, "paraphrases": [],
            "answer": answer, "source": "handbook §1"})
        .to_string()
    });
    lines.join("\n").into_bytes()
}

/// Lays the package of a model that gives scores into `<slot>/models/<spec.name>-<spec.version>`, with the scores of
/// `inputs` as its golden set.
pub(crate) fn lay_scores(
    slot: &Path,
    spec: &Spec,
    onnx: &[u8],
    inputs: Vec<GoldenInput>,
) -> PathBuf {
    let tokenizer = if spec.task == Task::Bytes { Vec::new() } else { real(TOKENIZER_FILE) };
    let model = Model::assemble(spec.clone(), onnx, &tokenizer).unwrap();
    let golden = golden::expect_scores(inputs, |input| model.scores(input)).unwrap();
    let dir = slot.join("models").join(format!("{}-{}", spec.name, spec.version));
    fs::create_dir_all(&dir).unwrap();
    put(&dir.join(MODEL_FILE), onnx);
    put(&dir.join(SPEC_FILE), spec.to_toml().unwrap().as_bytes());
    put(&dir.join(GOLDEN_FILE), &serde_json::to_vec(&golden).unwrap());
    if !tokenizer.is_empty() {
        put(&dir.join(TOKENIZER_FILE), &tokenizer);
    }
    dir
}

/// Lays a package that makes embeddings into `<slot>/models/<spec.name>-<spec.version>`.
pub(crate) fn lay_embedder(slot: &Path, spec: &Spec) {
    let (onnx, tokenizer) = (real(MODEL_FILE), real(TOKENIZER_FILE));
    let golden = GoldenRecipe::Record(&["printer"]);
    let recipe = Recipe { spec, onnx: &onnx, tokenizer: &tokenizer, faq: None, golden };
    let packed = pack(&recipe, |_, _| ()).unwrap();
    let dir = slot.join("models").join(format!("{}-{}", spec.name, spec.version));
    fs::create_dir_all(&dir).unwrap();
    let given = [(MODEL_FILE, onnx), (TOKENIZER_FILE, tokenizer)];
    let given = given.map(|(name, bytes)| (name.to_owned(), bytes));
    for (name, bytes) in packed.files.into_iter().chain(given) {
        put(&dir.join(name), &bytes);
    }
}

/// Labelled questions for [`faq`].
pub(crate) fn questions() -> Vec<u8> {
    let questions = [
        ("I forgot my password", "en", Some("password.en")),
        ("Which wine goes with fish?", "en", None),
        ("J'ai oublié mon mot de passe", "fr", Some("password.fr")),
        ("Quel vin servir avec du poisson ?", "fr", None),
    ];
    let lines = ["calibrate", "test"].iter().flat_map(|split| {
        questions.map(|(text, lang, expect)| {
            serde_json::json!({"text": text, "lang": lang, "expect": expect, "split": split})
                .to_string()
        })
    });
    lines.collect::<Vec<_>>().join("\n").into_bytes()
}

/// `<slot>/models/it-faq`, an assistant made from the real model and [`faq`].
pub(crate) fn slot() -> (TempDir, PathBuf) {
    let (onnx, tokenizer) = (real(MODEL_FILE), real(TOKENIZER_FILE));
    let recipe = Recipe {
        spec: &spec(),
        onnx: &onnx,
        tokenizer: &tokenizer,
        faq: Some(FaqRecipe {
            entries: &faq(),
            questions: &questions(),
            false_answers_allowed_per_mille: 0,
        }),
        golden: GoldenRecipe::Record(&GOLDEN_TEXTS),
    };
    let packed = pack(&recipe, |_, _| ()).unwrap();
    let slot = TempDir::new().unwrap();
    let dir = slot.path().join("models/it-faq");
    fs::create_dir_all(&dir).unwrap();
    let given = [(MODEL_FILE, onnx), (TOKENIZER_FILE, tokenizer), (FAQ_FILE, faq())];
    let given = given.map(|(name, bytes)| (name.to_owned(), bytes));
    for (name, bytes) in packed.files.into_iter().chain(given) {
        put(&dir.join(name), &bytes);
    }
    (slot, dir)
}

#[expect(clippy::disallowed_methods, reason = "a temporary folder of a test needs no durability")]
pub(crate) fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}
