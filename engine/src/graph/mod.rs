//! The graph of an ONNX file on its way into tract, with what tract is slow at replaced by operators of ours.
//!
//! tract reads the file, infers types and shapes, checks, orders and runs the graph; there is no fork of it. Between
//! reading and inferring, the graph is rewritten: a group of nodes that together are a linear, a LayerNorm, an
//! attention … becomes one node that the [`crate::kernels`] compute. A group is taken only when it is certain what it
//! computes: constants are compared, shapes are tract's own, and layouts, masks and position ids are *run* on a few
//! lengths rather than recognised by the way an exporter happened to write them. What is not recognised stays tract's.
//!
//! When every operator is known to keep tokens apart, or is ours and told where sequences begin, the plan is *ragged*:
//! the tokens of several sequences stand one after another, and nothing is padded.
//!
//! # Layout
//! - [`file`]: an ONNX file held to limits; `net`: its graph while it is rewritten; `numbers`, `blocks`, `weights`: its
//!   constants; `shapes`: the shapes of its values; `probe`: parts of it run to see what they compute
//! - `fused`: what a fused node computes; found by `fakes`, `tables`, `lookups`, `norms`, `gelus`, `linears`, `positions`, `attentions`,
//!   `firsts`; `epilogues`: fused nodes joined; `ragged`: whether sequences may share a pass;
//!   `forms`: what form the weights have
//! - `step`: an operator of ours in tract's plan; `pack`: the operators; `translate`: where they are put;
//!   [`plan`]: all of it in order

mod attentions;
mod blocks;
mod epilogues;
mod fakes;
pub(crate) mod feeds;
pub mod file;
mod firsts;
mod forms;
mod fused;
mod gelus;
mod linears;
mod lookups;
mod net;
mod norms;
mod numbers;
mod pack;
pub mod plan;
mod positions;
mod probe;
mod ragged;
mod shapes;
mod step;
mod tables;
mod translate;
mod weights;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
