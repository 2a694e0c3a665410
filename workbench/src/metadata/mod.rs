//! Signed metadata on the operator's disk: who must sign it, who has, and how signatures come together.
//!
//! # Layout
//! [`signers`] (the keys of a role, from a root or a delegation) → [`standing`] (k of n, who is missing) →
//! [`signing`] (adding and merging signatures) → [`document`] (a document as a file) → [`listing`] (the next version of
//! what a role lists)

pub mod document;
pub mod listing;
pub mod signers;
pub mod signing;
pub mod standing;
