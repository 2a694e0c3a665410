//! What this device says about itself: events as they come, its state when it changes, its vitals from time to time.
//! Everything goes into the outbox; the link sends it when it can.

use std::{sync::Arc, time::Duration};

use protocol::{
    handover::Verdict,
    report::{Body, DeviceState, Event, Installed},
};
use slots::{boot::BootRecord, state::Held};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{
    fleet::{
        fleet_status::FleetStatus, happenings, host::Health, host::Host, journal::Journal,
        record_watch::Records,
    },
    observe::logging::chain,
};

/// How often readiness is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What the reporter is given.
pub struct Parts {
    /// Version of this agent.
    pub agent_version: String,
    /// The gateway.
    pub host: Arc<dyn Host>,
    /// Where reports are kept.
    pub journal: Journal,
    /// The boot record.
    pub records: Records,
    /// Events of the other parts of the gateway.
    pub news: mpsc::Receiver<Event>,
    /// The verdict given last.
    pub given: watch::Receiver<Option<Verdict>>,
    /// What the local status shows; the state takes the assignment's sequence from it.
    pub status: watch::Sender<FleetStatus>,
    /// Time between two reports of vitals.
    pub vitals_every: Duration,
    /// Longest time between two reports of the state.
    pub state_every: Duration,
    /// Becomes true when the gateway stops.
    pub stop: watch::Receiver<bool>,
}

/// Reports until the gateway stops.
pub async fn run(mut parts: Parts) {
    let mut looks = every(LOOK);
    let mut vitals = every(parts.vitals_every);
    let mut states = every(parts.state_every);
    let mut told: Option<DeviceState> = None;
    while !*parts.stop.borrow() {
        let mut again = false;
        tokio::select! {
            Some(event) = parts.news.recv() => parts.journal.keep_surely(event, None).await,
            changed = parts.records.changed() => {
                if changed.is_err() { return }
                parts.report_happenings().await;
            }
            changed = parts.stop.changed() => if changed.is_err() { return },
            _ = looks.tick() => {}
            _ = states.tick() => again = true,
            _ = vitals.tick() => parts.report_vitals().await,
        }
        let record = parts.records.borrow().clone();
        let Some(record) = record else { continue };
        let sequence = parts.status.borrow().desired_sequence;
        let state = device_state(&record, &parts.agent_version, sequence, parts.host.health());
        if again || told.as_ref() != Some(&state) {
            match parts.journal.report(Body::State(state.clone())).await {
                Ok(_) => told = Some(state),
                Err(error) => tracing::warn!("the state is not reported: {}", chain(&error)),
            }
        }
    }
    // What was handed in before the stop is not lost.
    while let Ok(event) = parts.news.try_recv() {
        parts.journal.keep_surely(event, None).await;
    }
}

impl Parts {
    async fn report_happenings(&mut self) {
        let record = self.records.borrow_and_update().clone();
        let Some(record) = record else { return };
        let reported = match self.journal.mark().await {
            Ok(reported) => reported,
            Err(error) => return tracing::error!("{}", chain(&error)),
        };
        let given = self.given.borrow().clone();
        for (mark, event) in happenings::unreported(&record, reported, given.as_ref()) {
            self.journal.keep_surely(event, Some(mark)).await;
        }
    }

    async fn report_vitals(&self) {
        let host = Arc::clone(&self.host);
        let Ok(vitals) = spawn_blocking(move || host.vitals()).await else { return };
        if let Err(error) = self.journal.report(Body::Tele(vitals)).await {
            tracing::warn!("vitals are not reported: {}", chain(&error));
        }
    }
}

/// The state as the controller sees it.
fn device_state(
    record: &BootRecord,
    agent_version: &str,
    desired_sequence: u64,
    health: Health,
) -> DeviceState {
    let installed =
        |held: &Held| Installed { release: held.release, name: held.name.clone(), slot: held.slot };
    DeviceState {
        agent_version: agent_version.to_owned(),
        committed: record.state.active().map(installed),
        trial: record.state.trial().map(|trial| installed(&trial.held)),
        phase: record.state.phase().to_owned(),
        quarantined: record.quarantine.iter().map(|entry| entry.release).collect(),
        desired_sequence: desired_sequence.max(record.desired_sequence),
        compute: health.compute,
        ready: health.ready,
    }
}

fn every(span: Duration) -> tokio::time::Interval {
    let mut ticks = interval(span.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
