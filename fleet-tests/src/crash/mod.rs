//! Processes killed at random moments of an update, and what must hold afterwards: the old release or the new one
//! starts, never neither.
//!
//! # Layout
//! - [`bench`]: a device, its releases and what was seen; [`steps`]: updater and launcher, run one by one
//! - [`tree`]: all processes under `socle-agent run --single`; [`processes`]: which processes there are

pub mod bench;
pub mod processes;
pub mod steps;
pub mod tree;
