//! Groups sequences so that what is computed at once stays within a budget of tokens.

use std::ops::Range;

/// Consecutive groups of `lengths`, each of at most `tokens_max` tokens and `sequences_max` sequences, taken greedily
/// in order. A sequence above the budget stands alone. Every sequence is in exactly one group.
pub fn groups(lengths: &[usize], tokens_max: usize, sequences_max: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut tokens) = (0, 0_usize);
    for (at, length) in lengths.iter().enumerate() {
        let full =
            tokens.saturating_add(*length) > tokens_max || at - start >= sequences_max.max(1);
        if full && at > start {
            groups.push(start..at);
            (start, tokens) = (at, 0);
        }
        tokens = tokens.saturating_add(*length);
    }
    if start < lengths.len() {
        groups.push(start..lengths.len());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn groups_are_filled_in_order() {
        assert_eq!(groups(&[3, 3, 3, 9, 1], 6, 8), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(groups(&[1, 1, 1], 100, 2), [0..2, 2..3]);
        assert_eq!(groups(&[], 6, 8), Vec::<Range<usize>>::new());
    }

    proptest! {
        #[test]
        fn every_sequence_is_in_one_group_within_the_budget(
            lengths in proptest::collection::vec(1_usize..600, 0..60), budget in 1_usize..2000, most in 1_usize..10,
        ) {
            let groups = groups(&lengths, budget, most);
            let members: Vec<usize> = groups.iter().cloned().flatten().collect();
            prop_assert_eq!(members, (0..lengths.len()).collect::<Vec<_>>());
            for group in groups {
                let tokens: usize = lengths[group.clone()].iter().sum();
                prop_assert!(group.len() == 1 || (tokens <= budget && group.len() <= most));
            }
        }
    }
}
