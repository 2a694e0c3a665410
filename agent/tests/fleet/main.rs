//! The fleet link against real servers on loopback: HTTPS by rustls and hyper, MQTT by mosquitto with mutual TLS.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod artifacts;
mod broker;
mod bundles;
mod chunking;
mod enrolment;
mod fetching;
mod pki;
mod release;
mod session;
mod trials;
