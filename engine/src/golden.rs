//! The golden set: inputs with the outputs the model gave when it was packed. A model that does not give them again on
//! this machine, within its time budget, does not serve.
//!
//! `golden.json`: `{"schema": 1, "embeddings": [{"text": "…", "vector": [384 numbers]}, …], "answers": [{"text": "…",
//! "lang": "fr", "expect": "vpn-connect.fr"}, {"text": "…", "expect": null}]}`; `expect: null` is an abstention. A model
//! that gives scores has `"scores": [{"input": {"text": "…"}, "scores": [0.1, …]}, …]` instead, with `{"pair": ["…", "…"]}`
//! or `{"bytes": [0, 255, …]}` as input.

use serde::{Deserialize, Serialize};

use crate::{
    assistant::{Asked, Assistant, Decision},
    cause::chain,
    embedder::{EmbedError, Embedder},
    encoder_spec::InputKind,
    package::{GoldenSpec, Task},
    pooling::cosine,
};

/// The only `schema` this version reads.
pub const SCHEMA: u32 = 1;
/// Most inputs of a golden set.
pub const CASES_MAX: usize = 1024;
/// Most failures that a report names; it counts all.
pub const FAILURES_NAMED_MAX: usize = 16;

/// Inputs and expected outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenSet {
    /// Version of this format: [`SCHEMA`].
    pub schema: u32,
    /// Texts with the embedding expected; empty for a model that gives scores.
    #[serde(default)]
    pub embeddings: Vec<GoldenEmbedding>,
    /// Questions with the answer expected; empty for a model that is no assistant.
    #[serde(default)]
    pub answers: Vec<GoldenAnswer>,
    /// Inputs with the scores expected; empty for a model that gives none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<GoldenScores>,
}

/// An input with the scores expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenScores {
    /// The input.
    pub input: GoldenInput,
    /// The scores.
    pub scores: Vec<f32>,
}

/// What a model that gives scores is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoldenInput {
    /// A text.
    Text(String),
    /// Two texts that belong together.
    Pair(String, String),
    /// A whole file.
    Bytes(Vec<u8>),
}

/// What of a model is tried.
pub struct Parts<'a> {
    /// Makes embeddings.
    pub embedder: Option<&'a Embedder>,
    /// Answers.
    pub assistant: Option<&'a Assistant>,
    /// Gives scores, or says why not.
    pub scores: &'a dyn Fn(&GoldenInput) -> Result<Vec<f32>, String>,
}

/// A text with the embedding expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenEmbedding {
    /// The text.
    pub text: String,
    /// As what the text is meant.
    #[serde(default, skip_serializing_if = "InputKind::is_plain")]
    pub kind: InputKind,
    /// The embedding.
    pub vector: Vec<f32>,
}

/// A question with the answer expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenAnswer {
    /// The question.
    pub text: String,
    /// The language asked for, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
    /// Id of the entry that is answered; none for an abstention.
    pub expect: Option<String>,
}

/// What a golden run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenReport {
    /// How many inputs were tried.
    pub cases: u32,
    /// How many did not give what was expected, or took too long.
    pub failed: u32,
    /// The least cosine seen over the embeddings; 1 when there was none, NaN when one could not be compared.
    pub worst_cosine: f32,
    /// The slowest input, in microseconds.
    pub slowest_us: u64,
    /// The first failures, for a person.
    pub failures: Vec<String>,
}

