//! The link to the fleet: enrolment, MQTT, outbox, downloads, and the gates of a trial.
//!
//! # Layout
//! - [`service`]: all of it as one task of the gateway; [`host`]: what it needs of the gateway; [`fleet_status`]: what
//!   it says about itself
//! - [`enrolment`], [`authority_pin`], [`identity`]: how the device joins, and who it is since
//! - [`relay`], [`link`]: MQTT over TLS; [`backoff`]: when to try again; [`allowance`]: how often to say so
//! - [`outbox`], [`journal`], [`reporter`], [`happenings`]: what the device says, kept until the controller has it
//! - [`assignment`], [`desired`], [`obeyed`]: what the controller says, and what is done about it
//! - [`fetch`], [`release_documents`], [`reservation`]: a release into the staging area; [`transport_file`], [`mirrors`]:
//!   from where; [`artifact_server`], [`redirect`]: one server; [`bundle`]: from a stick instead
//! - [`download`], [`transfer`], [`meter`], [`rate`]: one object; [`part`], [`tag_file`]: its beginning, kept for the next
//!   attempt; [`assembly`], [`plan`], [`sources`]: from chunks
//! - [`trial`], [`gates`], [`record_watch`]: the gates that this side watches
//! - [`state_file`]: small durable files

pub mod allowance;
pub mod artifact_server;
pub mod assembly;
pub mod assignment;
pub mod authority_pin;
pub mod backoff;
pub mod bundle;
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
pub mod meter;
pub mod mirrors;
pub mod obeyed;
pub mod outbox;
pub mod part;
pub mod plan;
pub mod rate;
pub mod record_watch;
pub mod redirect;
pub mod relay;
pub mod release_documents;
pub mod reporter;
pub mod reservation;
pub mod service;
pub mod sources;
pub mod state_file;
pub mod tag_file;
pub mod transfer;
pub mod transport_file;
pub mod trial;
