//! Releases: built from an agent and model packages, signed by several people, published to the controller.
//!
//! # Layout
//! A release folder holds `manifest.json`, `targets.json` and `objects/<sha256>`: [`folder`].
//! [`build`] makes it from [`object`]s, [`sign`] adds a signature, [`publish`] sends it.

pub mod build;
pub mod folder;
pub mod object;
pub mod publish;
pub mod sign;
