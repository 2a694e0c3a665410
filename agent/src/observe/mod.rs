//! What the parts of the gateway tell each other, and what they tell the outside.
//!
//! # Layout
//! - [`status`]: the one shared picture of this process; [`tally`]: how many answers, how fast
//! - [`events`]: things nobody may miss, on their way to the outbox; [`heartbeat`]: which loop still turns
//! - [`metrics`]: for Prometheus; [`vitals`]: of the host; [`clock`]: the one place that reads the time;
//!   [`built`]: when this agent was made
//! - [`stopping`]: how loops learn that they are to end
//! - [`logging`]: to the journal, else to standard error

pub mod built;
pub mod clock;
pub mod events;
pub mod heartbeat;
pub mod logging;
pub mod metrics;
pub mod status;
pub mod stopping;
pub mod tally;
pub mod vitals;
