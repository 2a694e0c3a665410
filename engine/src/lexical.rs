//! The words of the entries, scored by BM25: a name or a number that stands in the question and in an entry says what
//! vectors blur.
//!
//! Okapi BM25 with the usual constants and the inverse document frequency that is never negative (Robertson and Zaragoza,
//! "The Probabilistic Relevance Framework: BM25 and Beyond", 2009). A word is a run of letters and digits, in lower case
//! and without the accents of Latin letters, which people leave out.

use std::collections::HashMap;

use crate::faq::Entry;

/// How soon more of the same word stops counting.
const K1: f32 = 1.2;
/// How much less a word counts in a longer text.
const B: f32 = 0.75;
/// The BM25 score that becomes one half.
const HALF: f32 = 10.0;
/// Combining marks, which follow the letter they belong to.
const MARKS: std::ops::RangeInclusive<char> = '\u{300}'..='\u{36f}';

/// The words of some entries.
#[derive(Debug, Clone)]
pub struct Lexical {
    /// For each word the entries that have it, and how often.
    postings: HashMap<String, Vec<(usize, f32)>>,
    /// Words of each entry.
    lengths: Vec<f32>,
    mean_length: f32,
}

impl Lexical {
    /// The words of `entries`: their questions, paraphrases and answers.
    pub fn new(entries: &[Entry]) -> Self {
        let mut postings: HashMap<String, Vec<(usize, f32)>> = HashMap::new();
        let mut lengths = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let texts = entry.questions().chain([entry.answer.as_str()]);
            let mut length = 0.0;
            for word in texts.flat_map(words) {
                length += 1.0;
                let found = postings.entry(word).or_default();
                match found.last_mut() {
                    Some((last, count)) if *last == at => *count += 1.0,
                    Some(_) | None => found.push((at, 1.0)),
                }
            }
            lengths.push(length);
        }
        let mean_length = lengths.iter().sum::<f32>() / (lengths.len().max(1) as f32);
        Self { postings, lengths, mean_length: mean_length.max(1.0) }
    }

    /// How well the words of each entry fit those of `question`: from 0, no word in common, to just below 1.
    pub fn scores(&self, question: &str) -> Vec<f32> {
        let mut scores = vec![0.0; self.lengths.len()];
        let mut asked: Vec<String> = words(question).collect();
        asked.sort_unstable();
        asked.dedup();
        let all = self.lengths.len() as f32;
        for found in asked.iter().filter_map(|word| self.postings.get(word)) {
            let have = found.len() as f32;
            let rarity = (1.0 + (all - have + 0.5) / (have + 0.5)).ln();
            for (at, count) in found {
                let (Some(score), Some(length)) = (scores.get_mut(*at), self.lengths.get(*at))
                else {
                    continue;
                };
                let room = K1 * (1.0 - B + B * length / self.mean_length);
                *score += rarity * count * (K1 + 1.0) / (count + room);
            }
        }
        for score in &mut scores {
            *score /= *score + HALF;
        }
        scores
    }
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let pieces = text.split(|c: char| !c.is_alphanumeric() && !MARKS.contains(&c));
    let words = pieces.map(|piece| {
        let lower = piece.chars().filter(|c| !MARKS.contains(c)).flat_map(char::to_lowercase);
        lower.map(plain).collect::<String>()
    });
    words.filter(|word| !word.is_empty())
}

/// A small Latin letter without its accent; any other character as it is.
const fn plain(letter: char) -> char {
    match letter {
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' => 'a',
        'ç' => 'c',
        'è' | 'é' | 'ê' | 'ë' => 'e',
        'ì' | 'í' | 'î' | 'ï' => 'i',
        'ñ' => 'n',
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' => 'o',
        'ù' | 'ú' | 'û' | 'ü' => 'u',
        'ý' | 'ÿ' => 'y',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(question: &str, answer: &str) -> Entry {
        Entry {
            id: question.into(),
            lang: "fr".into(),
            question: question.into(),
            paraphrases: Vec::new(),
            answer: answer.into(),
            source: "guide".into(),
        }
    }

    #[test]
    fn words_are_found_whatever_their_case_and_accents() {
        let found = |text: &str| words(text).collect::<Vec<_>>();
        assert_eq!(found("L'Étiquette n°12, ÇA va ?"), ["l", "etiquette", "n", "12", "ca", "va"]);
        assert_eq!(found("e\u{301}tiquette"), ["etiquette"]);
        assert_eq!(found("Ж 漢字"), ["ж", "漢字"]);
        assert!(found(" ?!… ").is_empty());
    }

    #[test]
    fn a_rare_word_weighs_more_than_a_common_one() {
        let entries = [
            entry("Comment changer de mot de passe ?", "Par le portail."),
            entry("Comment changer de clavier ?", "Par le menu."),
            entry("Comment changer de badge ?", "Par le guichet."),
        ];
        let scores = Lexical::new(&entries).scores("changer le BADGE");
        assert!(scores[2] > 2.0 * scores[0] && scores[0] > 0.0, "{scores:?}");
        assert_eq!(Lexical::new(&entries).scores("vin poisson"), [0.0; 3]);
    }

    #[test]
    fn a_score_is_bm25_as_it_is_published() {
        let entries = [entry("badge perdu", "guichet badge"), entry("clavier", "menu")];
        // "badge" stands twice in the first of two texts, which has 4 words of 3 on average.
        let rarity = (1.0_f32 + 1.5 / 1.5).ln();
        let score = rarity * 2.0 * 2.2 / (2.0 + 1.2 * (0.25 + 0.75 * 4.0 / 3.0));
        let found = Lexical::new(&entries).scores("badge badge");
        assert!((found[0] - score / (score + 10.0)).abs() < 1e-6, "{found:?}");
        assert_eq!(found[1], 0.0);
    }

    proptest! {
        #[test]
        fn scores_lie_between_0_and_1(texts in proptest::collection::vec(".{0,40}", 0..8), question in ".{0,60}") {
            let entries: Vec<Entry> = texts.iter().map(|text| entry(text, text)).collect();
            let scores = Lexical::new(&entries).scores(&question);
            prop_assert_eq!(scores.len(), entries.len());
            prop_assert!(scores.iter().all(|score| (0.0..1.0).contains(score)), "{:?}", scores);
        }
    }
}
