//! The derived files of a new package: index, thresholds, golden set and `model.toml`.
//!
//! Nothing is written here: the caller puts [`Packed::files`] beside `model.onnx`, `tokenizer.json` and `faq.jsonl`.

use protocol::digest::Digest;

use crate::{
    assistant::{Asked, Assistant, AssistantError, Decision, Rule, build_index},
    blend::Blend,
    calibrate::{self, CalibrateError, Found, Scored},
    embedder::{EmbedError, Embedder, EmbedderError},
    encoder_spec::InputKind,
    faq::{self, FaqError},
    golden::{self, GoldenAnswer, GoldenError, GoldenInput, GoldenScores, GoldenSet},
    head::Activation,
    model::{Model, ModelError},
    package::{AssistantSpec, INDEX_FILE, PackageError, SPEC_FILE, Spec, Task},
};

/// What a package is made from.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// The description; `task` and `assistant` are filled in from `faq`.
    pub spec: &'a Spec,
    /// Content of `model.onnx`.
    pub onnx: &'a [u8],
    /// Content of `tokenizer.json`; empty for a model of bytes.
    pub tokenizer: &'a [u8],
    /// For an assistant, its entries and how to calibrate it.
    pub faq: Option<FaqRecipe<'a>>,
    /// What the model must answer on every machine as it does here.
    pub golden: GoldenRecipe<'a>,
}

/// What an assistant is made from.
#[derive(Debug, Clone, Copy)]
pub struct FaqRecipe<'a> {
    /// Content of `faq.jsonl`.
    pub entries: &'a [u8],
    /// Labelled questions, JSON lines of [`calibrate::LabelledQuestion`].
    pub questions: &'a [u8],
    /// See [`calibrate::calibrate`].
    pub false_answers_allowed_per_mille: u32,
}

/// Where the golden set comes from.
#[derive(Debug, Clone, Copy)]
pub enum GoldenRecipe<'a> {
    /// What the model gives for these texts now; a model of bytes takes them for files.
    Record(&'a [&'a str]),
    /// What a model of bytes gives for these files now.
    Files(&'a [&'a [u8]]),
    /// Content of an existing `golden.json`: the new model must agree with the old one.
    Keep(&'a [u8]),
}

