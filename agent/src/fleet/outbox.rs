//! The durable outbox: reports wait here until the controller says that it has stored them.
//!
//! One file per report, named by its sequence number. MQTT's own acknowledgement only says that a broker took a
//! message, so nothing is removed before [`Outbox::acknowledge`]. When the outbox is full the oldest telemetry goes
//! first and is counted; events are never dropped: a push that finds no room for one is refused, and its sender keeps
//! it.
//!
//! Sequence numbers never repeat, across power cuts too: they are handed out of blocks that were reserved durably. A
//! report may carry a *mark*, by which its sender remembers how far it has reported; report and mark become durable
//! in one write, so a power cut leaves both or neither.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use protocol::{
    blob::Blob,
    cbor::{self, DecodeError, EncodeError},
    topic::Channel,
};
use serde::{Deserialize, Serialize};
use slots::disk::{self, Disk};

use crate::fleet::state_file::{self, StateFileError};

/// Largest report; sealed it still fits into one message.
pub const REPORT_BYTES_MAX: usize = 60 * 1024;
/// Largest file of the outbox.
const FILE_BYTES_MAX: usize = cbor::MESSAGE_BYTES_MAX;
/// The first sequence number; 0 stands for none.
const FIRST: u64 = 1;
const HEAD: &str = "head.cbor";
const ENTRY_SUFFIX: &str = ".report";

/// How much the outbox holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most reports.
    pub reports_max: usize,
    /// Most bytes of reports.
    pub bytes_max: usize,
    /// Sequence numbers reserved at once.
    pub block: u64,
}

/// Some days of telemetry at one report in 30 seconds, and any number of events that a sane device has.
pub const LIMITS: Limits = Limits { reports_max: 10_000, bytes_max: 16 * 1024 * 1024, block: 256 };

/// A report that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// Its number; grows with every report of this device.
    pub sequence: u64,
    /// Where it goes.
    pub channel: Channel,
    /// The report's CBOR, not yet sealed.
    pub report: Blob,
    /// How far its sender has reported with it; empty for none.
    mark: Blob,
}

/// What is not in the reports' own files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// Numbers below this may have been used.
    reserved: u64,
    /// Telemetry reports dropped so far.
    dropped: u64,
    /// The report that carried `mark`.
    marked_by: u64,
    /// The newest mark among the reports that were acknowledged.
    mark: Blob,
}

/// What became of a pushed report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits under this number.
    Waits(u64),
    /// It was telemetry, and there is room for nothing but events.
    Dropped,
}

/// Events go beside the rest, so that no amount of telemetry delays them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What nobody may miss.
    Event,
    /// State and telemetry.
    Other,
}

/// What a session has sent so far.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Sent, and there is still time for its acknowledgement.
    pub under_way: BTreeSet<u64>,
    /// When each was sent last, in the session's own counting.
    pub turns: BTreeMap<u64, u64>,
}

