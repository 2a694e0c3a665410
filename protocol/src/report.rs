//! What a device says to the controller. Always sealed (see [`crate::seal`]); no floats: shares are per mille.

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, id::Slot, time::UnixMs};

/// One report: the plaintext inside a sealed envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// When it was made, by the device's clock.
    pub at: UnixMs,
    /// Telemetry reports dropped so far because the outbox was full.
    pub dropped: u64,
    /// What it says.
    pub body: Body,
}

/// What a report says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Body {
    /// What the device runs.
    State(DeviceState),
    /// How it is.
    Tele(Vitals),
    /// What happened.
    Event(Event),
}

/// What the device runs, and where an update stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceState {
    /// Version of the agent that reports.
    pub agent_version: String,
    /// Release that committed last, if any; none means the factory slot.
    pub committed: Option<Installed>,
    /// Release on trial, if any.
    pub trial: Option<Installed>,
    /// Where the trial stands, one of the states of `slots`.
    pub phase: String,
    /// Releases this device will not try again by itself.
    pub quarantined: Vec<Digest>,
    /// Highest assignment obeyed.
    pub desired_sequence: u64,
    /// Where inference runs: `cpu`, or an adapter's name.
    pub compute: String,
    /// Whether the gateway can answer.
    pub ready: bool,
}

/// A release and where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// SHA-256 of its manifest.
    pub release: Digest,
    /// Its name for people.
    pub name: String,
    /// Its slot.
    pub slot: Slot,
}

/// Host and service vitals over the last interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vitals {
    /// Share of all processors in use, per mille.
    pub cpu_permille: u32,
    /// Memory in use, bytes.
    pub memory_used_bytes: u64,
    /// Memory there is, bytes.
    pub memory_total_bytes: u64,
    /// Free space where the state lies, bytes.
    pub disk_free_bytes: u64,
    /// Seconds since the host started.
    pub uptime_s: u64,
    /// Requests answered since the gateway started.
    pub answered: u64,
    /// Requests that failed since the gateway started.
    pub failed: u64,
    /// 99th percentile of the answer time since the gateway started, microseconds.
    pub latency_us_p99: u64,
}

/// A thing that happened on a device and that nobody may miss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Release concerned.
    pub release: Option<Digest>,
    /// Rollout concerned; 0 for none.
    pub rollout: u64,
    /// In words, at most 2000 characters.
    pub detail: String,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The gateway started.
    Started,
    /// An assignment was accepted; fetching begins.
    Accepted,
    /// An assignment or a release was refused; the detail says why.
    Refused,
    /// All files are there and genuine.
    Fetched,
    /// The release stands complete in the inactive slot.
    Staged,
    /// The candidate worker loaded it.
    Loaded,
    /// The golden set passed.
    Golden,
    /// The next start uses it.
    Armed,
    /// The new gateway runs and is on probation.
    Probation,
    /// The release is the committed one and runs.
    Committed,
    /// The release was given up and quarantined; the detail says why.
    RolledBack,
    /// A worker died and was started again.
    WorkerRestarted,
    /// Something an operator must look at: a slot that did not verify, a torn record, a full disk.
    Alarm,
}

impl EventKind {
    /// Its name in kebab-case, as shown and stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Fetched => "fetched",
            Self::Staged => "staged",
            Self::Loaded => "loaded",
            Self::Golden => "golden",
            Self::Armed => "armed",
            Self::Probation => "probation",
            Self::Committed => "committed",
            Self::RolledBack => "rolled-back",
            Self::WorkerRestarted => "worker-restarted",
            Self::Alarm => "alarm",
        }
    }
}

/// The last will and the greeting: not sealed, since the broker itself publishes the will. Says nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// Whether the device is connected.
    pub online: bool,
}
