//! The gateway process: builds every part, lets them meet, and ends in order.
//!
//! # Layout
//! - [`gateway`]: `socle-agent gateway` from start to end; [`listeners`]: its sockets; [`heir`]: the pair by which open
//!   connections go from one gateway to the next; [`ending`]: finishing what was begun
//! - [`record_watch`]: reads the boot record; [`succession`]: whether another release is to run (pure)
//! - [`worker_keeper`]: keeps the worker of this slot loaded; [`retire`]: ends the worker of the other one
//! - [`host`]: what the link to the fleet needs of this process; [`watchdog`]: the service manager is told that all is well

pub mod ending;
pub mod gateway;
pub mod heir;
pub mod host;
pub mod listeners;
pub mod record_watch;
pub mod retire;
pub mod succession;
pub mod watchdog;
pub mod worker_keeper;
