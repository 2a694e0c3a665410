//! What the link says about itself, for the local status.

use serde::Serialize;

/// Where the link stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FleetStatus {
    /// Whether this device has joined a fleet.
    pub enrolled: bool,
    /// Whether the broker is connected now.
    pub connected: bool,
    /// This device.
    pub device: Option<String>,
    /// Its fleet.
    pub fleet: Option<String>,
    /// Its broker.
    pub broker: Option<String>,
    /// Why it is not connected, or what was refused last.
    pub last_error: Option<String>,
    /// Reports that the controller has not acknowledged.
    pub outbox_entries: usize,
    /// Telemetry reports dropped so far.
    pub outbox_dropped: u64,
    /// Highest assignment received.
    pub desired_sequence: u64,
    /// What is being done about it.
    pub assignment: String,
    /// What the gates of a trial wait for.
    pub trial: String,
}
