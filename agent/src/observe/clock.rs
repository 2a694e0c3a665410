//! The wall clock. Loops at the edge read it here and hand `now` down; deciding code never calls this.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::time::UnixMs;

/// The present, by the host's clock. A clock before 1970 reads as 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the one edge at which the agent reads the wall clock"
)]
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
