//! From the queue of arrivals into the store: judged, committed together, and only then acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    command::ACKS_MAX,
    id::{DeviceId, FleetId},
    report::Body,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinError, spawn_blocking},
};

use super::{
    arrival::Arrival,
    judge::{self, Judgement, Known, REPLAYED},
    said::{Outgoing, Say},
    sessions::Sessions,
};
use crate::{
    causes::chain,
    clock::Clock,
    metrics::Metrics,
    stop::Stop,
    store::{
        database::{Store, StoreError},
        refusals::Refused,
        reports::{Novelty, Reported},
    },
};

/// Most messages committed together.
const BATCH: usize = 256;

/// Stores what devices say.
pub struct Ingest {
    /// Our fleet.
    pub fleet: FleetId,
    /// Where to.
    pub store: Store,
    /// What time it is.
    pub clock: Clock,
    /// Where acknowledgements go.
    pub outgoing: Outgoing,
    /// Woken when something that a rollout waits for may have happened.
    pub news: Arc<Notify>,
    /// Told the id of the newest event.
    pub newest_event: watch::Sender<u64>,
    /// Counts.
    pub metrics: Metrics,
}

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The store.
    #[error("storing what devices say")]
    Store(#[source] StoreError),
    /// The judge panicked: a mistake of ours.
    #[error("judging what devices say")]
    Judge(#[source] JoinError),
}

/// What a batch brought.
#[derive(Default)]
struct Brought {
    acknowledged: BTreeMap<DeviceId, Vec<u64>>,
    events: Vec<&'static str>,
    refused: Vec<&'static str>,
    accepted: u64,
}

impl Ingest {
    /// Stores arrivals until the word to stop, or until nobody brings any.
    pub async fn run(self, mut arrivals: mpsc::Receiver<Arrival>, mut stop: Stop) {
        let mut sessions = Sessions::default();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            batch.clear();
            let count = tokio::select! {
                () = stop.wait() => break,
                count = arrivals.recv_many(&mut batch, BATCH) => count,
            };
            if count == 0 {
                break;
            }
            match self.store_batch(std::mem::take(&mut batch), sessions).await {
                Ok(again) => sessions = again,
                Err(error) => {
                    // Nothing was acknowledged, so devices send it again.
                    let error = chain(&error);
                    tracing::error!("{count} messages of devices were not stored: {error}");
                    sessions = Sessions::default();
                }
            }
        }
    }

    async fn store_batch(
        &self,
        batch: Vec<Arrival>,
        sessions: Sessions,
    ) -> Result<Sessions, IngestError> {
        let (judged, sessions) = self.judge(batch, sessions).await?;
        let brought = self.commit(judged).await.map_err(IngestError::Store)?;
        self.tell(brought).await?;
        Ok(sessions)
    }

    async fn judge(
        &self,
        batch: Vec<Arrival>,
        mut sessions: Sessions,
    ) -> Result<(Vec<(Judgement, Arrival)>, Sessions), IngestError> {
        let senders: BTreeSet<DeviceId> =
            batch.iter().filter_map(|arrival| judge::sender(&self.fleet, &arrival.topic)).collect();
        let mut devices = BTreeMap::new();
        for sender in senders {
            if let Some(key) = self.store.device_key(sender).await.map_err(IngestError::Store)? {
                devices.insert(sender, key);
            }
        }
        let seal_keys = self.store.private_seal_keys().await.map_err(IngestError::Store)?;
        let fleet = self.fleet.clone();
        let judging = move || {
            let known = Known { fleet: &fleet, devices: &devices, seal_keys: &seal_keys };
            let judged = batch
                .into_iter()
                .map(|arrival| (judge::judge(&known, &mut sessions, &arrival), arrival))
                .collect();
            (judged, sessions)
        };
        spawn_blocking(judging).await.map_err(IngestError::Judge)
    }

    async fn commit(&self, judged: Vec<(Judgement, Arrival)>) -> Result<Brought, StoreError> {
        let now = self.clock.now();
        let mut brought = Brought::default();
        let mut writing = self.store.begin().await?;
        for (judgement, arrival) in judged {
            let refused = match judgement {
                Judgement::Presence { device, online } => {
                    self.store.record_presence(&mut writing, device, online, now).await?;
                    brought.accepted += 1;
                    None
                }
                Judgement::Report(reported) => {
                    let novelty = self.store.record(&mut writing, &reported, now).await?;
                    brought.take(&reported, novelty);
                    // The broker hands a kept message out again at every connection: that is no replay.
                    (novelty == Novelty::Seen && !arrival.retained)
                        .then(|| replayed(&reported, arrival.topic))
                }
                Judgement::Refused(refused) => Some(refused),
            };
            if let Some(refused) = refused {
                tracing::debug!(reason = refused.reason, "refused a message: {}", refused.detail);
                brought.refused.push(refused.reason);
                self.store.refuse(&mut writing, &refused, now).await?;
            }
        }
        self.store.commit(writing).await?;
        Ok(brought)
    }

    async fn tell(&self, brought: Brought) -> Result<(), IngestError> {
        self.metrics.accepted(brought.accepted);
        for reason in brought.refused {
            self.metrics.refused(reason);
        }
        if !brought.events.is_empty() {
            let newest = self.store.newest_event_id().await.map_err(IngestError::Store)?;
            self.newest_event.send_replace(newest);
        }
        for kind in brought.events {
            self.metrics.event(kind);
        }
        self.news.notify_one();
        for (device, sequences) in brought.acknowledged {
            for some in sequences.chunks(ACKS_MAX) {
                self.outgoing.say(Say::Acknowledge(device, some.to_vec())).await;
            }
        }
        Ok(())
    }
}

impl Brought {
    fn take(&mut self, reported: &Reported, novelty: Novelty) {
        // What was stored before is acknowledged again: the device may have missed it.
        self.acknowledged.entry(reported.device).or_default().push(reported.sequence);
        if novelty == Novelty::New {
            self.accepted += 1;
            if let Body::Event(event) = &reported.report.body {
                self.events.push(event.kind.as_str());
            }
        }
    }
}

fn replayed(reported: &Reported, topic: String) -> Refused {
    Refused {
        reason: REPLAYED,
        device: Some(reported.device),
        topic,
        detail: format!(
            "report {} of device {} is stored already; acknowledged again",
            reported.sequence,
            reported.device.short()
        ),
    }
}
