//! Hostile model packages and hostile inputs, given to a real agent that serves a good model.
//!
//! # Layout
//! [`proto`] (protobuf by hand, so that it can be wrong) → [`onnx`] (graphs) → [`case`] (what is tried) → [`shapes`],
//! [`structure`], [`numbers`], [`blocks`], [`bytes`], [`tokenizers`], [`descriptions`], [`asks`] (the corpus) →
//! [`corpus`] (all of it); [`probe`] (the good model's client), [`worker_watch`] (when a worker ends, and is back) →
//! [`stand`] (the agent under test) → [`drive`] (one case after the other)

pub mod asks;
pub mod blocks;
pub mod bytes;
pub mod case;
pub mod corpus;
pub mod descriptions;
pub mod drive;
pub mod numbers;
pub mod onnx;
pub mod probe;
pub mod proto;
pub mod shapes;
pub mod stand;
pub mod structure;
pub mod tokenizers;
pub mod worker_watch;
