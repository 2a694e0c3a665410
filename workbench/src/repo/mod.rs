//! A repository of signed metadata and files: who is trusted in it, what they endorse, and its copies.
//!
//! # Layout
//! - [`delegate`], [`endorse`], [`sign`]: documents and their signatures
//! - [`layout`] (names in a folder), [`source`] (where one is read) → [`collected`] (all of it, as a client sees it) →
//!   [`sink`] (where a copy goes) → [`copy`] (verify, mirror); [`kept`]: a repository kept by hand
//! - [`command`]: `socle repo …`

pub mod collected;
pub mod command;
pub mod copy;
pub mod delegate;
pub mod endorse;
pub mod kept;
pub mod layout;
pub mod sign;
pub mod sink;
pub mod source;
