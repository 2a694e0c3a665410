//! The fleet controller: it enrols devices, serves releases, rolls them out in waves and opens what devices report.
//!
//! # Layout
//! - [`clock`], [`stop`], [`causes`], [`disk`], [`layout`], [`settings`]: the edges, and where state lies
//! - [`pki`], [`tls`], [`broker`], [`secret`]: certificates, and what is handed to a broker
//! - [`online`]: the roles it signs itself; [`catalogue`]: what the metadata lists
//! - [`store`]: SQLite; [`artifacts`]: content-addressed files
//! - [`publication`], [`published`], [`publish`], [`enrol`], [`auth`]: what may enter, and who
//! - [`waves`]: the words of a rollout; [`rollout`]: a pure planner and its driver; [`assign`]: how a release is assigned, durably, then said
//! - [`link`]: MQTT: what devices say is judged by a pure function, stored, then acknowledged
//! - [`http`], [`console`], [`metrics`]: what people and programs see
//! - [`init`], [`serve`]: the two things the binary does
//!
//! # Invariants
//! - Nothing a device says is stored before its signature held and its seal opened.
//! - Nothing is acknowledged or published before it is committed to the store.
//! - Nothing is signed for a device but a release that [`publish`] verified.

pub mod artifacts;
pub mod assign;
pub mod auth;
pub mod broker;
pub mod catalogue;
pub mod causes;
pub mod clock;
pub mod console;
pub mod disk;
pub mod enrol;
pub mod http;
pub mod init;
pub mod layout;
pub mod link;
pub mod metrics;
pub mod online;
pub mod pki;
pub mod publication;
pub mod publish;
pub mod published;
pub mod rollout;
pub mod secret;
pub mod serve;
pub mod settings;
pub mod stop;
pub mod store;
pub mod tls;
pub mod waves;
