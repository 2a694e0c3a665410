//! Quantized inference on one machine: from text to an embedding, and from a question to an answer or an abstention.
//!
//! Everything that comes in a model package is hostile input: it is read and run in a worker process only, under
//! size, node and memory limits ([`worker::limits`]), and the gateway speaks to that process over frames
//! ([`worker::message`]).
//!
//! # Layout
//! - [`package`]: a model package on disk, its `model.toml`; [`faq`], [`index`]: the files of the FAQ assistant
//! - [`text_tokenizer`] → [`sequence`] → [`encoder`] (described by [`encoder_spec`], fed by [`graph`], pooled by
//!   [`pooling`], its weights in a [`weight_form`]) → [`embedder`]; [`batcher`] groups sequences; [`head`]: what scores mean;
//!   [`bytes_model`]: a model of a fixed shape, of which [`magika`] is one
//! - [`assistant`]: the best entry or an abstention, by vectors ([`index`]) and words ([`lexical`]) that [`blend`] makes one
//!   score of; [`calibrate`]: which blend, where to put the threshold, and what it costs
//! - [`tensor_model`]: any graph on any tensors, by the same reader
//! - [`model`]: a package opened and loaded; [`golden`]: the proof that it answers as it did when it was packed
//! - [`pack`]: the derived files of a new package
//! - [`kernels`]: the arithmetic of encoders on the CPU
//! - [`pulse`]: how a thread says that it gets on; [`cause`]: an error on one line; [`adapter`]: what the machine computes on; [`worker`]: the process that owns the models

pub mod adapter;
pub mod assistant;
pub mod batcher;
pub mod blend;
pub mod bytes_model;
pub mod calibrate;
pub mod cause;
pub mod embedder;
pub mod encoder;
pub mod encoder_spec;
pub mod faq;
pub mod golden;
pub mod graph;
pub mod head;
pub mod index;
pub mod kernels;
pub mod lexical;
pub mod magika;
pub mod model;
pub mod pack;
pub mod package;
pub mod pooling;
pub mod pulse;
pub mod sequence;
pub mod tensor_model;
pub mod text_tokenizer;
pub mod weight_form;
pub mod worker;