/// Why there is no golden set.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// Not one.
    #[error("golden set cannot be read: pack the model again with `socle model pack`")]
    Parse(#[source] serde_json::Error),
    /// Another version, empty or too large.
    #[error(
        "golden set of schema {schema} with {cases} cases; this version reads schema {SCHEMA} with 1 to {CASES_MAX} cases"
    )]
    Shape {
        /// Its schema.
        schema: u32,
        /// How many cases it has.
        cases: usize,
    },
    /// It expects answers of a model that gives none.
    #[error("golden set expects answers, the model is no assistant")]
    NotAnAssistant,
    /// It expects other things than the model gives.
    #[error(
        "golden set must expect {wanted} of such a model: pack the model again with `socle model pack`"
    )]
    Task {
        /// What it should expect.
        wanted: &'static str,
    },
    /// An input has no scores to expect.
    #[error("computing the scores to expect for `{input}`: {reason}")]
    NoScores {
        /// The input.
        input: String,
        /// Why.
        reason: String,
    },
    /// An input has no embedding to expect.
    #[error("computing what to expect for `{text}`")]
    Build {
        /// The input.
        text: String,
        /// Why.
        source: EmbedError,
    },
}

impl GoldenReport {
    /// Whether the model may serve.
    pub const fn passed(&self) -> bool {
        self.failed == 0
    }
}

impl GoldenSet {
    /// The golden set in `json`.
    ///
    /// # Errors
    /// It is not one, is empty or too large.
    pub fn parse(json: &[u8]) -> Result<Self, GoldenError> {
        let set: Self = serde_json::from_slice(json).map_err(GoldenError::Parse)?;
        let cases = set.embeddings.len() + set.answers.len() + set.scores.len();
        if set.schema == SCHEMA && (1..=CASES_MAX).contains(&cases) {
            Ok(set)
        } else {
            Err(GoldenError::Shape { schema: set.schema, cases })
        }
    }

    /// Whether it tries what a model of `task` does.
    ///
    /// # Errors
    /// It tries something else, or not that.
    pub fn check_task(&self, task: Task) -> Result<(), GoldenError> {
        let (embeddings, answers, scores) =
            (!self.embeddings.is_empty(), !self.answers.is_empty(), !self.scores.is_empty());
        match task {
            Task::Embedding if answers => Err(GoldenError::NotAnAssistant),
            Task::Embedding | Task::Assistant if scores || !embeddings => {
                Err(GoldenError::Task { wanted: "embeddings" })
            }
            Task::Classification | Task::Rerank | Task::Bytes
                if embeddings || answers || !scores =>
            {
                Err(GoldenError::Task { wanted: "scores" })
            }
            Task::Embedding
            | Task::Assistant
            | Task::Classification
            | Task::Rerank
            | Task::Bytes => Ok(()),
        }
    }
}

impl std::fmt::Display for GoldenInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Pair(first, second) => write!(f, "{first} | {second}"),
            Self::Bytes(file) => write!(f, "file of {} bytes", file.len()),
        }
    }
}

/// What `embedder` gives for `texts` today, to be expected from now on.
///
/// # Errors
/// A text has no embedding.
pub fn expect_embeddings<T: AsRef<str>>(
    embedder: &Embedder,
    texts: &[T],
) -> Result<Vec<GoldenEmbedding>, GoldenError> {
    texts
        .iter()
        .map(|text| {
            let text = text.as_ref().to_owned();
            let kind = embedder.question_kind();
            match embedder.embed_one(&text, kind) {
                Ok(embedding) => Ok(GoldenEmbedding { text, kind, vector: embedding.vector }),
                Err(source) => Err(GoldenError::Build { text, source }),
            }
        })
        .collect()
}

/// The golden set of a model that gives scores: what `scores` gives for `inputs` today.
///
/// # Errors
/// Names the first input that has no scores.
pub fn expect_scores(
    inputs: Vec<GoldenInput>,
    scores: impl Fn(&GoldenInput) -> Result<Vec<f32>, String>,
) -> Result<GoldenSet, GoldenError> {
    let cases = inputs.into_iter().map(|input| match scores(&input) {
        Ok(scores) => Ok(GoldenScores { input, scores }),
        Err(reason) => Err(GoldenError::NoScores { input: input.to_string(), reason }),
    });
    let scores = cases.collect::<Result<_, _>>()?;
    Ok(GoldenSet { schema: SCHEMA, embeddings: Vec::new(), answers: Vec::new(), scores })
}

