//! The FAQ assistant: the entry nearest to a question, or an abstention.
//!
//! A question is compared with the questions and with the answer of each entry, by their vectors, and with the words of
//! both; a [`Blend`] makes one score of the three.

use protocol::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    blend::{Blend, Nearness},
    calibrate::Thresholds,
    embedder::{EmbedError, Embedder},
    encoder_spec::InputKind,
    faq::Entry,
    index::{Index, IndexError, Vectors},
    lexical::Lexical,
};

/// Entries, what they are found by, and the scores below which nothing is answered.
#[derive(Debug)]
pub struct Assistant {
    entries: Vec<Entry>,
    index: Index,
    lexical: Lexical,
    rule: Rule,
}

/// How scores are made and judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// How they are made.
    pub blend: Blend,
    /// What they must reach.
    pub thresholds: Thresholds,
}

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// As it was asked.
    pub text: &'a str,
    /// Its embedding.
    pub vector: &'a [f32],
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
    /// A question or an answer of the FAQ has no embedding.
    #[error("computing the embedding of `{text}` of entry `{entry}`")]
    Embed {
        /// The entry.
        entry: String,
        /// The text.
        text: String,
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
        rule: Rule,
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
        let lexical = Lexical::new(&entries);
        let open = Rule { blend: Blend::default(), thresholds: Thresholds::new() };
        Self { entries, index, lexical, rule: open }.with_rule(rule)
    }

    /// The same assistant with another rule.
    ///
    /// # Errors
    /// A language of the entries has no threshold.
    pub fn with_rule(self, rule: Rule) -> Result<Self, AssistantError> {
        match self.entries.iter().find(|entry| !rule.thresholds.contains_key(&entry.lang)) {
            Some(Entry { id, lang, .. }) => {
                Err(AssistantError::NoThreshold { entry: id.clone(), lang: lang.clone() })
            }
            None => Ok(Self { rule, ..self }),
        }
    }

    /// How near a question is to each entry, in their order.
    pub fn nearness(&self, asked: Asked<'_>) -> Vec<Nearness> {
        let cosines = self.index.cosines(asked.vector).into_iter();
        let nearness = cosines.zip(self.lexical.scores(asked.text)).map(|(cosines, words)| {
            Nearness { question: cosines.question, answer: cosines.answer, words }
        });
        nearness.collect()
    }

    /// The entry of the highest score by `blend`, of equal ones the first; with `lang`, of those in that language.
    pub fn best(
        &self,
        nearness: &[Nearness],
        blend: Blend,
        lang: Option<&str>,
    ) -> Option<(&Entry, f32)> {
        let entries = self.entries.iter().zip(nearness);
        let wanted = entries.filter(|(entry, _)| lang.is_none_or(|lang| entry.lang == lang));
        let scored = wanted.map(|(entry, near)| (entry, blend.score(*near)));
        scored.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// The answer to a question. With `lang`, only entries in that language are considered; when the FAQ has none in
    /// it, all are.
    pub fn answer(&self, asked: Asked<'_>, lang: Option<&str>) -> Answer<'_> {
        let lang = lang.filter(|lang| self.entries.iter().any(|entry| entry.lang == *lang));
        let nearest = self.best(&self.nearness(asked), self.rule.blend, lang);
        let threshold_of = |entry: &Entry| self.rule.thresholds.get(&entry.lang).copied();
        let threshold = nearest.and_then(|(entry, _)| threshold_of(entry)).unwrap_or(1.0);
        let decision = match nearest {
            Some((_, score)) if score >= threshold => Decision::Answered,
            Some(_) | None => Decision::Abstained,
        };
        Answer { nearest, threshold, decision }
    }

    /// The embeddings of the questions and answers.
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
/// A text has no embedding.
pub fn build_index(
    embedder: &Embedder,
    entries: &[Entry],
    (faq, model): (Digest, Digest),
    mut progress: impl FnMut(usize, usize),
) -> Result<Index, AssistantError> {
    let mut vectors = Vectors { questions: Vec::new(), answers: Vec::new() };
    for (at, entry) in entries.iter().enumerate() {
        let embed = |text: &str, kind: InputKind| match embedder.embed_one(text, kind) {
            Ok(embedding) => Ok(embedding.vector),
            Err(source) => {
                Err(AssistantError::Embed { entry: entry.id.clone(), text: text.into(), source })
            }
        };
        for question in entry.questions() {
            vectors.questions.push((at, embed(question, embedder.question_kind())?));
        }
        vectors.answers.push(embed(&entry.answer, embedder.answer_kind())?);
        progress(at + 1, entries.len());
    }
    Ok(Index::new(faq, model, embedder.dim(), vectors)?)
}
