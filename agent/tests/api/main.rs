//! The local API over real sockets, in front of a real worker with the real model.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod dialects;
mod figures;
#[path = "../../../engine/tests/engine/first_protocol.rs"]
mod first_protocol;
mod fixture;
mod grpc;
mod hand_over;
#[path = "../../../engine/tests/engine/heads.rs"]
mod heads;
mod http;
mod kserve;
mod page;
mod refusals;
mod scores;
mod traces;
mod versions;
mod workers;
