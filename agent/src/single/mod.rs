//! All processes under one parent: what systemd does for the services, in small, for a laptop, a container or the demo.
//!
//! # Layout
//! - [`supervisor`]: from start to end; [`plan`]: what to start how, from the options
//! - [`gateway`], [`worker`], [`updater`]: one loop for each kind of child; [`child`]: starting and ending one
//! - [`back_off`]: how long to wait before a child is started again (pure)

pub mod back_off;
pub mod child;
pub mod gateway;
pub mod plan;
pub mod supervisor;
pub mod updater;
pub mod worker;
