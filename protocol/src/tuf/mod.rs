//! The Update Framework, specification 1.0.x: standard JSON metadata and a pure verifier.
//!
//! # Layout
//! [`metadata`] (root, targets, snapshot, timestamp, delegations) → [`document`] (signed JSON and its canonical form),
//! [`shape`] (what the parts must be, path patterns) → [`refusal`] (why not) → [`chain`] (root, timestamp, snapshot)
//! → [`walk`] (targets roles) → [`verify`] (the whole) → [`permit`] (going back). [`online`]: a controller's own keys

pub mod chain;
pub mod document;
pub mod metadata;
pub mod online;
pub mod permit;
pub mod refusal;
pub mod shape;
pub mod verify;
pub mod walk;
