//! The controller as it is met from outside: over TLS, and through a real broker.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]

mod broker;
mod client;
mod console;
mod device;
mod enrolment;
mod link;
mod publishing;
mod releases;
mod rig;
mod rollouts;
mod trust;
