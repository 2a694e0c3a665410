//! WGSL kernels, each beside its launch code, and the CPU oracle that every one of them is held to.
//!
//! # Layout
//! - [`probe`] says which adapters the machine has and why one is not used; it never hangs or panics.
//! - [`device`] opens one, with a lost flag, error scopes and a memory budget of our own.
//! - [`linear_q8`] launches `linear_q8.wgsl`; [`oracle`] computes the same in f64.
//! - [`q8_weights`] is the block format that both read.
//! - [`bounded`] runs what a driver may never return from.

pub mod bounded;
pub mod device;
pub mod linear_q8;
pub mod oracle;
pub mod probe;
pub mod q8_weights;
