//! The updater: the only writer of slots, store and trusted root, and of the boot record beside `socle-launch`.
//!
//! It runs when the gateway leaves a request or a verdict, does what is due, and ends. It has no network and believes
//! nothing it is handed: every signature and digest is checked again from the device's own trusted root.
//!
//! # Layout
//! - [`run`]: one run, from lock to end; [`request`]: what a request must pass
//! - [`build`]: the inactive slot, from staging area and store; [`archive`]: the agent out of its archive
//! - [`selfcheck`]: the staged agent, run where it lies; [`fit`]: whether this machine can hold the release
//! - [`staged`]: the files the gateway left

pub mod archive;
pub mod build;
pub mod fit;
pub mod request;
pub mod run;
pub mod selfcheck;
pub mod staged;
