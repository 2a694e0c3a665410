//! The engine on the real model: what it computes, what it refuses, and the worker that serves it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod demo_faq;
mod dequantized;
mod embeddings;
mod families;
mod first_protocol;
mod fixture;
mod heads;
mod packages;
mod sharing;
mod versions;
mod worker;
