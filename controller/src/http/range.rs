//! The `Range` header (RFC 9110, section 14): one range of bytes. Pure.

use crate::artifacts::Span;

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everything, 200.
    Whole,
    /// A part, 206.
    Part(Span),
    /// A part that is not there, 416.
    Outside,
}

/// What `range` wants of a file of `length` bytes. `if_range` is compared with the file's own `tag`; where they differ
/// the file has changed and all of it is wanted. A range we do not read (several ranges, another unit) is ignored, as
/// the RFC allows.
pub fn wanted(range: Option<&str>, if_range: Option<&str>, tag: &str, length: u64) -> Wanted {
    let Some(range) = range else { return Wanted::Whole };
    if if_range.is_some_and(|condition| condition != tag) {
        return Wanted::Whole;
    }
    let Some((first, last)) =
        range.strip_prefix("bytes=").and_then(|spec| spec.trim().split_once('-'))
    else {
        return Wanted::Whole;
    };
    let part = |start: u64, end: u64| {
        if start < length && start <= end {
            Wanted::Part(Span { start, length: end.min(length - 1) - start + 1 })
        } else {
            Wanted::Outside
        }
    };
    match (number(first), number(last)) {
        (Some(Some(first)), Some(Some(last))) if first > last => Wanted::Whole,
        (Some(Some(first)), Some(Some(last))) => part(first, last),
        (Some(Some(first)), Some(None)) => part(first, u64::MAX),
        (Some(None), Some(Some(0))) => Wanted::Outside,
        (Some(None), Some(Some(suffix))) => part(length.saturating_sub(suffix), u64::MAX),
        (Some(None), Some(None)) | (None, _) | (_, None) => Wanted::Whole,
    }
}

/// A number, or nothing; none if it is neither.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        Some(None)
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Some(Some(text.parse().unwrap_or(u64::MAX)))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let part = |start, length| Wanted::Part(Span { start, length });
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=0-1000", part(0, 100)),
            ("bytes=50-", part(50, 50)),
            ("bytes=99-", part(99, 1)),
            ("bytes=-1", part(99, 1)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=100-", Wanted::Outside),
            ("bytes=100-200", Wanted::Outside),
            ("bytes=-0", Wanted::Outside),
            ("bytes=2-1", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes=99999999999999999999-", Wanted::Outside),
        ];
        for (range, expected) in cases {
            assert_eq!(wanted(Some(range), None, "\"t\"", 100), expected, "{range}");
        }
        assert_eq!(wanted(None, None, "\"t\"", 100), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), None, "\"t\"", 0), Wanted::Outside);
    }

    #[test]
    fn a_changed_file_is_sent_whole() {
        let of = |condition| wanted(Some("bytes=1-"), Some(condition), "\"t\"", 3);
        assert_eq!(of("\"t\""), Wanted::Part(Span { start: 1, length: 2 }));
        assert_eq!(of("\"other\""), Wanted::Whole);
    }
}
