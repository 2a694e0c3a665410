//! The process that owns the models of one slot, and the protocol by which the gateway asks it.
//!
//! # Layout
//! - [`message`]: what is said; [`frame`]: how it is cut into frames (pure, so an async client can use it too)
//! - [`wire`]: frames on a blocking stream, under time-outs; [`client`]: a blocking client
//! - [`limits`]: what the process may take; [`hang`]: what becomes of one that no longer gets on
//! - [`roster`]: the models of the slot; [`jobs`]: the bounded queue
//! - [`serve`]: the entry point

pub mod client;
pub mod frame;
pub mod hang;
pub mod jobs;
pub mod limits;
pub mod message;
pub mod roster;
pub mod serve;
pub mod wire;