/// A package, less the files it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// The description, with the thresholds and what they were measured to do.
    pub spec: Spec,
    /// Name and content of each derived file.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Why no package can be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Tokenizer or graph.
    #[error("loading what is to be packed")]
    Embedder(#[from] EmbedderError),
    /// The entries.
    #[error("reading the FAQ")]
    Faq(#[from] FaqError),
    /// The index.
    #[error("making the index")]
    Assistant(#[from] AssistantError),
    /// The labelled questions.
    #[error("calibrating the assistant")]
    Calibrate(#[from] CalibrateError),
    /// A labelled question has no embedding.
    #[error("computing the embedding of the labelled question `{question}`")]
    Question {
        /// The question.
        question: String,
        /// Why.
        source: EmbedError,
    },
    /// The golden set.
    #[error("making the golden set")]
    Golden(#[from] GoldenError),
    /// A model of bytes.
    #[error("loading what is to be packed")]
    Model(#[source] Box<ModelError>),
    /// Files for a model that takes texts, or questions for one that takes bytes.
    #[error("model of task {}: {what}", format!("{task:?}").to_lowercase())]
    Recipe {
        /// What it does.
        task: Task,
        /// What is wrong.
        what: &'static str,
    },
    /// The description.
    #[error("describing the package")]
    Spec(#[from] PackageError),
    /// The golden set cannot be written.
    #[error("writing the golden set")]
    GoldenJson(#[source] serde_json::Error),
}

/// Makes the derived files. `progress` is called with (done, all) over the entries of the FAQ.
///
/// # Errors
/// Names what is wrong with the ingredients.
pub fn pack(recipe: &Recipe<'_>, progress: impl FnMut(usize, usize)) -> Result<Packed, PackError> {
    let mut spec = recipe.spec.clone();
    if spec.task == Task::Bytes {
        return pack_bytes(recipe);
    }
    let embedder = Embedder::load(&spec, recipe.onnx, recipe.tokenizer)?;
    let mut files = Vec::new();
    let mut assistant = None;
    if spec.task == Task::Assistant {
        (spec.task, spec.assistant) = (Task::Embedding, None);
    }
    if let Some(faq) = &recipe.faq {
        let (made, described) = make_assistant(&embedder, recipe.onnx, faq, progress)?;
        files.push((INDEX_FILE.to_owned(), made.index().encode()));
        (spec.task, spec.assistant) = (Task::Assistant, Some(described));
        assistant = Some(made);
    }
    let golden = match recipe.golden {
        GoldenRecipe::Keep(json) => {
            GoldenSet::parse(json)?;
            json.to_vec()
        }
        GoldenRecipe::Record(texts) => {
            let set = record(&spec, &embedder, assistant.as_ref(), texts)?;
            serde_json::to_vec(&set).map_err(PackError::GoldenJson)?
        }
        GoldenRecipe::Files(_) => {
            return Err(PackError::Recipe { task: spec.task, what: "it is tried with texts" });
        }
    };
    files.push((spec.golden.file.clone(), golden));
    files.push((SPEC_FILE.to_owned(), spec.to_toml()?.into_bytes()));
    Ok(Packed { spec, files })
}

/// A model of bytes has no tokenizer, and its golden set is of files.
fn pack_bytes(recipe: &Recipe<'_>) -> Result<Packed, PackError> {
    let spec = recipe.spec.clone();
    if recipe.faq.is_some() {
        let what = "it answers no questions, so it takes no FAQ";
        return Err(PackError::Recipe { task: spec.task, what });
    }
    let model = Model::assemble(spec.clone(), recipe.onnx, &[])
        .map_err(|source| PackError::Model(Box::new(source)))?;
    let record = |files: Vec<Vec<u8>>| {
        let inputs = files.into_iter().map(GoldenInput::Bytes).collect();
        let set = golden::expect_scores(inputs, |input| model.scores(input))?;
        serde_json::to_vec(&set).map_err(PackError::GoldenJson)
    };
    let golden = match recipe.golden {
        GoldenRecipe::Keep(json) => {
            GoldenSet::parse(json)?;
            json.to_vec()
        }
        GoldenRecipe::Record(texts) => {
            record(texts.iter().map(|text| text.as_bytes().to_vec()).collect())?
        }
        GoldenRecipe::Files(files) => record(files.iter().map(|file| file.to_vec()).collect())?,
    };
    let files = vec![
        (spec.golden.file.clone(), golden),
        (SPEC_FILE.to_owned(), spec.to_toml()?.into_bytes()),
    ];
    Ok(Packed { spec, files })
}

/// What the model gives for `texts` now; a reranker judges each text beside the one that follows it.
fn record(
    spec: &Spec,
    embedder: &Embedder,
    assistant: Option<&Assistant>,
    texts: &[&str],
) -> Result<GoldenSet, GoldenError> {
    let scored = |input: GoldenInput, activation: Activation| {
        let logits = match &input {
            GoldenInput::Text(text) => embedder.embed_one(text, InputKind::Plain),
            GoldenInput::Pair(first, second) => embedder.embed_pair(first, second),
            GoldenInput::Bytes(_) => return Err(GoldenError::Task { wanted: "texts" }),
        };
        let source_of = |source| GoldenError::Build { text: input.to_string(), source };
        let mut scores = logits.map_err(source_of)?.vector;
        activation.apply(&mut scores);
        Ok(GoldenScores { input, scores })
    };
    let scores = match (&spec.classification, &spec.rerank) {
        (Some(head), _) => {
            let inputs = texts.iter().map(|text| GoldenInput::Text((*text).to_owned()));
            inputs.map(|input| scored(input, head.activation)).collect::<Result<Vec<_>, _>>()?
        }
        (None, Some(head)) => {
            let pairs = texts.iter().zip(texts.iter().cycle().skip(1));
            let pairs = pairs.map(|(a, b)| GoldenInput::Pair((*a).to_owned(), (*b).to_owned()));
            pairs.map(|input| scored(input, head.activation)).collect::<Result<Vec<_>, _>>()?
        }
        (None, None) => Vec::new(),
    };
    if !scores.is_empty() {
        let (embeddings, answers) = (Vec::new(), Vec::new());
        return Ok(GoldenSet { schema: golden::SCHEMA, embeddings, answers, scores });
    }
    let embeddings = golden::expect_embeddings(embedder, texts)?;
    let answers = assistant.map_or_else(Vec::new, |assistant| {
        embeddings.iter().map(|case| answer_now(assistant, &case.text, &case.vector)).collect()
    });
    Ok(GoldenSet { schema: golden::SCHEMA, embeddings, answers, scores })
}

fn make_assistant(
    embedder: &Embedder,
    onnx: &[u8],
    faq: &FaqRecipe<'_>,
    progress: impl FnMut(usize, usize),
) -> Result<(Assistant, AssistantSpec), PackError> {
    let entries = faq::parse(faq.entries)?;
    let digests = (Digest::of(faq.entries), Digest::of(onnx));
    let index = build_index(embedder, &entries, digests, progress)?;
    // The rule plays no part in how near entries are, so any will do until one is chosen.
    let thresholds = entries.iter().map(|entry| (entry.lang.clone(), -1.0)).collect();
    let open = Rule { blend: Blend::default(), thresholds };
    let model = (digests.1, embedder.dim());
    let uncalibrated = Assistant::new((entries, digests.0), index, model, open)?;
    let scored = score(embedder, &uncalibrated, faq.questions)?;
    let best = scored.into_iter().reduce(|best, next| {
        if calibrate::quality(&next.1) > calibrate::quality(&best.1) { next } else { best }
    });
    let (blend, scored) = best.unwrap_or_default();
    let (thresholds, calibration) =
        calibrate::calibrate(&scored, faq.false_answers_allowed_per_mille)?;
    let assistant = uncalibrated.with_rule(Rule { blend, thresholds: thresholds.clone() })?;
    Ok((assistant, AssistantSpec { blend, thresholds, calibration }))
}

/// By each blend that is tried, the best entry of each labelled question, asked without saying its language.
///
/// # Errors
/// `questions` are not labelled questions, or one has no embedding.
pub fn score(
    embedder: &Embedder,
    assistant: &Assistant,
    questions: &[u8],
) -> Result<Vec<(Blend, Vec<Scored>)>, PackError> {
    let mut tried: Vec<(Blend, Vec<Scored>)> =
        Blend::TRIED.iter().map(|blend| (*blend, Vec::new())).collect();
    for question in calibrate::parse(questions)? {
        let text = &question.text;
        let embedding = embedder
            .embed_one(text, embedder.question_kind())
            .map_err(|source| PackError::Question { question: text.clone(), source })?;
        let nearness = assistant.nearness(Asked { text, vector: &embedding.vector });
        for (blend, scored) in &mut tried {
            let best = assistant.best(&nearness, *blend, None);
            let found = best.map(|(entry, score)| Found {
                id: entry.id.clone(),
                lang: entry.lang.clone(),
                score,
            });
            let (lang, expect) = (question.lang.clone(), question.expect.clone());
            scored.push(Scored { lang, expect, found, split: question.split });
        }
    }
    Ok(tried)
}

fn answer_now(assistant: &Assistant, text: &str, vector: &[f32]) -> GoldenAnswer {
    let answer = assistant.answer(Asked { text, vector }, None);
    let expect = match answer.decision {
        Decision::Answered => answer.nearest.map(|(entry, _)| entry.id.clone()),
        Decision::Abstained => None,
    };
    GoldenAnswer { text: text.into(), lang: None, expect }
}
