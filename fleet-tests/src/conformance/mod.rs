//! The node tests that come with ONNX, on the engine: what passes is written down, and a change in either direction is
//! seen.
//!
//! # Layout
//! [`outcome`] (what can come of a test) → [`tensors`] (its files) → [`trial`] (one test) → [`child`] (the process that
//! does them, limited like a worker) → [`children`] (several of them, started again when one ends); [`case`] (which
//! tests there are), [`expected`] (the written list)

pub mod case;
pub mod child;
pub mod children;
pub mod expected;
pub mod outcome;
pub mod tensors;
pub mod trial;
