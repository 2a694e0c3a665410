//! Random inputs to everything that reads bytes from outside: valid ones changed a little, and bytes that were never
//! valid. Nothing may panic, and nothing may take memory without bound.
//!
//! # Layout
//! [`allocations`] (memory, counted) and [`mutation`] (how inputs are made) → [`target`] (what is fed) →
//! [`documents`], [`messages`], [`records`], [`archives`], [`models`] (what reads) → [`every`] (all of it); [`run`], in which panics are [`quiet`]

pub mod allocations;
pub mod archives;
pub mod documents;
pub mod every;
pub mod messages;
pub mod models;
pub mod mutation;
pub mod quiet;
pub mod records;
pub mod run;
pub mod target;
