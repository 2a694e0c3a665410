//! Where to put the threshold of an assistant, from labelled questions it was asked, and what that costs on questions
//! that took no part in the choice.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A question with the entry that answers it. One JSON object a line in a calibration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledQuestion {
    /// The question.
    pub text: String,
    /// Its language.
    pub lang: String,
    /// Id of the entry that answers it; none when no entry does.
    pub expect: Option<String>,
    /// Which part it plays.
    pub split: Split,
}

/// Which part a labelled question plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Chooses the thresholds.
    Calibrate,
    /// Measures them.
    Test,
}

/// A labelled question and the nearest entry that was found for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Language of the question.
    pub lang: String,
    /// Id of the entry that answers it, if one does.
    pub expect: Option<String>,
    /// The nearest entry.
    pub found: Option<Found>,
    /// Which part it plays.
    pub split: Split,
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Its language.
    pub lang: String,
    /// Its score.
    pub score: f32,
}

/// The score below which nothing is answered, by the language of the entry found: an encoder that knows one language
/// better scores higher in the other, so one threshold would serve neither.
pub type Thresholds = BTreeMap<String, f32>;

/// What thresholds were measured to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Most false answers that were allowed on the questions that chose, per 1000 questions without an answer.
    pub false_answers_allowed_per_mille: u32,
    /// On the questions that chose the thresholds, by language of the question.
    pub chosen_on: BTreeMap<String, Counts>,
    /// On the held-out questions, by language of the question.
    pub measured_on: BTreeMap<String, Counts>,
}

/// What happened to a set of labelled questions at a threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Questions that an entry answers.
    pub answerable: u32,
    /// Of these, the nearest entry was the right one (whatever its score): recall@1.
    pub nearest_right: u32,
    /// Of these, answered with the right entry.
    pub answered_right: u32,
    /// Of these, answered with a wrong entry.
    pub answered_wrong: u32,
    /// Questions that no entry answers.
    pub unanswerable: u32,
    /// Of these, answered all the same.
    pub answered_falsely: u32,
}

/// Why no threshold can be chosen.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CalibrateError {
    /// A split lacks questions of a kind.
    #[error(
        "split `{split}` has {answerable} questions in `{lang}` with an answer and {unanswerable} without: it needs both"
    )]
    TooFew {
        /// Which split.
        split: &'static str,
        /// In which language.
        lang: String,
        /// Questions with an answer.
        answerable: u32,
        /// Questions without.
        unanswerable: u32,
    },
    /// A line that is not a labelled question.
    #[error("calibration line {line} is not a labelled question: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// Why.
        reason: String,
    },
}

impl Counts {
    /// Of the questions that an entry answers, how many have the right entry nearest: 0 to 1.
    pub fn recall_at_1(&self) -> f64 {
        f64::from(self.nearest_right) / f64::from(self.answerable.max(1))
    }

    /// Of the questions that no entry answers, how many were answered: 0 to 1.
    pub fn false_answer_rate(&self) -> f64 {
        f64::from(self.answered_falsely) / f64::from(self.unanswerable.max(1))
    }
}

/// The labelled questions of a JSON-lines file. Empty lines are skipped.
///
/// # Errors
/// Names the first line that is not one.
pub fn parse(bytes: &[u8]) -> Result<Vec<LabelledQuestion>, CalibrateError> {
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(at, line)| {
            serde_json::from_slice(line)
                .map_err(|reason| CalibrateError::Line { line: at + 1, reason: reason.to_string() })
        })
        .collect()
}

/// How well the scores of the calibration split tell right entries from questions without an answer: over all
/// languages, the questions whose right entry scores above all but the highest few unanswerable ones, summed over "few"
/// being none up to a quarter of them. Thresholds of every allowance in that range count, not only the one that will be
/// chosen: among so few questions a single one would decide otherwise.
pub fn quality(scored: &[Scored]) -> u64 {
    let chosen = || scored.iter().filter(|question| question.split == Split::Calibrate);
    let languages: BTreeSet<&str> = chosen().map(|question| question.lang.as_str()).collect();
    let of = |lang: &str| {
        let (mut right, mut unanswerable) = (Vec::new(), Vec::new());
        for question in chosen().filter(|question| question.lang == lang) {
            match (&question.expect, &question.found) {
                (Some(expect), Some(found)) if *expect == found.id => right.push(found.score),
                (None, Some(found)) => unanswerable.push(found.score),
                (Some(_) | None, _) => {}
            }
        }
        unanswerable.sort_unstable_by(|a, b| b.total_cmp(a));
        let few = (unanswerable.len() / 4).max(1);
        let bars = unanswerable.iter().take(few);
        bars.map(|bar| right.iter().filter(|score| *score > bar).count() as u64).sum::<u64>()
    };
    languages.into_iter().map(of).sum()
}

