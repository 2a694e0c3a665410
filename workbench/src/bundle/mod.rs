//! Releases on a stick: one file, or one folder, with metadata, objects and signed assignments, for sites that no
//! network reaches. A bundle is a repository: it is verified like one, and nothing of it is believed before.
//!
//! # Layout
//! [`archive`] (the file) → [`assignment`] (what the controller signed for a device) → [`export`], [`import`] →
//! [`command`] (`socle bundle …`)

pub mod archive;
pub mod assignment;
pub mod command;
pub mod export;
pub mod import;
