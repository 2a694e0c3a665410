//! The daemon on each server: gateway, worker and updater, three processes of one program.
//!
//! # Layout
//! - [`daemon`]: the gateway process; the parts below meet there and nowhere else
//! - [`serve`]: the local API; [`fleet`]: the link to the controller and the gates of a trial; [`update`]: the updater
//! - [`worker`]: the process that owns a slot's models, and the gateway's client of it
//! - [`observe`]: what the parts tell each other and the outside: status, metrics, events, vitals, logs
//! - [`installed`]: which release this process runs from; [`sockets`]: listening sockets that were passed in
//! - [`single`]: all processes under one parent, for a machine without systemd

pub mod daemon;
pub mod fleet;
pub mod installed;
pub mod observe;
pub mod serve;
pub mod single;
pub mod sockets;
pub mod update;
pub mod worker;
