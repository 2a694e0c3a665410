//! HTTPS: what devices, programs and people ask of the controller.
//!
//! # Layout
//! [`context`] (what handlers share), [`refusal`] (how they say no), [`listener`] (TLS and connections), [`guard`] (who
//! may), [`router`] (what is where), [`range`] (parts of files); the rest are handlers, by noun.

pub mod context;
pub mod devices;
pub mod enrolment;
pub mod events;
pub mod files;
pub mod guard;
pub mod health;
pub mod listener;
pub mod objects;
pub mod range;
pub mod refusal;
pub mod releases;
pub mod rollouts;
pub mod router;
pub mod security;
pub mod tokens;
