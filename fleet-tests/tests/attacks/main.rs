//! Attacks, each a test whose name is its row in docs/threat-model.md. None may be accepted; where an attack is to be
//! recovered from, its test shows the recovery too.
//!
//! # Layout
//! - [`repository`]: a good repository and a device that trusts it; [`freshness`], [`signers`], [`delegations`],
//!   [`encoding`]: what the verifier refuses
//! - [`device`]: a device with the real updater; [`assignments`], [`archives`]: what the updater refuses
//! - [`downloads`]: what the gateway does not fetch; [`machine`]: what does not start
//! - [`quick`]: random inputs
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod archives;
mod assignments;
mod delegations;
mod device;
mod downloads;
mod encoding;
mod freshness;
mod machine;
mod quick;
mod repository;
mod signers;
