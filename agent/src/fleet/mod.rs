//! The link to the fleet: enrolment, MQTT, outbox, downloads, and the gates of a trial.
//!
//! # Layout
//! - [`service`]: all of it as one task of the gateway; [`host`]: what it needs of the gateway; [`fleet_status`]: what
//!   it says about itself
//! - [`enrolment`], [`authority_pin`], [`identity`]: how the device joins, and who it is since
//! - [`relay`], [`link`]: MQTT over TLS; [`backoff`]: when to try again
//! - [`outbox`], [`journal`], [`reporter`], [`happenings`]: what the device says, kept until the controller has it
//! - [`assignment`], [`desired`], [`obeyed`]: what the controller says, and what is done about it
//! - [`fetch`], [`release_documents`], [`download`], [`artifact_server`]: a release into the staging area
//! - [`trial`], [`gates`], [`record_watch`]: the gates that this side watches
//! - [`state_file`]: small durable files

pub mod artifact_server;
pub mod assignment;
pub mod authority_pin;
pub mod backoff;
pub mod desired;
pub mod download;
pub mod enrolment;
pub mod fetch;
pub mod fleet_status;
pub mod gates;
pub mod happenings;
pub mod host;
pub mod identity;
pub mod journal;
pub mod link;
pub mod obeyed;
pub mod outbox;
pub mod record_watch;
pub mod relay;
pub mod release_documents;
pub mod reporter;
pub mod service;
pub mod state_file;
pub mod trial;
