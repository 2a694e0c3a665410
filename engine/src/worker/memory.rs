//! Which loaded models have to go so that another one fits. Pure.

/// A loaded model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Names it.
    pub key: u64,
    /// What it may take, by what its package says.
    pub bytes: u64,
    /// When it was used last.
    pub used_us: u64,
    /// Whether it may go.
    pub pinned: Pinned,
}

/// Whether a loaded model may be unloaded to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    /// It stays.
    Yes,
    /// It goes when it was not used for the longest time.
    No,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Even alone it is too large.
    #[error(
        "the model asks for {} MiB of memory, models may take {} MiB together: raise the worker's memory budget, or lower limits.memory_bytes in model.toml if it needs less",
        wanted >> 20, budget >> 20
    )]
    TooLarge {
        /// What it asks for.
        wanted: u64,
        /// What there is.
        budget: u64,
    },
    /// What stays leaves too little.
    #[error(
        "the model asks for {} MiB of memory; of {} MiB, {} are held by pinned models: raise the worker's memory budget, or pin fewer models",
        wanted >> 20, budget >> 20, pinned >> 20
    )]
    Pinned {
        /// What it asks for.
        wanted: u64,
        /// What there is.
        budget: u64,
        /// What the pinned ones take of it.
        pinned: u64,
    },
}

/// The models of `held` that have to go, the least recently used first, so that `wanted` bytes more fit into `budget`.
///
/// # Errors
/// It does not fit, whatever goes.
pub fn make_room(held: &[Held], wanted: u64, budget: u64) -> Result<Vec<u64>, NoRoom> {
    if wanted > budget {
        return Err(NoRoom::TooLarge { wanted, budget });
    }
    let sum = |pinned: Option<Pinned>| -> u64 {
        let counted = held.iter().filter(|one| pinned.is_none_or(|pinned| pinned == one.pinned));
        counted.fold(0, |sum, one| sum.saturating_add(one.bytes))
    };
    let pinned = sum(Some(Pinned::Yes));
    if pinned.saturating_add(wanted) > budget {
        return Err(NoRoom::Pinned { wanted, budget, pinned });
    }
    let mut rest: Vec<&Held> = held.iter().filter(|one| one.pinned == Pinned::No).collect();
    rest.sort_by_key(|one| (one.used_us, one.key));
    let mut taken = sum(None);
    let mut gone = Vec::new();
    for one in rest {
        if taken.saturating_add(wanted) <= budget {
            break;
        }
        taken = taken.saturating_sub(one.bytes);
        gone.push(one.key);
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(key: u64, bytes: u64, used_us: u64) -> Held {
        Held { key, bytes, used_us, pinned: Pinned::No }
    }

    #[test]
    fn the_least_recently_used_go_and_no_more_than_needed() {
        let three = [held(1, 40, 30), held(2, 30, 10), held(3, 30, 20)];
        assert_eq!(make_room(&three, 0, 100), Ok(vec![]));
        assert_eq!(make_room(&three, 30, 100), Ok(vec![2]));
        assert_eq!(make_room(&three, 31, 100), Ok(vec![2, 3]));
        assert_eq!(make_room(&three, 100, 100), Ok(vec![2, 3, 1]));
    }

    #[test]
    fn what_does_not_fit_says_why() {
        let pinned = [Held { pinned: Pinned::Yes, ..held(1, 60 << 20, 0) }, held(2, 10 << 20, 0)];
        let refused = make_room(&pinned, 200 << 20, 100 << 20).unwrap_err().to_string();
        assert!(
            refused.starts_with("the model asks for 200 MiB of memory, models may take 100 MiB")
        );
        let refused = make_room(&pinned, 50 << 20, 100 << 20).unwrap_err().to_string();
        assert!(refused.contains("of 100 MiB, 60 are held by pinned models"), "{refused}");
        assert_eq!(make_room(&pinned, 40 << 20, 100 << 20), Ok(vec![2]));
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_pinned_models_stay(
            models in proptest::collection::vec((0_u64..50, 0_u64..9, any::<bool>()), 0..12),
            wanted in 0_u64..120, budget in 0_u64..150,
        ) {
            let models: Vec<Held> = models.into_iter().zip(0..).map(|((bytes, used_us, pinned), key)| {
                Held { pinned: if pinned { Pinned::Yes } else { Pinned::No }, ..held(key, bytes, used_us) }
            }).collect();
            let Ok(gone) = make_room(&models, wanted, budget) else { return Ok(()) };
            let (left, gone): (Vec<&Held>, Vec<&Held>) = models.iter().partition(|one| !gone.contains(&one.key));
            let sum: u64 = left.iter().map(|one| one.bytes).sum();
            prop_assert!(sum + wanted <= budget || gone.is_empty() && left.is_empty());
            prop_assert!(gone.iter().all(|one| one.pinned == Pinned::No));
            let oldest_left = left.iter().filter(|one| one.pinned == Pinned::No).map(|one| one.used_us).min();
            let newest_gone = gone.iter().map(|one| one.used_us).max();
            if let (Some(left), Some(gone)) = (oldest_left, newest_gone) {
                prop_assert!(gone <= left);
            }
        }
    }
}
