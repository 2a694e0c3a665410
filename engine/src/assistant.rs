//! The FAQ assistant: the entry nearest to a question, or an abstention.

use protocol::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    calibrate::Thresholds,
    embedder::{EmbedError, Embedder},
    faq::Entry,
    index::{Index, IndexError},
};

/// Entries, the embeddings of their questions, and the scores below which nothing is answered.
#[derive(Debug)]
pub struct Assistant {
    entries: Vec<Entry>,
    index: Index,
    thresholds: Thresholds,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<'a> {
    /// The nearest entry, even when its score is below the threshold; none when no entry is in the wanted language.
    pub nearest: Option<(&'a Entry, f32)>,
    /// What the score must reach: the threshold of the entry's language; 1 when there is no entry.
    pub threshold: f32,
    /// Whether [`Answer::nearest`] is given as the answer.
    pub decision: Decision,
}

/// Whether the assistant answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The score reaches the threshold.
    Answered,
    /// It does not.
    Abstained,
}

/// Why an assistant cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AssistantError {
    /// The index is not one.
    #[error("reading the index of the FAQ")]
    Index(#[from] IndexError),
    /// The index belongs to another file.
    #[error(
        "index was built from another {of} ({built_from}, not {found}): build it again with `socle model pack`"
    )]
    Stale {
        /// Which file.
        of: &'static str,
        /// Digest in the index.
        built_from: String,
        /// Digest of the file that is there.
        found: String,
    },
    /// The index has another number of entries or another width than its package.
    #[error(
        "index is over {entries} entries of width {dim}, the package has {package_entries} of width {package_dim}"
    )]
    Mismatch {
        /// Entries the index knows.
        entries: usize,
        /// Width of its rows.
        dim: usize,
        /// Entries of the FAQ.
        package_entries: usize,
        /// Width of an embedding.
        package_dim: usize,
    },
    /// A language of the entries has no threshold.
    #[error(
        "entry `{entry}` is in `{lang}`, for which model.toml has no threshold: pack with calibration questions in that language"
    )]
    NoThreshold {
        /// The entry.
        entry: String,
        /// Its language.
        lang: String,
    },
    /// A question of the FAQ has no embedding.
    #[error("computing the embedding of `{question}` of entry `{entry}`")]
    Embed {
        /// The entry.
        entry: String,
        /// The text.
        question: String,
        /// Why.
        source: EmbedError,
    },
}

impl Assistant {
    /// An assistant over `entries`, whose file has the digest `faq`, asked through the model with the digest `model`.
    ///
    /// # Errors
    /// The index was built from other files, or does not fit.
    pub fn new(
        (entries, faq): (Vec<Entry>, Digest),
        index: Index,
        (model, dim): (Digest, usize),
        thresholds: Thresholds,
    ) -> Result<Self, AssistantError> {
        for (of, built_from, found) in
            [("faq.jsonl", index.faq, faq), ("model.onnx", index.model, model)]
        {
            if built_from != found {
                let (built_from, found) = (built_from.short(), found.short());
                return Err(AssistantError::Stale { of, built_from, found });
            }
        }
        if index.entries() != entries.len() || index.dim() != dim {
            return Err(AssistantError::Mismatch {
                entries: index.entries(),
                dim: index.dim(),
                package_entries: entries.len(),
                package_dim: dim,
            });
        }
        Self { entries, index, thresholds: Thresholds::new() }.with_thresholds(thresholds)
    }

    /// The same assistant with other thresholds.
    ///
    /// # Errors
    /// A language of the entries has none.
    pub fn with_thresholds(self, thresholds: Thresholds) -> Result<Self, AssistantError> {
        match self.entries.iter().find(|entry| !thresholds.contains_key(&entry.lang)) {
            Some(Entry { id, lang, .. }) => {
                Err(AssistantError::NoThreshold { entry: id.clone(), lang: lang.clone() })
            }
            None => Ok(Self { thresholds, ..self }),
        }
    }

    /// The answer to a question with the embedding `question`. With `lang`, only entries in that language are
    /// considered; when the FAQ has none in it, all are.
    pub fn answer(&self, question: &[f32], lang: Option<&str>) -> Answer<'_> {
        let lang = lang.filter(|lang| self.entries.iter().any(|entry| entry.lang == *lang));
        let wanted = |at: usize| {
            self.entries.get(at).is_some_and(|entry| lang.is_none_or(|lang| entry.lang == lang))
        };
        let nearest = self
            .index
            .nearest(question, wanted)
            .and_then(|hit| self.entries.get(hit.entry).map(|entry| (entry, hit.score)));
        let threshold =
            nearest.and_then(|(entry, _)| self.thresholds.get(&entry.lang).copied()).unwrap_or(1.0);
        let decision = match nearest {
            Some((_, score)) if score >= threshold => Decision::Answered,
            Some(_) | None => Decision::Abstained,
        };
        Answer { nearest, threshold, decision }
    }

    /// The embeddings of the questions.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// The index of `entries` (whose file has the digest `faq`) by `embedder` (whose model has the digest `model`).
/// `progress` is called with (done, all) after each entry.
///
/// # Errors
/// A question has no embedding.
pub fn build_index(
    embedder: &Embedder,
    entries: &[Entry],
    (faq, model): (Digest, Digest),
    mut progress: impl FnMut(usize, usize),
) -> Result<Index, AssistantError> {
    let mut rows = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        for question in entry.questions() {
            let embedding =
                embedder.embed_one(question, embedder.question_kind()).map_err(|source| {
                    AssistantError::Embed {
                        entry: entry.id.clone(),
                        question: question.into(),
                        source,
                    }
                })?;
            rows.push((at, embedding.vector));
        }
        progress(at + 1, entries.len());
    }
    Ok(Index::new(faq, model, (entries.len(), embedder.dim()), rows)?)
}
