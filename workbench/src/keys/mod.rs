//! Keys that sign metadata: made offline, kept encrypted, known to others by their public halves.
//!
//! # Layout
//! [`passphrase`] (asked or read) → [`file`] (one encrypted key, one file) → [`public`] (what others may know) →
//! [`ceremony`] (the keys and the first root of a fleet) → [`command`] (`socle keys …`)

pub mod ceremony;
pub mod command;
pub mod file;
pub mod passphrase;
pub mod public;
