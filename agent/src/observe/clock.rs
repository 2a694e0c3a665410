//! The wall clock. Loops at the edge read it here and hand `now` down; deciding code never calls this.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::time::UnixMs;

/// The present, by the host's clock. A clock before 1970 reads as 1970.
pub fn now() -> UnixMs {
    UnixMs(u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX))
}

/// The same in nanoseconds since 1970, for traces.
pub fn now_ns() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one edge at which the agent reads the wall clock"
)]
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
