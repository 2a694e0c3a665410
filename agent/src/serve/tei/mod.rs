//! The routes of text-embeddings-inference. That server has one model, so its requests name none; here they may, by a
//! member `model`, and otherwise ask the first model that can do what is asked.
//!
//! # Layout
//! - [`embed`]: `/embed` and `/similarity`; [`predict`]; [`tokenize`]: `/tokenize` and `/decode`; [`info`]
//! - [`rerank`]: `/rerank`, which Cohere's clients ask too

pub mod embed;
pub mod info;
pub mod predict;
pub mod rerank;
pub mod tokenize;