/// Why a report is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Only events are left, and they fill it.
    #[error(
        "outbox is full with {reports} reports that the controller has not acknowledged; check the link to the broker"
    )]
    Full {
        /// How many wait.
        reports: usize,
    },
    /// Too large to send.
    #[error("report of {0} bytes is larger than the {REPORT_BYTES_MAX} allowed")]
    TooLarge(usize),
    /// Presence is published by the link itself, and is never kept.
    #[error("presence does not go through the outbox")]
    Presence,
    /// Cannot be written as CBOR.
    #[error("writing a report for the outbox")]
    Encode(#[from] EncodeError),
    /// The disk refused.
    #[error("using the outbox in {}", folder.display())]
    Disk {
        /// Where it lies.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its head cannot be read or written.
    #[error("using the outbox")]
    Head(#[from] StateFileError),
}

/// The outbox of one device; one process at a time opens it.
#[derive(Debug)]
pub struct Outbox<D> {
    disk: D,
    folder: PathBuf,
    limits: Limits,
    head: Head,
    next: u64,
    bytes: usize,
    waiting: BTreeMap<u64, Waiting>,
}

/// A file of the outbox that could not be read, and why.
#[derive(Debug)]
pub struct Damaged {
    /// Its name.
    pub name: String,
    /// Why.
    pub source: DecodeError,
}

impl<D: Disk> Outbox<D> {
    /// Opens the outbox in `folder`, making it if there is none. Files that cannot be read are removed and named.
    pub fn open(
        disk: D,
        folder: PathBuf,
        limits: Limits,
    ) -> Result<(Self, Vec<Damaged>), OutboxError> {
        let failed = |source| OutboxError::Disk { folder: folder.clone(), source };
        if let Some(parent) = folder.parent() {
            disk.create_dir(&folder).and_then(|()| disk.sync_dir(parent)).map_err(failed)?;
        }
        let mut damaged = Vec::new();
        let head = match state_file::load::<Head>(&disk, &folder.join(HEAD), FILE_BYTES_MAX) {
            Ok(head) => head.unwrap_or_default(),
            Err(StateFileError::Content { source, .. }) => {
                damaged.push(Damaged { name: HEAD.to_owned(), source });
                Head::default()
            }
            Err(error @ (StateFileError::Disk { .. } | StateFileError::Encode { .. })) => {
                return Err(error.into());
            }
        };
        let mut waiting = BTreeMap::new();
        for name in disk.list(&folder).map_err(failed)? {
            let path = folder.join(&name);
            let Some(sequence) = sequence_of(&name) else {
                if name != HEAD {
                    // What a power cut left of an unfinished write.
                    disk.remove_file(&path).map_err(failed)?;
                }
                continue;
            };
            let bytes = disk.read(&path, FILE_BYTES_MAX as u64).map_err(failed)?;
            let entry = cbor::decode::<Waiting>(&bytes, FILE_BYTES_MAX).and_then(|entry| {
                if entry.sequence == sequence { Ok(entry) } else { Err(DecodeError::NotCanonical) }
            });
            match entry {
                Ok(entry) => {
                    waiting.insert(sequence, entry);
                }
                Err(source) => {
                    disk.remove_file(&path).map_err(failed)?;
                    damaged.push(Damaged { name, source });
                }
            }
        }
        // A head that was lost must not hand out numbers again that waiting reports still carry.
        let above = waiting.last_key_value().map_or(FIRST, |(sequence, _)| sequence + 1);
        let next = head.reserved.max(above);
        let bytes = waiting.values().map(|entry| entry.report.as_slice().len()).sum();
        Ok((Self { disk, folder, limits, head, next, bytes, waiting }, damaged))
    }

    /// Takes in a report durably; its number comes back. `mark` replaces the sender's mark in the same write.
    pub fn push(
        &mut self,
        channel: Channel,
        report: Vec<u8>,
        mark: Option<&[u8]>,
    ) -> Result<Pushed, OutboxError> {
        if channel == Channel::Presence {
            return Err(OutboxError::Presence);
        }
        if report.len() > REPORT_BYTES_MAX {
            return Err(OutboxError::TooLarge(report.len()));
        }
        if !self.make_room(report.len())? {
            return match channel {
                Channel::Event => Err(OutboxError::Full { reports: self.waiting.len() }),
                Channel::Tele | Channel::State | Channel::Presence => {
                    self.count_dropped()?;
                    Ok(Pushed::Dropped)
                }
            };
        }
        let sequence = self.reserve()?;
        let entry = Waiting {
            sequence,
            channel,
            report: Blob::from(report),
            mark: Blob::from(mark.unwrap_or_default().to_vec()),
        };
        disk::replace(&self.disk, &self.path(sequence), &cbor::encode(&entry)?)
            .map_err(|source| self.failed(source))?;
        if channel == Channel::State {
            // Only the newest state means anything.
            let older = self.sequences_of(Channel::State);
            self.remove(&older)?;
        }
        self.insert(entry);
        Ok(Pushed::Waits(sequence))
    }

    /// Forgets the reports that the controller has stored.
    pub fn acknowledge(&mut self, sequences: &[u64]) -> Result<(), OutboxError> {
        let stored: Vec<u64> =
            sequences.iter().copied().filter(|at| self.waiting.contains_key(at)).collect();
        self.remove(&stored)
    }

    /// What to send next, at most `count`: what was never sent first, then what was sent longest ago, so that reports
    /// nobody acknowledges cannot hold up the others.
    pub fn next(&self, class: Class, sent: &Sent, count: usize) -> Vec<Waiting> {
        let ready = self.waiting.values().filter(|entry| {
            Class::of(entry.channel) == class && !sent.under_way.contains(&entry.sequence)
        });
        let mut ready: Vec<&Waiting> = ready.collect();
        ready.sort_by_key(|entry| (sent.turns.get(&entry.sequence), entry.sequence));
        ready.into_iter().take(count).cloned().collect()
    }

    /// The newest mark that a sender left; empty if none did.
    pub fn mark(&self) -> &[u8] {
        let waiting = self.waiting.values().rev().find(|entry| !entry.mark.as_slice().is_empty());
        match waiting {
            Some(entry) if entry.sequence > self.head.marked_by => entry.mark.as_slice(),
            Some(_) | None => self.head.mark.as_slice(),
        }
    }

    /// Telemetry reports dropped so far.
    pub const fn dropped(&self) -> u64 {
        self.head.dropped
    }

    /// How many reports wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn insert(&mut self, entry: Waiting) {
        self.bytes += entry.report.as_slice().len();
        self.waiting.insert(entry.sequence, entry);
    }

    /// Makes room for `bytes` more by dropping telemetry, then states; `false` if only events are left.
    fn make_room(&mut self, bytes: usize) -> Result<bool, OutboxError> {
        while self.waiting.len() >= self.limits.reports_max
            || self.bytes + bytes > self.limits.bytes_max
        {
            let oldest = |channel| {
                let mut of_kind = self.waiting.values().filter(move |e| e.channel == channel);
                of_kind.next().map(|entry| entry.sequence)
            };
            let Some(victim) = oldest(Channel::Tele).or_else(|| oldest(Channel::State)) else {
                return Ok(false);
            };
            self.count_dropped()?;
            self.remove(&[victim])?;
        }
        Ok(true)
    }

    fn count_dropped(&mut self) -> Result<(), OutboxError> {
        self.head.dropped += 1;
        self.save_head()
    }

    fn reserve(&mut self) -> Result<u64, OutboxError> {
        let sequence = self.next;
        if sequence >= self.head.reserved {
            let head = Head { reserved: sequence + self.limits.block, ..self.head.clone() };
            let before = std::mem::replace(&mut self.head, head);
            if let Err(error) = self.save_head() {
                self.head = before;
                return Err(error);
            }
        }
        self.next = sequence + 1;
        Ok(sequence)
    }

    /// Removes files. A mark that goes with them is kept in the head first. A power cut may bring removed reports
    /// back; they are sent again and acknowledged again.
    fn remove(&mut self, sequences: &[u64]) -> Result<(), OutboxError> {
        let marked = sequences
            .iter()
            .filter_map(|sequence| self.waiting.get(sequence))
            .filter(|entry| !entry.mark.as_slice().is_empty())
            .max_by_key(|entry| entry.sequence);
        if let Some(entry) = marked.filter(|entry| entry.sequence > self.head.marked_by) {
            (self.head.marked_by, self.head.mark) = (entry.sequence, entry.mark.clone());
            self.save_head()?;
        }
        for sequence in sequences {
            self.disk.remove_file(&self.path(*sequence)).map_err(|source| self.failed(source))?;
            if let Some(entry) = self.waiting.remove(sequence) {
                self.bytes -= entry.report.as_slice().len();
            }
        }
        Ok(())
    }

    fn sequences_of(&self, channel: Channel) -> Vec<u64> {
        let of_kind = self.waiting.values().filter(|entry| entry.channel == channel);
        of_kind.map(|entry| entry.sequence).collect()
    }

    fn save_head(&self) -> Result<(), OutboxError> {
        Ok(state_file::save(&self.disk, &self.folder.join(HEAD), &self.head)?)
    }

    fn failed(&self, source: io::Error) -> OutboxError {
        OutboxError::Disk { folder: self.folder.clone(), source }
    }

    fn path(&self, sequence: u64) -> PathBuf {
        self.folder.join(format!("{sequence:016x}{ENTRY_SUFFIX}"))
    }
}

impl Class {
    /// The class of what goes to `channel`.
    pub const fn of(channel: Channel) -> Self {
        match channel {
            Channel::Event => Self::Event,
            Channel::State | Channel::Tele | Channel::Presence => Self::Other,
        }
    }
}

fn sequence_of(name: &str) -> Option<u64> {
    let hex = name.strip_suffix(ENTRY_SUFFIX).filter(|hex| hex.len() == 16)?;
    u64::from_str_radix(hex, 16).ok()
}

#[cfg(test)]
mod tests;
