//! Every write and flush of a disk in order, and what a power cut among them may leave.

use std::sync::Arc;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::blocks::image::{Image, PIECE_BYTES, Piece, SECTOR_BYTES};

/// One in so many pieces is torn where pieces may be.
const TORN_ONE_IN: u8 = 8;

/// One thing that a disk was asked to do.
#[derive(Clone, Debug)]
enum Entry {
    /// A piece got this content.
    Write { piece: usize, content: Arc<Piece> },
    /// Everything before is to be durable when this is answered.
    Flush,
}

/// A disk's history.
#[derive(Clone, Debug)]
pub struct Log {
    first: Image,
    entries: Vec<Entry>,
}

/// What of a history the choice of cuts depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Number of writes of a piece and flushes.
    pub entries: usize,
    /// Which of them are flushes, in order.
    pub flushes: Vec<usize>,
}

/// Which writes a power cut can undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cache {
    /// Those after the last flush, as a disk must.
    Honest,
    /// The newest so many entries, flushed or not: a disk that answers a flush and does nothing.
    Lying(usize),
}

/// What becomes of the writes that a power cut can undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// None of them happened.
    Lost,
    /// All of them happened.
    Kept,
    /// Each happened or not, with this probability in percent, whatever the order.
    Some {
        /// Probability in percent.
        percent: u8,
    },
    /// As before, and some of those that happened only did so for their first sectors.
    Torn {
        /// Probability in percent.
        percent: u8,
    },
}

/// A power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// After so many entries of the log.
    pub at: usize,
    /// Which writes it can undo.
    pub cache: Cache,
    /// What becomes of them.
    pub fate: Fate,
    /// Seed of the choice.
    pub seed: u64,
}

/// What a power cut left.
#[derive(Clone, Debug)]
pub struct Left {
    /// The disk.
    pub image: Image,
    /// Writes that it could have undone.
    pub volatile: usize,
    /// Writes that it did undo.
    pub lost: usize,
}

impl Log {
    /// The history of a disk that holds `first`.
    pub const fn new(first: Image) -> Self {
        Self { first, entries: Vec::new() }
    }

    /// Notes writes that the disk has taken.
    pub fn written(&mut self, changed: Vec<(usize, Arc<Piece>)>) {
        let writes = changed.into_iter().map(|(piece, content)| Entry::Write { piece, content });
        self.entries.extend(writes);
    }

