//! Our agent beside other servers under the same open-loop load.
//!
//! # Layout
//! - [`arrivals`]: when requests are sent; [`wire`]: one connection; [`load`]: many of them, and how long each request took
//! - [`search`]: the highest rate that a server keeps
//! - [`ours`], [`peers`]: the servers; [`contest`]: all of them in turn; [`table`]: what came out

pub mod arrivals;
pub mod contest;
pub mod load;
pub mod ours;
pub mod peers;
pub mod search;
pub mod table;
pub mod wire;
