//! The local API: one set of routes, over TCP with a bearer token and over a Unix socket guarded by its permissions.
//!
//! # Layout
//! - [`server`]: accepts connections, bounds their number and their patience, and ends without dropping a request
//! - [`preface`]: which version of HTTP a connection speaks: [`conversation`] is one of HTTP/1.1, [`multiplexed`] one of
//!   HTTP/2; [`bequest`]: how it is left to the next gateway; [`taking`]: when
//! - [`router`]: the routes, and what holds for every request: token, time limit, counts; [`trail`]: what is learnt of it
//!   on its way; [`traced`]: telling a collector of traces; [`grpc_deadline`]: the caller's own time limit
//! - [`context`]: what the routes need; [`inference`]: asking the worker; [`token`]: who may ask; [`body`]: reading a
//!   bounded body
//! - [`refused`]: why a request is not answered, in the words of each dialect; [`grpc_status`]: gRPC's
//! - [`kserve`], [`openai`], [`tei`], [`cohere`], [`mlflow`], [`ask`], [`health`], [`status_page`]: the routes;
//!   [`ranking`] is what several of them do, [`texts`] what they are told; [`page`] is that for a browser, in [`words`]
//!   of two languages

pub mod ask;
pub mod bequest;
pub mod body;
pub mod cohere;
pub mod context;
pub mod conversation;
pub mod grpc_deadline;
pub mod grpc_status;
pub mod health;
pub mod inference;
pub mod kserve;
pub mod mlflow;
pub mod multiplexed;
pub mod openai;
pub mod page;
pub mod preface;
pub mod ranking;
pub mod refused;
pub mod router;
pub mod server;
pub mod status_page;
pub mod taking;
pub mod tei;
pub mod texts;
pub mod token;
pub mod traced;
pub mod trail;
pub mod words;
