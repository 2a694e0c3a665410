//! One score of three: how near a question is to the questions of an entry, to its answer, and in its words.

use serde::{Deserialize, Serialize};

/// How near a question is to an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearness {
    /// Cosine with the nearest of its questions and paraphrases.
    pub question: f32,
    /// Cosine with its answer.
    pub answer: f32,
    /// How well its words fit, 0 to 1.
    pub words: f32,
}

/// How much each counts. The default is the nearest question alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blend {
    /// Share of the answer in the meaning, 0 to 1; the rest is the nearest question's.
    pub answer: f32,
    /// Weight of the words beside the meaning, which weighs 1; 0 to 10.
    pub words: f32,
}

impl Blend {
    /// What is tried when a package is made. Of those that do equally well the first is taken, so that nothing is mixed
    /// in that does not help.
    pub const TRIED: [Self; 12] = [
        Self::of(0.0, 0.0),
        Self::of(0.25, 0.0),
        Self::of(0.5, 0.0),
        Self::of(0.0, 0.1),
        Self::of(0.25, 0.1),
        Self::of(0.5, 0.1),
        Self::of(0.0, 0.2),
        Self::of(0.25, 0.2),
        Self::of(0.5, 0.2),
        Self::of(0.0, 0.4),
        Self::of(0.25, 0.4),
        Self::of(0.5, 0.4),
    ];

    const fn of(answer: f32, words: f32) -> Self {
        Self { answer, words }
    }

    /// The score: -1 to 1, and 1 only where all three are.
    pub fn score(self, near: Nearness) -> f32 {
        let meaning = near.question + self.answer * (near.answer - near.question);
        (meaning + self.words * near.words) / (1.0 + self.words)
    }

    /// Whether scores stay between -1 and 1.
    pub fn is_possible(self) -> bool {
        (0.0..=1.0).contains(&self.answer) && (0.0..=10.0).contains(&self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_is_the_nearest_question() {
        let near = Nearness { question: 0.6, answer: 0.9, words: 0.4 };
        assert_eq!(Blend::default().score(near), 0.6);
        assert_eq!(Blend::TRIED[0], Blend::default());
        let mixed = Blend { answer: 0.5, words: 0.5 }.score(near);
        assert!((mixed - (0.75 + 0.2) / 1.5).abs() < 1e-6, "{mixed}");
    }

    #[test]
    fn impossible_blends_are_told() {
        assert!(Blend::TRIED.into_iter().all(Blend::is_possible));
        for (answer, words) in [(-0.1, 0.0), (1.1, 0.0), (0.0, -1.0), (0.0, 11.0), (f32::NAN, 0.0)]
        {
            assert!(!Blend { answer, words }.is_possible(), "{answer} {words}");
        }
    }

    proptest! {
        #[test]
        fn a_score_is_no_cosine_beyond_1(
            question in -1.0_f32..=1.0, answer in -1.0_f32..=1.0, words in 0.0_f32..=1.0,
            share in 0.0_f32..=1.0, weight in 0.0_f32..=10.0,
        ) {
            let score = Blend { answer: share, words: weight }.score(Nearness { question, answer, words });
            prop_assert!(score.abs() <= 1.0 + 1e-6, "{}", score);
        }
    }
}
