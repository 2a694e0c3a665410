//! The Update Framework, specification 1.0.x: standard JSON metadata and a pure verifier.
//!
//! # Layout
//! [`document`] (signed JSON and its canonical form) → [`metadata`] (root and targets) → [`verify`]

pub mod document;
pub mod metadata;
pub mod online;
pub mod verify;