/// For each language the threshold that answers most questions rightly on the calibration split while at most
/// `false_answers_allowed_per_mille` of its unanswerable questions are answered (of thresholds that do equally well the
/// highest, each being the middle of a gap between two scores); then what they do on the held-out split.
///
/// # Errors
/// A split lacks answerable or unanswerable questions in a language.
pub fn calibrate(
    scored: &[Scored],
    false_answers_allowed_per_mille: u32,
) -> Result<(Thresholds, Calibration), CalibrateError> {
    let part = |split: Split, lang: &str| -> Vec<&Scored> {
        scored.iter().filter(|s| s.split == split && s.lang == lang).collect()
    };
    let languages: BTreeSet<&str> = scored.iter().map(|s| s.lang.as_str()).collect();
    let mut thresholds = Thresholds::new();
    for lang in &languages {
        let questions = part(Split::Calibrate, lang);
        for (split, questions) in [("calibrate", &questions), ("test", &part(Split::Test, lang))] {
            let Counts { answerable, unanswerable, .. } = counts(questions, &Thresholds::new());
            if answerable == 0 || unanswerable == 0 {
                let lang = (*lang).into();
                return Err(CalibrateError::TooFew { split, lang, answerable, unanswerable });
            }
        }
        thresholds.insert((*lang).into(), choose(&questions, false_answers_allowed_per_mille));
    }
    let measure = |split: Split| -> BTreeMap<String, Counts> {
        let counted =
            languages.iter().map(|lang| ((*lang).into(), counts(&part(split, lang), &thresholds)));
        counted.collect()
    };
    let (chosen_on, measured_on) = (measure(Split::Calibrate), measure(Split::Test));
    Ok((thresholds, Calibration { false_answers_allowed_per_mille, chosen_on, measured_on }))
}

/// What happens to `questions` at `thresholds`; nothing is answered in a language that has none.
pub fn counts(questions: &[&Scored], thresholds: &Thresholds) -> Counts {
    let at = |found: &Found| thresholds.get(&found.lang).copied().unwrap_or(f32::INFINITY);
    count(questions, at)
}

fn choose(questions: &[&Scored], allowed_per_mille: u32) -> f32 {
    let mut scores: Vec<f32> =
        questions.iter().filter_map(|q| q.found.as_ref().map(|f| f.score)).collect();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    scores.dedup();
    let below_all = scores.last().map(|score| score - 0.01);
    let gaps = scores.iter().zip(scores.iter().skip(1).copied().chain(below_all));
    let (mut best, mut best_right) = (1.0, 0);
    for threshold in gaps.map(|(above, below)| f32::midpoint(*above, below)) {
        let counts = count(questions, |_| threshold);
        let allowed = u64::from(counts.unanswerable) * u64::from(allowed_per_mille);
        if u64::from(counts.answered_falsely) * 1000 <= allowed
            && counts.answered_right > best_right
        {
            (best, best_right) = (threshold, counts.answered_right);
        }
    }
    best
}

