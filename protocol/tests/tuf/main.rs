//! The TUF client: what is accepted, and each attack that is refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chain;
mod delegations;
mod manifests;
mod permits;
mod releases;
mod repository;