/// Tries every input of `set`. `now_us` is a clock that never goes back, in microseconds.
///
/// # Errors
/// The set expects answers and there is no assistant; any other misbehaviour is a failure in the report.
pub fn check(
    parts: &Parts<'_>,
    set: &GoldenSet,
    spec: &GoldenSpec,
    now_us: impl Fn() -> u64,
) -> Result<GoldenReport, GoldenError> {
    let mut report = GoldenReport {
        cases: 0,
        failed: 0,
        worst_cosine: 1.0,
        slowest_us: 0,
        failures: Vec::new(),
    };
    for case in &set.scores {
        let before = now_us();
        let got = (parts.scores)(&case.input);
        let took_us = now_us().saturating_sub(before);
        let verdict = got.and_then(|got| close(&got, &case.scores, spec.score_error_max));
        report.add(&case.input.to_string(), took_us, spec, verdict);
    }
    let Some(embedder) = parts.embedder else { return Ok(report) };
    for case in &set.embeddings {
        let before = now_us();
        let got = embedder.embed_one(&case.text, case.kind);
        let took_us = now_us().saturating_sub(before);
        let verdict = got.map_err(|reason| chain(&reason)).and_then(|got| {
            let cosine = cosine(&got.vector, &case.vector);
            if report.worst_cosine.is_nan() || cosine.is_nan() {
                report.worst_cosine = f32::NAN;
            } else {
                report.worst_cosine = report.worst_cosine.min(cosine);
            }
            if cosine >= spec.cosine_min {
                Ok(())
            } else {
                Err(format!(
                    "cosine {cosine:.4} with the expected embedding, least allowed {}",
                    spec.cosine_min
                ))
            }
        });
        report.add(&case.text, took_us, spec, verdict);
    }
    for case in &set.answers {
        let assistant = parts.assistant.ok_or(GoldenError::NotAnAssistant)?;
        let before = now_us();
        let got = embedder.embed_one(&case.text, embedder.question_kind());
        let verdict = got.map_err(|reason| chain(&reason)).and_then(|question| {
            let asked = Asked { text: &case.text, vector: &question.vector };
            let answer = assistant.answer(asked, case.lang.as_deref());
            let given = match answer.decision {
                Decision::Answered => answer.nearest.map(|(entry, _)| entry.id.as_str()),
                Decision::Abstained => None,
            };
            if given == case.expect.as_deref() {
                Ok(())
            } else {
                let name =
                    |id: Option<&str>| id.map_or("an abstention".into(), |id| format!("`{id}`"));
                Err(format!("{} given, {} expected", name(given), name(case.expect.as_deref())))
            }
        });
        report.add(&case.text, now_us().saturating_sub(before), spec, verdict);
    }
    Ok(report)
}

fn close(got: &[f32], expected: &[f32], error_max: f32) -> Result<(), String> {
    if got.len() != expected.len() {
        return Err(format!("{} scores given, {} expected", got.len(), expected.len()));
    }
    let errors = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs());
    match errors.clone().find(|error| error.is_nan() || *error > error_max) {
        None => Ok(()),
        Some(error) => Err(format!("a score is {error:.4} off, most allowed {error_max}")),
    }
}

impl GoldenReport {
    fn add(&mut self, text: &str, took_us: u64, spec: &GoldenSpec, verdict: Result<(), String>) {
        self.cases += 1;
        self.slowest_us = self.slowest_us.max(took_us);
        let late = took_us > u64::from(spec.latency_ms_max) * 1000;
        let verdict = verdict.and_then(|()| match late {
            true => {
                Err(format!("took {} ms, most allowed {}", took_us / 1000, spec.latency_ms_max))
            }
            false => Ok(()),
        });
        if let Err(what) = verdict {
            self.failed += 1;
            if self.failures.len() < FAILURES_NAMED_MAX {
                let text: String = text.chars().take(60).collect();
                self.failures.push(format!("`{text}`: {what}"));
            }
        }
    }
}