fn count(questions: &[&Scored], threshold: impl Fn(&Found) -> f32) -> Counts {
    let mut counts = Counts::default();
    for question in questions {
        let answered = question.found.as_ref().is_some_and(|found| found.score >= threshold(found));
        match &question.expect {
            Some(expect) => {
                let right = question.found.as_ref().is_some_and(|found| found.id == *expect);
                counts.answerable += 1;
                counts.nearest_right += u32::from(right);
                counts.answered_right += u32::from(right && answered);
                counts.answered_wrong += u32::from(!right && answered);
            }
            None => {
                counts.unanswerable += 1;
                counts.answered_falsely += u32::from(answered);
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scored(expect: Option<&str>, id: &str, score: f32, split: Split) -> Scored {
        let expect = expect.map(Into::into);
        let found = Some(Found { id: id.into(), lang: "fr".into(), score });
        Scored { lang: "fr".into(), expect, found, split }
    }

    fn sample(split: Split) -> Vec<Scored> {
        vec![
            scored(Some("a"), "a", 0.9, split),
            scored(Some("b"), "b", 0.7, split),
            scored(Some("c"), "x", 0.65, split),
            scored(None, "a", 0.6, split),
            scored(Some("d"), "d", 0.5, split),
            scored(None, "b", 0.2, split),
        ]
    }

    #[test]
    fn the_threshold_answers_most_within_the_allowance() {
        let all = [sample(Split::Calibrate), sample(Split::Test)].concat();
        let (strict, calibration) = calibrate(&all, 0).unwrap();
        assert!((strict["fr"] - 0.675).abs() < 1e-6, "{strict:?}");
        let expected = Counts {
            answerable: 4,
            nearest_right: 3,
            answered_right: 2,
            answered_wrong: 0,
            unanswerable: 2,
            answered_falsely: 0,
        };
        assert_eq!(
            (calibration.chosen_on["fr"], calibration.measured_on["fr"]),
            (expected, expected)
        );
        let (lax, calibration) = calibrate(&all, 500).unwrap();
        assert!((lax["fr"] - 0.35).abs() < 1e-6, "{lax:?}");
        let measured = calibration.measured_on["fr"];
        assert_eq!((measured.answered_right, measured.answered_falsely), (3, 1));
    }

    #[test]
    fn quality_counts_right_entries_above_the_unanswerable_ones() {
        let sample = sample(Split::Calibrate);
        assert_eq!(quality(&sample), 2, "0.9 and 0.7 are right and above 0.6");
        let test_only = self::sample(Split::Test);
        assert_eq!(quality(&test_only), 0);
        let unanswerable = |score| scored(None, "a", score, Split::Calibrate);
        let more: Vec<Scored> = (0..6).map(|at| unanswerable(at as f32 / 100.0)).collect();
        // Of 8 unanswerable questions a quarter is 2: 0.9 and 0.7 are above 0.6, those and 0.5 above 0.2.
        assert_eq!(quality(&[sample, more].concat()), 2 + 3);
    }

    #[test]
    fn each_language_has_its_own_threshold() {
        let mut english = [sample(Split::Calibrate), sample(Split::Test)].concat();
        let french = english.clone();
        for question in &mut english {
            question.lang = "en".into();
            question.found = question.found.take().map(|found| Found {
                lang: "en".into(),
                score: found.score / 2.0,
                ..found
            });
        }
        let (thresholds, calibration) = calibrate(&[french, english].concat(), 0).unwrap();
        assert!(
            (thresholds["en"] - 0.3375).abs() < 1e-6 && (thresholds["fr"] - 0.675).abs() < 1e-6,
            "{thresholds:?}"
        );
        assert_eq!(calibration.measured_on["en"], calibration.measured_on["fr"]);
    }

    #[test]
    fn a_split_without_both_kinds_is_refused() {
        let all =
            [sample(Split::Calibrate), vec![scored(Some("a"), "a", 0.9, Split::Test)]].concat();
        assert_eq!(
            calibrate(&all, 0).unwrap_err().to_string(),
            "split `test` has 1 questions in `fr` with an answer and 0 without: it needs both"
        );
    }

    #[test]
    fn nothing_is_answered_when_nothing_may_be_wrong() {
        let part = |split| [scored(Some("a"), "a", 0.5, split), scored(None, "a", 0.8, split)];
        let all = [part(Split::Calibrate), part(Split::Test)].concat();
        let (thresholds, calibration) = calibrate(&all, 0).unwrap();
        assert_eq!((thresholds["fr"], calibration.measured_on["fr"].answered_right), (1.0, 0));
    }

    #[test]
    fn lines_are_questions() {
        let good = r#"{"text":"Bonjour ?","lang":"fr","expect":null,"split":"calibrate"}"#;
        assert_eq!(parse(format!("{good}\n\n{good}\r\n").as_bytes()).unwrap().len(), 2);
        assert!(
            parse(format!("{good}\n{{}}").as_bytes())
                .unwrap_err()
                .to_string()
                .starts_with("calibration line 2 ")
        );
    }

    proptest! {
        #[test]
        fn the_allowance_holds_on_the_calibration_split(
            questions in proptest::collection::vec((any::<bool>(), any::<bool>(), 0.0_f32..1.0), 2..80),
            allowed in 0_u32..1000,
        ) {
            let mut all: Vec<Scored> = questions.iter()
                .map(|(answerable, right, score)| scored(answerable.then_some("a"), if *right { "a" } else { "b" }, *score, Split::Calibrate))
                .collect();
            all.extend(sample(Split::Calibrate));
            all.extend(sample(Split::Test));
            let (_, calibration) = calibrate(&all, allowed).unwrap();
            let chosen = calibration.chosen_on["fr"];
            prop_assert!(chosen.answered_falsely * 1000 <= chosen.unanswerable * allowed);
        }
    }
}
