//! Wire and file types of Socle.
//!
//! Everything here is pure: bytes, keys, `now` and random bytes come in, values go out. No clock, no file
//! system, no runtime. What acts on a command or a release takes it as [`verified::Verified`], and only this
//! crate can make one.
//!
//! # Layout
//! - [`digest`], [`blob`], [`id`], [`time`]: the small words everything else is made of
//! - [`cbor`]: the one codec of signed binary messages; [`verified`]: proof that a check was passed
//! - [`key`], [`signed`]: Ed25519 with a purpose; [`seal`]: end-to-end sealing of reports
//! - [`tuf`]: root and targets metadata and their verifier; [`manifest`]: what a release is made of;
//!   [`chunks`]: how its files are cut to move
//! - [`command`]: controller to device; [`report`]: device to controller; [`topic`]: where they travel
//! - [`enrol`]: how a device joins; [`handover`]: gateway to updater, through files

pub mod blob;
pub mod cbor;
pub mod chunks;
pub mod command;
pub mod digest;
pub mod enrol;
pub mod handover;
pub mod id;
pub mod key;
pub mod manifest;
pub mod report;
pub mod seal;
pub mod signed;
pub mod time;
pub mod topic;
pub mod tuf;
pub mod verified;
