//! The real model, and packages made from it.

use std::{env, fs, path::PathBuf, sync::OnceLock};

use engine::{
    embedder::Embedder,
    pack::{FaqRecipe, GoldenRecipe, Recipe, pack},
    package::{FAQ_FILE, MODEL_FILE, Spec, TOKENIZER_FILE},
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
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let dir = env::var_os("SOCLE_MODEL_DIR").map(PathBuf::from);
    let dir = dir.or_else(|| Some(cache?.join("socle/models/minilm-int8"))).unwrap();
    let path = dir.join(file);
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
pub(crate) fn put(path: &std::path::Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}
