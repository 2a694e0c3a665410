//! The process that owns the models of one slot, and the protocol by which the gateway asks it.
//!
//! # Layout
//! - [`message`]: what is said; [`failure`]: why it is not done; [`frame`]: how it is cut into frames (pure, so an async
//!   client can use it too)
//! - [`spoken`]: which versions of it there are (pure); [`older`]: how a peer of an older one is spoken to (pure)
//! - [`wire`]: frames on a blocking stream, under time-outs; [`client`]: a blocking client
//! - [`connection`] → [`desk`] → [`lanes`], which [`prepare`] an [`order`] and compute what [`plan`] (pure) chooses;
//!   responses go out by [`outbox`]
//! - [`roster`]: the models of the slot, each in its [`seat`], by [`version`], within [`memory`] (pure)
//! - [`policy`]: how the machine is shared; [`statistics`]: what was done
//! - [`limits`]: what the process may take; [`hang`]: what becomes of one that no longer gets on
//! - [`jobs`]: a bounded queue of work; [`crew`]: threads of one kind
//! - [`serve`]: the entry point

pub mod client;
pub mod connection;
pub mod crew;
pub mod desk;
pub mod failure;
pub mod frame;
pub mod hang;
pub mod jobs;
pub mod lanes;
pub mod limits;
pub mod memory;
pub mod message;
pub mod older;
pub mod order;
pub mod outbox;
pub mod plan;
pub mod policy;
pub mod prepare;
pub mod roster;
pub mod seat;
pub mod serve;
pub mod spoken;
pub mod statistics;
pub mod version;
pub mod wire;
