//! What an update moves and costs: measured, not asserted.
//!
//! # Layout
//! - [`packages`]: pairs of releases, built by the operator's own command; [`moved`]: what each pair moves
//! - [`shelf`]: a server of a release folder, with ranges; [`staging`]: the updater's rate and memory beside `sha256sum`
//! - [`program`]: a program that is timed and watched

pub mod moved;
pub mod packages;
pub mod program;
pub mod shelf;
pub mod staging;
