//! How long real texts are, in tokens: histograms that stand in the repository, and draws from them.

use anyhow::Context as _;
use clap::ValueEnum;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

const COUNTED: &str = include_str!("../../data/lengths.json");

/// A kind of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One-line descriptions of packages, English and French: median 16 tokens.
    Short,
    /// Whole descriptions, English and French, cut at 256 tokens: median 102.
    Long,
}

/// How many texts of one kind have how many tokens.
#[derive(Clone, Debug)]
pub struct Lengths {
    /// Entry `n`: texts of at most `n` tokens.
    up_to: Vec<u64>,
}

#[derive(Deserialize)]
struct Counted {
    short: Vec<u64>,
    long: Vec<u64>,
}

impl Lengths {
    /// The histogram of `kind`.
    ///
    /// # Errors
    /// The file in the repository is no histogram, or an empty one.
    pub fn of(kind: Kind) -> anyhow::Result<Self> {
        let counted: Counted =
            serde_json::from_str(COUNTED).context("reading fleet-tests/data/lengths.json")?;
        let counts = match kind {
            Kind::Short => counted.short,
            Kind::Long => counted.long,
        };
        let up_to = counts.iter().scan(0_u64, |sum, count| {
            *sum = sum.saturating_add(*count);
            Some(*sum)
        });
        let lengths = Self { up_to: up_to.collect() };
        anyhow::ensure!(lengths.texts() > 0, "fleet-tests/data/lengths.json counts no texts");
        Ok(lengths)
    }

    /// A length, as often as texts have it.
    pub fn draw(&self, random: &mut Rng) -> usize {
        self.nth(random.u64(0..self.texts()))
    }

    /// `count` lengths that lie as the histogram does (the middles of `count` equal parts of it), in random order, so
    /// that even a few are representative.
    pub fn spread(&self, count: usize, random: &mut Rng) -> Vec<usize> {
        let of = count.max(1) as u128 * 2;
        let middle = |at: usize| (at as u128 * 2 + 1) * u128::from(self.texts()) / of;
        let mut lengths: Vec<usize> =
            (0..count).map(|at| self.nth(u64::try_from(middle(at)).unwrap_or(u64::MAX))).collect();
        random.shuffle(&mut lengths);
        lengths
    }

    fn texts(&self) -> u64 {
        self.up_to.last().copied().unwrap_or_default()
    }

    /// The length of the text at `place`, counted from the shortest.
    fn nth(&self, place: u64) -> usize {
        self.up_to.partition_point(|up_to| *up_to <= place).min(self.up_to.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_have_a_median_of_16_tokens_and_long_ones_of_102() {
        for (kind, median, longest) in [(Kind::Short, 16, 43), (Kind::Long, 102, 256)] {
            let lengths = Lengths::of(kind).unwrap();
            assert_eq!(lengths.nth(lengths.texts() / 2), median);
            assert_eq!(lengths.nth(u64::MAX), longest);
        }
    }

    #[test]
    fn a_few_lie_as_all_do() {
        let lengths = Lengths::of(Kind::Long).unwrap();
        let few = lengths.spread(64, &mut Rng::with_seed(1));
        let mean = few.iter().sum::<usize>() as f64 / 64.0;
        assert!((mean - 118.2).abs() < 2.0, "{mean}");
        let mut sorted = few;
        sorted.sort_unstable();
        assert!((100..=104).contains(&sorted[32]), "{sorted:?}");
    }

    #[test]
    fn draws_come_as_often_as_texts_do() {
        let lengths = Lengths::of(Kind::Short).unwrap();
        let mut random = Rng::with_seed(2);
        let all: usize = (0..20_000).map(|_| lengths.draw(&mut random)).sum();
        let mean = all as f64 / 20_000.0;
        assert!((mean - 16.3).abs() < 0.3, "{mean}");
    }
}
