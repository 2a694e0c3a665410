//! The local API: one set of routes, over TCP with a bearer token and over a Unix socket guarded by its permissions.
//!
//! # Layout
//! - [`server`]: accepts connections, bounds their number and their patience, and ends without dropping a request
//! - [`conversation`]: one connection; [`bequest`]: how it is left to the next gateway; [`taking`]: when
//! - [`router`]: the routes, and what holds for every request: token, time limit, counts
//! - [`context`]: what the routes need; [`token`]: who may ask; [`body`]: reading a bounded JSON body
//! - [`refused`]: why a request is not answered, in the words of either dialect
//! - [`health`], [`kserve`], [`tensor`], [`openai`], [`ask`], [`status_page`]: the routes

pub mod ask;
pub mod bequest;
pub mod body;
pub mod context;
pub mod conversation;
pub mod health;
pub mod kserve;
pub mod openai;
pub mod refused;
pub mod router;
pub mod server;
pub mod status_page;
pub mod taking;
pub mod tensor;
pub mod token;
