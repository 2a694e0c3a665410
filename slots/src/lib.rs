//! Two slots, one record, one launcher: which release a machine runs, and how it gets from one to the next without
//! ever having neither.
//!
//! # Layout
//! - [`state`]: where an update stands; [`transition`]: the state machine, pure and total
//! - [`boot`]: the state with all that must be remembered beside it
//! - [`disk`]: what durable writes go through, [`copying`]: how a large file is filled; [`crash_disk`]: a disk that loses
//!   power, fills up and fails, for tests, made of `crash_tree`
//! - [`record`]: the boot record, two copies of 4 KiB; `record_v1`: as it was before; [`lock`]: who may change it
//! - [`layout`]: every path below the state folder; [`trust`]: the roots, what was seen, and whom the device obeys
//! - [`store`]: files by their SHA-256; [`install`]: a slot from a manifest and the store
//! - [`verify`]: whether an installed slot is genuine; [`launch`]: which slot to start; [`executable`]: what is
//!   opened, checked and started
//! - [`arm`]: what comes before each start of a gateway
//!
//! # Invariants
//! The state is durable before its effects begin; effects may be done twice. The record never needs free space. A slot
//! is never started unless it verifies. What is not here on purpose: network, clock; threads but for those that copy a
//! file.

pub mod arm;
pub mod boot;
pub mod copying;
pub mod crash_disk;
mod crash_tree;
pub mod disk;
pub mod executable;
pub mod install;
pub mod launch;
pub mod layout;
pub mod lock;
pub mod record;
mod record_v1;
pub mod state;
pub mod store;
pub mod transition;
pub mod trust;
pub mod verify;
