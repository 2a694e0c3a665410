//! Rolling a release out: a pure planner, and the thin driver that does what it decides.
//!
//! # Layout
//! [`outcome`] (what became of an assignment) → [`plan`] (what to do next; pure) → [`drive`] (doing it)

pub mod drive;
pub mod outcome;
pub mod plan;
