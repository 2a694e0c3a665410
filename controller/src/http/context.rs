//! What request handlers share.

use std::sync::Arc;

use protocol::key::SigningKey;
use tokio::sync::{Notify, Semaphore, watch};

use crate::{
    artifacts::Artifacts,
    assign::Assigner,
    auth::{AdminToken, Limiter},
    clock::Clock,
    link::said::Outgoing,
    metrics::Metrics,
    pki::Authority,
    publish::Publisher,
    settings::Settings,
    stop::Stop,
    store::database::Store,
};

/// Shared by all handlers.
pub struct Context {
    /// What `init` fixed.
    pub settings: Settings,
    /// The database.
    pub store: Store,
    /// The objects.
    pub artifacts: Artifacts,
    /// The certificate authority.
    pub authority: Authority,
    /// Signs what is said to devices.
    pub signer: Arc<SigningKey>,
    /// What time it is.
    pub clock: Clock,
    /// The administrator.
    pub admin: AdminToken,
    /// Attempts to enrol.
    pub enrolments: Limiter,
    /// Failed attempts to be the administrator.
    pub failures: Limiter,
    /// Publishes releases.
    pub publisher: Publisher,
    /// Assigns them.
    pub assigner: Assigner,
    /// Says things to devices.
    pub outgoing: Outgoing,
    /// Wakes the driver of rollouts.
    pub news: Arc<Notify>,
    /// Id of the newest event.
    pub newest_event: watch::Receiver<u64>,
    /// Whether the broker is connected.
    pub connected: watch::Receiver<bool>,
    /// Room for open event streams.
    pub streams: Arc<Semaphore>,
    /// Figures.
    pub metrics: Metrics,
    /// Our address as devices and people reach it, without a slash at its end.
    pub public_url: String,
    /// The broker's address as devices reach it.
    pub broker: String,
    /// The word to stop, which ends open streams.
    pub stop: Stop,
}
