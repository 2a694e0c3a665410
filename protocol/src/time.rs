//! Points in time as the formats write them.

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

/// Why a text is not a point in time.
#[derive(Debug, thiserror::Error)]
#[error("not an RFC 3339 time in UTC such as 2027-01-31T00:00:00Z: `{text}`")]
pub struct NotATime {
    text: String,
}

impl UnixMs {
    /// This point plus `ms`, at most the largest representable.
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this point; 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads `2027-01-31T00:00:00Z` and no other form: whole seconds in UTC, as TUF metadata writes them.
    pub fn from_rfc3339_seconds(text: &str) -> Result<Self, NotATime> {
        let at = Self::from_rfc3339(text)?;
        // RFC 3339 knows other spellings, such as a small `t` or a leap second; other clients do not.
        if at.to_rfc3339() == text {
            Ok(at)
        } else {
            Err(NotATime { text: text.chars().take(40).collect() })
        }
    }

    /// Reads `2027-01-31T00:00:00Z`; parts of a second are allowed.
    pub fn from_rfc3339(text: &str) -> Result<Self, NotATime> {
        let wrong = || NotATime { text: text.chars().take(40).collect() };
        if !text.ends_with('Z') {
            return Err(wrong());
        }
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
        u64::try_from(at.unix_timestamp_nanos() / 1_000_000).map(Self).map_err(|_| wrong())
    }

    /// Writes `2027-01-31T00:00:00Z`, whole seconds. Times past the year 9999 are written as its end.
    pub fn to_rfc3339(self) -> String {
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX).min(253_402_300_799);
        OffsetDateTime::from_unix_timestamp(seconds)
            .ok()
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_round_trip() {
        for text in ["1970-01-01T00:00:00Z", "2026-11-22T21:13:57Z", "9999-12-31T23:59:59Z"] {
            assert_eq!(UnixMs::from_rfc3339(text).unwrap().to_rfc3339(), text);
        }
        assert_eq!(UnixMs(u64::MAX).to_rfc3339(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn what_is_not_utc_is_refused() {
        for text in ["", "2026-11-22", "2026-11-22T21:13:57+01:00", "1969-12-31T23:59:59Z"] {
            assert!(UnixMs::from_rfc3339(text).is_err(), "{text:?}");
        }
        for text in ["2026-11-22T21:13:57.5Z", "2026-12-31T23:59:60Z", "2026-11-22t21:13:57Z"] {
            assert!(UnixMs::from_rfc3339_seconds(text).is_err(), "{text:?}");
        }
        assert!(UnixMs::from_rfc3339_seconds("2026-11-22T21:13:57Z").is_ok());
    }
}
