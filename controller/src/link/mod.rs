//! The fleet link over MQTT: what is said to devices, and what devices say.
//!
//! # Layout
//! [`said`] (what to say) and [`arrival`] (what arrived) are the words; [`relay`] carries MQTT over our own TLS;
//! [`client`] speaks and hears; [`seal_keys`] and [`sessions`] open; [`judge`] decides, purely, what a message is
//! worth; [`ingest`] stores it and then acknowledges it.

pub mod arrival;
pub mod client;
pub mod ingest;
pub mod judge;
pub mod relay;
pub mod said;
pub mod seal_keys;
pub mod sessions;
