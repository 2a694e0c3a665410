//! The Open Inference Protocol v2 (KServe, Triton), over REST and gRPC.
//!
//! # Layout
//! - [`exchange`]: a request and a response as both transports know them; [`signature`]: which tensors a model takes and
//!   gives; [`answer`]: asking a model
//! - [`rest`]: the routes; [`json`]: tensors as JSON; [`binary`]: tensors as bytes behind the JSON; [`element`]: those bytes
//! - [`repository`], [`statistics`]: what is served and how it went
//! - [`grpc`]: the same over gRPC

pub mod answer;
pub mod binary;
pub mod element;
pub mod exchange;
pub mod grpc;
pub mod json;
pub mod repository;
pub mod rest;
pub mod signature;
pub mod statistics;
