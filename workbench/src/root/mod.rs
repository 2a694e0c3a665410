//! The root of trust over its life: renewed every year, its keys replaced, its thresholds changed. Each new root is
//! signed by enough keys of the one before and by enough of its own.
//!
//! # Layout
//! [`change`] (old root → new root, pure) → [`sign`] (one signer at a time) → [`command`] (`socle root …`)

pub mod change;
pub mod command;
pub mod sign;
