//! Attacks on a device and on what it trusts: repositories made wrong, servers that misbehave, bytes that were never
//! meant.
//!
//! # Layout
//! - [`draft`] (a repository as loose JSON) → [`scene`] (a good one, random in shape) → [`kinds`] (what is made wrong) →
//!   [`cases`] (what clients are given, and what they answer)
//! - [`ours`]: our client; [`differential`]: it beside others; [`interop`]: each on what the others make
//! - [`server`]: an artifact server that misbehaves; [`fuzz`]: random inputs; [`table`]: the attacks as a page shows them

pub mod cases;
pub mod differential;
pub mod draft;
pub mod fuzz;
pub mod interop;
pub mod kinds;
pub mod ours;
pub mod scene;
pub mod server;
pub mod table;