    /// Notes a flush.
    pub fn flushed(&mut self) {
        self.entries.push(Entry::Flush);
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the choice of cuts depends on.
    pub fn shape(&self) -> Shape {
        let flushes = self.entries.iter().enumerate();
        let flushes = flushes.filter(|(_, entry)| matches!(entry, Entry::Flush));
        Shape { entries: self.entries.len(), flushes: flushes.map(|(at, _)| at).collect() }
    }

    /// What `cut` leaves. A cut past the end is one at the end.
    pub fn after(&self, cut: &Cut) -> Left {
        let issued = &self.entries[..cut.at.min(self.entries.len())];
        let durable = match cut.cache {
            Cache::Honest => issued
                .iter()
                .rposition(|entry| matches!(entry, Entry::Flush))
                .map_or(0, |flush| flush + 1),
            Cache::Lying(pieces) => issued.len().saturating_sub(pieces),
        };
        let mut left = Left { image: self.first.clone(), volatile: 0, lost: 0 };
        let (safe, open) = issued.split_at(durable);
        for (piece, content) in writes(safe) {
            left.image.set(piece, Arc::clone(content));
        }
        let mut random = Rng::with_seed(cut.seed);
        for (piece, content) in writes(open) {
            left.volatile += 1;
            match happens(cut.fate, &mut random) {
                Happens::Not => left.lost += 1,
                Happens::Whole => left.image.set(piece, Arc::clone(content)),
                Happens::Torn(sectors) => {
                    left.lost += 1;
                    left.image.tear(piece, content, sectors);
                }
            }
        }
        assert_eq!(left.image.bytes(), self.first.bytes(), "a disk does not change its size");
        left
    }
}

#[derive(Clone, Copy)]
enum Happens {
    Not,
    Whole,
    Torn(usize),
}

fn happens(fate: Fate, random: &mut Rng) -> Happens {
    match fate {
        Fate::Lost => Happens::Not,
        Fate::Kept => Happens::Whole,
        Fate::Some { percent } if random.u8(0..100) < percent => Happens::Whole,
        Fate::Torn { percent } if random.u8(0..100) < percent => match random.u8(0..TORN_ONE_IN) {
            0 => Happens::Torn(random.usize(1..PIECE_BYTES / SECTOR_BYTES)),
            _ => Happens::Whole,
        },
        Fate::Some { .. } | Fate::Torn { .. } => Happens::Not,
    }
}

fn writes(entries: &[Entry]) -> impl Iterator<Item = (usize, &Arc<Piece>)> {
    entries.iter().filter_map(|entry| match entry {
        Entry::Write { piece, content } => Some((*piece, content)),
        Entry::Flush => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Cache, Cut, Fate, Log};
    use crate::blocks::image::{Image, PIECE_BYTES};

    /// A disk of four pieces: 1 into piece 0, a flush, 2 into piece 1, 3 into piece 0.
    fn log() -> Log {
        let mut image = Image::new(4);
        let mut log = Log::new(image.clone());
        let mut write = |log: &mut Log, piece: usize, byte: u8| {
            log.written(image.write((piece * PIECE_BYTES) as u64, &[byte; PIECE_BYTES]).unwrap());
        };
        write(&mut log, 0, 1);
        log.flushed();
        write(&mut log, 1, 2);
        write(&mut log, 0, 3);
        log
    }

    fn bytes(at: usize, cache: Cache, fate: Fate) -> [u8; 2] {
        let image = log().after(&Cut { at, cache, fate, seed: 1 }).image;
        [0, 1].map(|piece| image.read(piece * PIECE_BYTES as u64, 1).unwrap()[0])
    }

    #[test]
    fn what_was_flushed_stays_and_what_came_later_may_go() {
        assert_eq!(log().shape().flushes, [1]);
        assert_eq!(bytes(4, Cache::Honest, Fate::Lost), [1, 0]);
        assert_eq!(bytes(4, Cache::Honest, Fate::Kept), [3, 2]);
        assert_eq!(bytes(3, Cache::Honest, Fate::Kept), [1, 2]);
        // Before the flush is answered nothing is promised.
        assert_eq!(bytes(1, Cache::Honest, Fate::Lost), [0, 0]);
        assert_eq!(bytes(2, Cache::Honest, Fate::Lost), [1, 0]);
        assert_eq!(bytes(99, Cache::Honest, Fate::Kept), [3, 2]);
    }

    #[test]
    fn a_disk_that_lies_about_flushes_loses_what_was_flushed() {
        assert_eq!(bytes(2, Cache::Lying(99), Fate::Lost), [0, 0]);
        assert_eq!(bytes(4, Cache::Lying(2), Fate::Lost), [1, 0]);
    }

    #[test]
    fn any_subset_can_be_left_and_a_later_write_never_precedes_an_earlier_one() {
        let (log, mut seen) = (log(), std::collections::BTreeSet::new());
        for seed in 0..64 {
            let fate = Fate::Some { percent: 50 };
            let left = log.after(&Cut { at: 4, cache: Cache::Honest, fate, seed });
            assert_eq!(left.volatile, 2);
            seen.insert([0, 1].map(|p| left.image.read(p * PIECE_BYTES as u64, 1).unwrap()[0]));
        }
        assert_eq!(seen, [[1, 0], [1, 2], [3, 0], [3, 2]].into());
    }

    #[test]
    fn a_piece_is_torn_between_sectors() {
        let log = log();
        let torn = (0..200).any(|seed| {
            let fate = Fate::Torn { percent: 100 };
            let left = log.after(&Cut { at: 4, cache: Cache::Honest, fate, seed });
            let piece = left.image.read(0, PIECE_BYTES).unwrap();
            piece[0] == 3 && piece[PIECE_BYTES - 1] == 1
        });
        assert!(torn);
    }
}
