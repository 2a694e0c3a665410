//! Medians, quantiles and how near embeddings are.

use engine::pooling::cosine;
use serde::Serialize;

/// The middle of `values`, or the mean of the two in the middle; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        (None | Some(_), _) => f64::NAN,
    }
}

/// The median of `upper[i] / lower[i]`: pairs were measured right after each other, so that what slowed the machine
/// down slowed both.
pub fn median_ratio(upper: &[f64], lower: &[f64]) -> f64 {
    median(&upper.iter().zip(lower).map(|(upper, lower)| upper / lower).collect::<Vec<_>>())
}

/// How the embeddings of one runtime lie beside those of another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Mean cosine of the two embeddings of a text.
    pub cosine_mean: f64,
    /// The least.
    pub cosine_min: f64,
    /// Share of the texts whose nearest other text is the same.
    pub same_neighbour: f64,
}

/// Compares embeddings of the same texts.
pub fn agreement(ours: &[Vec<f32>], others: &[Vec<f32>]) -> Agreement {
    let cosines: Vec<f64> =
        ours.iter().zip(others).map(|(one, other)| f64::from(cosine(one, other))).collect();
    let count = cosines.len().max(1) as f64;
    let same = (0..cosines.len()).filter(|at| nearest(ours, *at) == nearest(others, *at)).count();
    Agreement {
        cosine_mean: cosines.iter().sum::<f64>() / count,
        cosine_min: cosines.iter().copied().fold(f64::INFINITY, f64::min),
        same_neighbour: same as f64 / count,
    }
}

/// The other vector that lies nearest to the one at `at`.
fn nearest(vectors: &[Vec<f32>], at: usize) -> Option<usize> {
    let own = vectors.get(at)?;
    let others = vectors.iter().enumerate().filter(|(place, _)| *place != at);
    others
        .map(|(place, other)| (place, cosine(own, other)))
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[9.0, 1.0, 5.0]), 5.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_ratio_is_taken_pair_by_pair() {
        // The second pair was measured while the machine was ten times slower.
        assert_eq!(median_ratio(&[2.0, 20.0, 2.0], &[1.0, 10.0, 1.0]), 2.0);
    }

    #[test]
    fn agreement_sees_a_turned_vector_and_another_neighbour() {
        let one = vec![vec![1.0, 0.0], vec![0.9, 0.1], vec![0.0, 1.0]];
        let same = agreement(&one, &one);
        assert!((same.cosine_mean - 1.0).abs() < 1e-6 && (same.same_neighbour - 1.0).abs() < 1e-9);
        let mut turned = one.clone();
        turned[1] = vec![0.1, 0.9];
        let other = agreement(&one, &turned);
        // Only the one that was turned has another neighbour now.
        let right = other.cosine_min < 0.3 && (other.same_neighbour - 2.0 / 3.0).abs() < 1e-9;
        assert!(right, "{other:?}");
    }
}
