//! What is made wrong with a repository, one function a kind.
//!
//! # Layout
//! [`kind`] (what a kind is) → [`times`] (versions, expiry, order), [`signatures`] (keys and thresholds),
//! [`delegations`] (who may say what), [`listings`] (lengths, digests, what is there), [`encoding`] (bytes and JSON) →
//! [`table`] (all of them)

pub mod delegations;
pub mod encoding;
pub mod kind;
pub mod listings;
pub mod signatures;
pub mod table;
pub mod times;
