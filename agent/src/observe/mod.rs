//! What the parts of the gateway tell each other, and what they tell the outside.
//!
//! # Layout
//! - [`status`]: the one shared picture of this process; [`tally`]: how many answers, how fast; [`figures`]: the same by
//!   model
//! - [`events`]: things nobody may miss, on their way to the outbox; [`heartbeat`]: which loop still turns
//! - [`metrics`]: for Prometheus, [`inference_metrics`] by model, [`worker_figures`] of the worker's batches, written in
//!   either of two forms ([`exposition`])
//! - [`trace_context`]: which trace a request belongs to; [`span`]: a request as a trace shows it; [`collector`]: where
//!   traces go
//! - [`vitals`]: of the host; [`clock`]: the one place that reads the time; [`built`]: when this agent was made
//! - [`stopping`]: how loops learn that they are to end
//! - [`logging`]: to the journal, else to standard error

pub mod built;
pub mod clock;
pub mod collector;
pub mod events;
pub mod exposition;
pub mod figures;
pub mod heartbeat;
pub mod inference_metrics;
pub mod logging;
pub mod metrics;
pub mod span;
pub mod status;
pub mod stopping;
pub mod tally;
pub mod trace_context;
pub mod vitals;
pub mod worker_figures;
