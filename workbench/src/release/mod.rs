//! Releases: built from an agent and model packages, signed by several people, published to the controller.
//!
//! # Layout
//! A release folder holds `manifest.json`, `targets.json` and `objects/<sha256>`: [`folder`].
//! [`build`] makes it from [`object`]s, [`promote`] lists it for another environment, [`sign`] adds a signature,
//! [`publish`] sends it. [`permit`]: the paper to go back.

pub mod build;
pub mod folder;
pub mod object;
pub mod permit;
pub mod promote;
pub mod publish;
pub mod sign;
