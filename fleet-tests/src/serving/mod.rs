//! Our agent beside other servers under the same open-loop load.
//!
//! # Layout
//! - [`target`]: who is asked, and in which form; [`wire`], [`grpc`]: one connection of HTTP/1.1, of gRPC
//! - [`arrivals`]: when requests are sent; [`load`]: over many connections, and how long each request took;
//!   [`processor`]: what that cost
//! - [`search`]: the highest rate that a server keeps
//! - [`ours`], [`peers`]: the servers; [`contest`]: all of them in turn; [`table`]: what came out
//! - [`differences`]: where our agent answers otherwise than Triton, and why

pub mod arrivals;
pub mod contest;
pub mod differences;
pub mod grpc;
pub mod load;
pub mod ours;
pub mod peers;
pub mod processor;
pub mod search;
pub mod table;
pub mod target;
pub mod wire;
