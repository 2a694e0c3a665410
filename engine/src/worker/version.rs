//! Which of two versions is newer.

use std::cmp::Ordering;

/// Compares versions as people do: runs of digits as numbers, the rest as text, so that 1.10 comes after 1.9.
pub fn compare(one: &str, other: &str) -> Ordering {
    let (mut one_pieces, mut other_pieces) = (pieces(one), pieces(other));
    loop {
        let ordering = match (one_pieces.next(), other_pieces.next()) {
            // As numbers the same, such as 1.0 and 1.00: as text, so that the order is total.
            (None, None) => return one.cmp(other),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(one), Some(other)) => {
                let (one_number, other_number) =
                    (one.trim_start_matches('0'), other.trim_start_matches('0'));
                match (is_number(one), is_number(other)) {
                    (true, true) => {
                        (one_number.len(), one_number).cmp(&(other_number.len(), other_number))
                    }
                    (true, false) | (false, true) | (false, false) => one.cmp(other),
                }
            }
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

fn is_number(piece: &str) -> bool {
    piece.bytes().all(|byte| byte.is_ascii_digit())
}

/// Runs of digits and what stands between them.
fn pieces(version: &str) -> impl Iterator<Item = &str> {
    let mut rest = version;
    std::iter::from_fn(move || {
        let digits = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (piece, later) = rest.split_at(end);
        rest = later;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_ordered_as_people_do() {
        let ordered = ["", "1", "1.0", "1.00", "1.9", "1.10", "1.10-rc1", "2", "10", "v1", "v2"];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                assert_eq!(compare(one, other), at.cmp(&other_at), "{one} and {other}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_order_is_total(mut versions in proptest::collection::vec("[0-9a.é-]{0,6}", 3)) {
            versions.sort_by(|a, b| compare(a, b));
            for pair in versions.windows(2) {
                prop_assert_ne!(compare(&pair[0], &pair[1]), Ordering::Greater);
                prop_assert_eq!(compare(&pair[1], &pair[0]), compare(&pair[0], &pair[1]).reverse());
            }
            prop_assert_ne!(compare(&versions[0], &versions[2]), Ordering::Greater);
        }
    }
}
