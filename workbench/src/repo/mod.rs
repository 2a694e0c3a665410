//! A repository of signed metadata and files: who is trusted in it, what they endorse, and its copies.
//!
//! # Layout
//! [`delegate`], [`endorse`], [`sign`]: documents and their signatures. [`command`]: `socle repo …`

pub mod command;
pub mod delegate;
pub mod endorse;
pub mod sign;
