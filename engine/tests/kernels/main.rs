//! Promises of the CPU kernels: right against plain sums in f64 or whole integers, and the same bits in every form that
//! this machine can run.

#![expect(clippy::unwrap_used, reason = "a test stops where its fixture is wrong")]

mod affine;
mod attention;
mod block;
mod float;
mod forms;
mod numbers;
mod rows;
