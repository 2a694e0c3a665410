//! The process that owns the models of one slot, and the gateway's side of its protocol.
//!
//! # Layout
//! - [`process`]: `socle-agent worker`, which hands its socket to the engine
//! - [`client`]: calls, each under a time limit, over one connection with a bounded number in flight
//! - [`by_release`]: clients of workers besides the gateway's own
//! - [`connection`]: that connection: who waits for which response; [`call_error`]: why a call was not done
//! - [`barred`]: models that cannot be loaded, and when that is tried again

pub mod barred;
pub mod by_release;
pub mod call_error;
pub mod client;
pub mod connection;
pub mod process;
