//! `socle demo`: the whole path on one machine, with real processes on loopback, and every promise checked.
//!
//! # Layout
//! [`script`] tells the story; it sets a [`stage`]: [`fleet`] (controller and agents as [`process`]es), [`broker`], [`releases`]
//! and [`traffic`], listens through an [`eavesdropper`], looks for [`evidence`], measures the [`speed`] and writes what held into the [`timeline`].

pub mod arguments;
pub mod broker;
pub mod command;
pub mod eavesdropper;
pub mod evidence;
pub mod fleet;
pub mod process;
pub mod releases;
pub mod script;
pub mod speed;
pub mod stage;
pub mod timeline;
pub mod tls;
pub mod traffic;
pub mod wait;
