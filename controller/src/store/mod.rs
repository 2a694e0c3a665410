//! SQLite: everything the controller must not forget.
//!
//! # Layout
//! [`database`] opens it and says what an error was about; each other file holds the queries of one noun.

pub mod database;
pub mod devices;
pub mod events;
pub mod permits;
pub mod refusals;
pub mod releases;
pub mod reports;
pub mod rollouts;
pub mod seal_keys;
pub mod tokens;
