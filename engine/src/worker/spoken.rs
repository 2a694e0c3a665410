//! Which versions of the worker's protocol a side speaks, and which one two sides use. Pure.
//!
//! | version | what it brought |
//! |---|---|
//! | 1 | `Hello`, `Load`, `Golden`, `Embed`, `Ask`, `Ping`, `Shutdown`; what it does not know, it refuses whole |
//! | 2 | classifiers, rerankers, models of bytes, tokens, statistics; deadlines; what it does not know, it skips |

use std::fmt;

use serde::{Deserialize, Serialize};

/// Versions that a side speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Spoken {
    /// What this version of the software speaks. The oldest may only rise when no device can hold an agent any more that
    /// speaks nothing newer: the factory agent of an old package included.
    pub const OURS: Self = Self { oldest: 1, newest: 2 };

    /// Of who does not say: the first version knew no other.
    pub const FIRST: Self = Self { oldest: 1, newest: 1 };

    /// The highest version that both sides speak; none where they have none in common.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl Default for Spoken {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            write!(f, "{}", self.newest)
        } else {
            write!(f, "{} to {}", self.oldest, self.newest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_highest_common_version_is_used() {
        let spoken = |oldest, newest| Spoken { oldest, newest };
        let cases = [
            (spoken(1, 2), spoken(1, 1), Some(1)),
            (spoken(1, 2), spoken(1, 2), Some(2)),
            (spoken(1, 2), spoken(2, 5), Some(2)),
            (spoken(1, 4), spoken(2, 3), Some(3)),
            (spoken(1, 2), spoken(3, 4), None),
            // Who says that its oldest is newer than its newest speaks nothing.
            (spoken(1, 4), spoken(3, 2), None),
        ];
        for (one, other, expected) in cases {
            assert_eq!(one.common(other), expected, "{one} and {other}");
        }
    }

    proptest! {
        #[test]
        fn both_sides_come_to_the_same_version_and_speak_it(
            (a, b, c, d) in (any::<u16>(), any::<u16>(), any::<u16>(), any::<u16>()),
        ) {
            let (one, other) = (Spoken { oldest: a, newest: b }, Spoken { oldest: c, newest: d });
            prop_assert_eq!(one.common(other), other.common(one));
            let spoken = |version| [one, other].iter().all(|s| (s.oldest..=s.newest).contains(&version));
            match one.common(other) {
                Some(version) => {
                    prop_assert!(spoken(version));
                    prop_assert!(version == u16::MAX || !spoken(version + 1));
                }
                None => prop_assert!(!spoken(b.min(d)) && !spoken(a.max(c))),
            }
        }
    }
}
