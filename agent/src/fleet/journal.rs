//! The outbox as the async parts use it: every write on a blocking thread, and a bell when something is new.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use protocol::{
    cbor::{self, EncodeError},
    report::{Body, Event, EventKind, Report},
    topic::Channel,
};
use slots::disk::RealDisk;
use tokio::{
    sync::watch,
    task::{JoinError, spawn_blocking},
};

use crate::{
    fleet::outbox::{Class, LIMITS, Limits, Outbox, OutboxError, Pushed, Sent, Waiting},
    observe::{clock, logging::chain},
};

/// Longest detail of an event, as the format says.
const DETAIL_CHARS_MAX: usize = 2000;
/// Wait between two attempts to keep an event that the outbox did not take.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a report was not kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The outbox refused.
    #[error("keeping a report until it is sent")]
    Outbox(#[from] OutboxError),
    /// It cannot be written.
    #[error("writing a report")]
    Encode(#[from] EncodeError),
    /// The runtime is ending.
    #[error("the agent is stopping")]
    Stopping(#[from] JoinError),
}

/// A handle to the outbox; clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    outbox: Arc<Mutex<Outbox<RealDisk>>>,
    changes: Arc<watch::Sender<Size>>,
}

/// How full the outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Reports that wait.
    pub waiting: usize,
    /// Telemetry reports dropped so far.
    pub dropped: u64,
    /// Grows with every change.
    pub turn: u64,
}

impl Journal {
    /// Opens the outbox in `folder`. Damaged files in it are reported as an alarm.
    pub async fn open(folder: PathBuf) -> Result<Self, JournalError> {
        Self::open_with(folder, LIMITS).await
    }

    /// The same with other limits.
    pub async fn open_with(folder: PathBuf, limits: Limits) -> Result<Self, JournalError> {
        let opened = spawn_blocking(move || Outbox::open(RealDisk, folder, limits)).await?;
        let (outbox, damaged) = opened?;
        let size = Size { waiting: outbox.len(), dropped: outbox.dropped(), turn: 0 };
        let journal = Self {
            outbox: Arc::new(Mutex::new(outbox)),
            changes: Arc::new(watch::channel(size).0),
        };
        for file in damaged {
            let detail = format!(
                "report {} in the outbox was unreadable and is lost: {}",
                file.name,
                chain(&file.source)
            );
            journal
                .keep(Event { kind: EventKind::Alarm, release: None, rollout: 0, detail }, None)
                .await?;
        }
        Ok(journal)
    }

    /// Keeps an event. `mark` is remembered in the same write.
    pub async fn keep(&self, mut event: Event, mark: Option<u64>) -> Result<(), JournalError> {
        if let Some((end, _)) = event.detail.char_indices().nth(DETAIL_CHARS_MAX) {
            event.detail.truncate(end);
        }
        let mark = mark.map(|mark| mark.to_be_bytes().to_vec());
        self.push(Channel::Event, Body::Event(event), mark).await.map(drop)
    }

    /// Keeps an event, however long the disk takes to have room for it; gives up only when the agent stops.
    pub async fn keep_surely(&self, event: Event, mark: Option<u64>) {
        let mut told = false;
        while let Err(error) = self.keep(event.clone(), mark).await {
            if matches!(error, JournalError::Stopping(_)) {
                return;
            }
            if !told {
                tracing::error!(kind = event.kind.as_str(), "{}; trying again", chain(&error));
                told = true;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Keeps a state, which takes the place of an earlier one, or telemetry.
    pub async fn report(&self, body: Body) -> Result<Pushed, JournalError> {
        let channel = match &body {
            Body::State(_) => Channel::State,
            Body::Tele(_) => Channel::Tele,
            Body::Event(_) => Channel::Event,
        };
        self.push(channel, body, None).await
    }

    /// What to send next, see [`Outbox::next`].
    pub async fn next(
        &self,
        class: Class,
        sent: Sent,
        count: usize,
    ) -> Result<Vec<Waiting>, JournalError> {
        Ok(self.with(move |outbox| outbox.next(class, &sent, count)).await?)
    }

    /// Forgets what the controller has stored.
    pub async fn acknowledge(&self, sequences: Vec<u64>) -> Result<(), JournalError> {
        Ok(self.with(move |outbox| outbox.acknowledge(&sequences)).await??)
    }

    /// The newest mark; 0 if there was none.
    pub async fn mark(&self) -> Result<u64, JournalError> {
        let mark = self.with(|outbox| outbox.mark().to_vec()).await?;
        Ok(mark.try_into().map_or(0, u64::from_be_bytes))
    }

    /// Rings at every change.
    pub fn watch(&self) -> watch::Receiver<Size> {
        self.changes.subscribe()
    }

    async fn push(
        &self,
        channel: Channel,
        body: Body,
        mark: Option<Vec<u8>>,
    ) -> Result<Pushed, JournalError> {
        let at = clock::now();
        self.with(move |outbox| -> Result<Pushed, JournalError> {
            let report = Report { at, dropped: outbox.dropped(), body };
            Ok(outbox.push(channel, cbor::encode(&report)?, mark.as_deref())?)
        })
        .await?
    }

    async fn with<R, F>(&self, work: F) -> Result<R, JoinError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Outbox<RealDisk>) -> R + Send + 'static,
    {
        let journal = self.clone();
        spawn_blocking(move || {
            let mut outbox = journal.outbox.lock().unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut outbox);
            let (waiting, dropped) = (outbox.len(), outbox.dropped());
            journal.changes.send_if_modified(|size| {
                let changed = (size.waiting, size.dropped) != (waiting, dropped);
                if changed {
                    *size = Size { waiting, dropped, turn: size.turn + 1 };
                }
                changed
            });
            result
        })
        .await
    }
}
