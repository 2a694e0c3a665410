//! The operator's and the data scientist's command line: keys, models, releases, devices, rollouts, the demo.
//!
//! # Layout
//! - [`terminal`], [`files`], [`api`]: what the commands share: output, files, the controller's API
//! - [`keys`], [`metadata`], [`root`]: who signs, and what they signed
//! - [`import`]: a published model becomes a package in the house format; [`golden_inputs`]: what proves it on each device
//! - [`model`], [`release`], [`repo`], [`bundle`]: from weights to a signed release, and where releases lie and travel
//! - [`device`], [`rollout`], [`ask`]: the fleet and its answers
//! - [`demo`]: the whole path on one machine, with every promise checked

pub mod api;
pub mod ask;
pub mod bundle;
pub mod cli;
pub mod demo;
pub mod device;
pub mod files;
pub mod golden_inputs;
pub mod import;
pub mod keys;
pub mod metadata;
pub mod model;
pub mod release;
pub mod repo;
pub mod rollout;
pub mod root;
pub mod terminal;
