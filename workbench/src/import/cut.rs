//! Cuts a vocabulary to some languages: what texts of theirs use, and what it takes to spell everything else they write.

use std::collections::BTreeSet;

use serde::Serialize;
use tokenizers::Tokenizer;

use crate::import::{
    languages::{self, Language},
    vocabulary::{Kind, Vocabulary, VocabularyError},
};

/// Of so many lines one takes no part in the count and measures it.
const HELD_OUT_EVERY: usize = 10;
/// Fewer lines than this measure nothing.
const LINES_MIN: usize = 100;
/// Longest piece that is kept because it helps to spell, not because a text used it.
const SPELLING_MAX: usize = 2;
/// Longest abbreviation in capitals that is kept likewise.
const CAPITALS_MAX: usize = 5;
/// Dropped pieces that a report names.
const NAMED: usize = 8;

/// A cut vocabulary.
#[derive(Debug)]
pub struct Cut {
    /// The old ids that were kept; the new id of each is its place here.
    pub kept: Vec<u32>,
    /// Content of the new `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// What was done, and what it changed.
    pub report: CutReport,
}

/// What cutting did.
#[derive(Debug, Clone, Serialize)]
pub struct CutReport {
    /// Kind of the vocabulary.
    pub kind: Kind,
    /// Codes of the languages.
    pub languages: Vec<String>,
    /// Lines of text that were counted.
    pub lines: usize,
    /// Tokens before.
    pub tokens_before: usize,
    /// Tokens kept.
    pub tokens_kept: usize,
    /// Of these, kept because the text uses them.
    pub tokens_used: usize,
    /// Some that were dropped, evenly over the vocabulary.
    pub dropped: Vec<String>,
    /// On every tenth line, with a vocabulary counted on the others. What is written counts all lines.
    pub held_out: HeldOut,
}

/// What a cut changes for lines that it was not counted on.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct HeldOut {
    /// Lines.
    pub lines: usize,
    /// Tokens of these lines before.
    pub tokens_before: usize,
    /// Tokens of these lines after.
    pub tokens_after: usize,
    /// Tokens that stand for something unknown, before.
    pub unknown_before: usize,
    /// Tokens that stand for something unknown, after.
    pub unknown_after: usize,
    /// Lines that are read as before.
    pub lines_unchanged: usize,
}

/// Why a vocabulary cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Its file.
    #[error("reading the vocabulary")]
    Vocabulary(#[from] VocabularyError),
    /// The library that reads texts does not take the file.
    #[error("tokenizer.json is not a tokenizer: take the one that was published with the model")]
    Tokenizer(#[source] tokenizers::Error),
    /// Too little to count on.
    #[error(
        "text has {lines} lines with words; give at least {LINES_MIN}, so that the languages show"
    )]
    TooLittle {
        /// Lines.
        lines: usize,
    },
    /// A line that cannot be read.
    #[error("line {line} of the text cannot be made tokens")]
    Line {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: tokenizers::Error,
    },
}

/// Cuts the vocabulary of the `tokenizer.json` in `json` to `languages`, as `text` uses it. `progress` is called with
/// (done, all) over the lines.
pub fn cut(
    json: &[u8],
    languages: &[Language],
    text: &str,
    mut progress: impl FnMut(usize, usize),
) -> Result<Cut, CutError> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.len() < LINES_MIN {
        return Err(CutError::TooLittle { lines: lines.len() });
    }
    let vocabulary = Vocabulary::parse(json)?;
    let before = Reader::new(json)?;
    let is_held_out = |at: usize| at % HELD_OUT_EVERY == HELD_OUT_EVERY - 1;
    let (mut counted, mut used) = (BTreeSet::new(), BTreeSet::new());
    let mut held_out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let ids = before.ids(at, line)?;
        used.extend(ids.iter().copied());
        if is_held_out(at) {
            held_out.push((at, *line, ids));
        } else {
            counted.extend(ids);
        }
        progress(at + 1, lines.len());
    }
    let base = spelling(&vocabulary, languages)?;
    let trial = Reader::new(&vocabulary.cut(&base.union(&counted).copied().collect())?)?;
    let held_out = measure(&vocabulary, &trial, &held_out)?;
    let kept: BTreeSet<u32> = base.union(&used).copied().collect();
    let report = CutReport {
        kind: vocabulary.kind(),
        languages: languages.iter().map(ToString::to_string).collect(),
        lines: lines.len(),
        tokens_before: vocabulary.tokens().len(),
        tokens_kept: kept.len(),
        tokens_used: used.len(),
        dropped: examples(&vocabulary, &kept),
        held_out,
    };
    let tokenizer = vocabulary.cut(&kept)?;
    Ok(Cut { kept: kept.into_iter().collect(), tokenizer, report })
}

/// Makes tokens of lines.
struct Reader(Tokenizer);

impl Reader {
    fn new(json: &[u8]) -> Result<Self, CutError> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(CutError::Tokenizer)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(CutError::Tokenizer)?;
        Ok(Self(tokenizer))
    }

    fn ids(&self, at: usize, line: &str) -> Result<Vec<u32>, CutError> {
        let encoding = self.0.encode_fast(line, false);
        let encoding = encoding.map_err(|source| CutError::Line { line: at + 1, source })?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// The tokens that are kept whatever the text uses.
fn spelling(vocabulary: &Vocabulary, languages: &[Language]) -> Result<BTreeSet<u32>, CutError> {
    let mut kept = vocabulary.indispensable()?;
    for (id, piece) in (0..).zip(vocabulary.tokens()) {
        let plain = vocabulary.plain(piece);
        let length = plain.chars().count();
        let spells = length <= SPELLING_MAX
            || (length <= CAPITALS_MAX
                && plain.chars().all(|c| c.is_uppercase() || c.is_numeric()));
        if spells && plain.chars().all(|character| languages::writes(languages, character)) {
            kept.insert(id);
        }
    }
    Ok(kept)
}

fn measure(
    vocabulary: &Vocabulary,
    trial: &Reader,
    lines: &[(usize, &str, Vec<u32>)],
) -> Result<HeldOut, CutError> {
    let mut held_out = HeldOut { lines: lines.len(), ..HeldOut::default() };
    let unknown_before = vocabulary.unknown()?;
    // Kept tokens have other numbers, so readings are compared by their text.
    let unknown_after = vocabulary.tokens().get(unknown_before as usize);
    for (at, line, before) in lines {
        let after = trial.ids(*at, line)?;
        let after: Vec<Option<String>> = after.iter().map(|id| trial.0.id_to_token(*id)).collect();
        held_out.tokens_before += before.len();
        held_out.tokens_after += after.len();
        held_out.unknown_before += before.iter().filter(|id| **id == unknown_before).count();
        held_out.unknown_after +=
            after.iter().filter(|token| token.as_ref() == unknown_after).count();
        let before = before.iter().map(|id| vocabulary.tokens().get(*id as usize));
        held_out.lines_unchanged += usize::from(before.eq(after.iter().map(Option::as_ref)));
    }
    Ok(held_out)
}

fn examples(vocabulary: &Vocabulary, kept: &BTreeSet<u32>) -> Vec<String> {
    let dropped = (0..).zip(vocabulary.tokens()).filter(|(id, _)| !kept.contains(id));
    let dropped: Vec<&String> = dropped.map(|(_, token)| token).collect();
    let step = (dropped.len() / NAMED).max(1);
    dropped.into_iter().step_by(step).take(NAMED).cloned().collect()
}
