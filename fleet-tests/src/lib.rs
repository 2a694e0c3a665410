//! Tests across processes, and what they are made of.
//!
//! # Layout
//! - [`signing`]: keys and TUF metadata of a fleet; [`release`]: a release, built and signed as an operator would
//! - [`device`]: an enrolled device's state folder, and what its gateway would stage there
//! - [`blocks`]: power cuts as a disk sees them, under a real file system
//! - [`attacks`]: repositories made wrong, other clients, random inputs
//! - [`conformance`]: the node tests that come with ONNX
//! - [`crash`]: processes killed at random moments, and what must hold afterwards
//! - [`transport`]: what an update moves, and what staging it costs
//! - [`bench`]: the engine beside its peers
//! - [`serving`]: our agent beside other servers
//! - [`hostile`]: hostile models and inputs at a real agent
//! - [`swap`]: releases that replace each other under load

pub mod attacks;
pub mod bench;
pub mod blocks;
pub mod conformance;
pub mod crash;
pub mod device;
pub mod hostile;
pub mod release;
pub mod serving;
pub mod signing;
pub mod swap;
pub mod transport;
