//! The entries of an FAQ assistant: JSON lines, one entry a line.
//!
//! An entry is one answer in one language; `(id, lang)` is its key, so the same id in French and in English is the
//! same advice in two languages.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Most entries of one assistant.
pub const ENTRIES_MAX: usize = 10_000;
/// Most ways to ask for one entry, besides its question.
pub const PARAPHRASES_MAX: usize = 64;
const FIELD_BYTES_MAX: usize = 16 * 1024;

/// One answer and the ways to ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Which advice this is, the same in every language.
    pub id: String,
    /// Language of the texts: `fr`, `en`.
    pub lang: String,
    /// The question as a person would title it.
    pub question: String,
    /// Other ways to ask it.
    #[serde(default)]
    pub paraphrases: Vec<String>,
    /// What is answered.
    pub answer: String,
    /// Where the answer stands, for the reader to check.
    pub source: String,
}

/// Why a text is not a list of entries.
#[derive(Debug, thiserror::Error)]
pub enum FaqError {
    /// A line that is not UTF-8.
    #[error("FAQ is not UTF-8 after byte {valid_bytes}")]
    NotUtf8 {
        /// How far it is.
        valid_bytes: usize,
    },
    /// A line that is not an entry.
    #[error("FAQ line {line} is not an entry")]
    Line {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// An entry that is well formed and impossible.
    #[error("FAQ line {line} {what}")]
    Entry {
        /// Counted from 1.
        line: usize,
        /// What.
        what: String,
    },
    /// No entry, or too many.
    #[error("FAQ has {entries} entries; allowed are 1 to {ENTRIES_MAX}")]
    Count {
        /// How many.
        entries: usize,
    },
}

/// The entries of `faq.jsonl`. Empty lines are skipped.
///
/// # Errors
/// Names the first line that is not an entry, is empty where it must not be, or repeats `(id, lang)`.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, FaqError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|at| FaqError::NotUtf8 { valid_bytes: at.valid_up_to() })?;
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line_number = at + 1;
        let entry: Entry = serde_json::from_str(line)
            .map_err(|source| FaqError::Line { line: line_number, source })?;
        entry.check().map_err(|what| FaqError::Entry { line: line_number, what })?;
        if !seen.insert((entry.id.clone(), entry.lang.clone())) {
            let what = format!("repeats the entry `{}` in `{}`", entry.id, entry.lang);
            return Err(FaqError::Entry { line: line_number, what });
        }
        entries.push(entry);
        if entries.len() > ENTRIES_MAX {
            break;
        }
    }
    match entries.len() {
        1..=ENTRIES_MAX => Ok(entries),
        entries => Err(FaqError::Count { entries }),
    }
}

impl Entry {
    /// Every text by which the entry is found: its question, then its paraphrases.
    pub fn questions(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.question.as_str()).chain(self.paraphrases.iter().map(String::as_str))
    }

    fn check(&self) -> Result<(), String> {
        let fields = [
            ("id", &self.id),
            ("lang", &self.lang),
            ("answer", &self.answer),
            ("source", &self.source),
        ];
        let questions = self.questions().map(|text| ("question", text));
        for (name, text) in
            fields.map(|(name, text)| (name, text.as_str())).into_iter().chain(questions)
        {
            if text.trim().is_empty() {
                return Err(format!("has an empty {name}"));
            }
            if text.len() > FIELD_BYTES_MAX {
                return Err(format!("has a {name} longer than {FIELD_BYTES_MAX} bytes"));
            }
        }
        if self.paraphrases.len() > PARAPHRASES_MAX {
            return Err(format!("has more than {PARAPHRASES_MAX} paraphrases"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"id":"vpn","lang":"fr","question":"VPN ?","paraphrases":["Accès distant ?"],"answer":"Oui","source":"wiki"}"#;

    #[test]
    fn an_entry_is_found_by_each_of_its_questions() {
        let entries = parse(format!("\n{GOOD}\n\n").as_bytes()).unwrap();
        assert_eq!(entries[0].questions().collect::<Vec<_>>(), ["VPN ?", "Accès distant ?"]);
    }

    #[test]
    fn the_wrong_line_is_named() {
        let cases = [
            (format!("{GOOD}\n{GOOD}"), "FAQ line 2 repeats the entry `vpn` in `fr`"),
            (format!("{GOOD}\nnot json"), "FAQ line 2 is not an entry"),
            (GOOD.replace("Oui", "  "), "FAQ line 1 has an empty answer"),
            (
                GOOD.replace("VPN ?", &"x".repeat(20_000)),
                "FAQ line 1 has a question longer than 16384 bytes",
            ),
            (GOOD.replace("\"id\"", "\"ident\""), "FAQ line 1 is not an entry"),
            (String::new(), "FAQ has 0 entries; allowed are 1 to 10000"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expected);
        }
        assert_eq!(parse(b"ab\xff").unwrap_err().to_string(), "FAQ is not UTF-8 after byte 2");
    }
}
