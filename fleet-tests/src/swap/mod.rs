//! Releases that replace each other, and the agent itself, under a steady load of requests of which none may fail.
//!
//! # Layout
//! - [`variant`]: what the releases answer, each differently; [`cargo`]: the releases, good and bad
//! - [`http`]: a client that forgives nothing; [`load`]: many of them, and what they saw; [`live`]: who may answer now
//! - [`machine`]: the processes; [`drive`]: one release after the other

pub mod cargo;
pub mod drive;
pub mod http;
pub mod live;
pub mod load;
pub mod machine;
pub mod variant;
