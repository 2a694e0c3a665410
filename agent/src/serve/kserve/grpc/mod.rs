//! The Open Inference Protocol v2 over gRPC, as `inference.GRPCInferenceService`.
//!
//! # Layout
//! - [`message`]: the messages, numbered as the public protocol numbers them
//! - [`convert`]: between them and what the rest of the protocol's code knows
//! - [`service`]: the calls

pub mod convert;
pub mod message;
pub mod service;
