//! `index.bin`: the embeddings of every question of an FAQ, and which entry each belongs to.
//!
//! Little-endian, no padding, nothing after the last row:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `SOCLEIX1` |
//! | 32 | SHA-256 of the `faq.jsonl` whose entries the rows point at |
//! | 32 | SHA-256 of the `model.onnx` that computed the rows |
//! | 4 | `dim`: width of a row, u32 |
//! | 4 | `entries`: lines of the FAQ, u32 |
//! | 4 | `rows`: u32 |
//! | 4 × rows | for each row its entry, counted from 0, u32 |
//! | 4 × dim × rows | for each row its unit vector, f32 |

use protocol::digest::Digest;

use crate::pooling::dot;

const MAGIC: &[u8; 8] = b"SOCLEIX1";
const HEADER_BYTES: usize = 8 + 32 + 32 + 12;
const ROWS_MAX: usize = 1 << 20;
const DIM_MAX: usize = 16_384;
/// How far from 1 the length of a row may be.
const LENGTH_TOLERANCE: f32 = 1e-3;

/// Unit vectors with the entry each leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// SHA-256 of the entries.
    pub faq: Digest,
    /// SHA-256 of the model that computed the rows.
    pub model: Digest,
    entries: usize,
    dim: usize,
    entry_of_row: Vec<u32>,
    rows: Vec<f32>,
}

/// A row that was found near.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The entry, counted from 0.
    pub entry: usize,
    /// Cosine between the question and the row.
    pub score: f32,
}

/// Why bytes are not an index, or rows do not make one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IndexError {
    /// Not an index, or of another version.
    #[error("index does not begin with SOCLEIX1: build it again with `socle model pack`")]
    Magic,
    /// Shorter or longer than its header says.
    #[error("index is {found} bytes long, its header says {expected}")]
    Length {
        /// What the header says.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// A header that no index has.
    #[error("index says {rows} rows of {dim} numbers over {entries} entries, which is impossible")]
    Shape {
        /// Rows.
        rows: usize,
        /// Width.
        dim: usize,
        /// Entries.
        entries: usize,
    },
    /// A row that leads nowhere, or is not a unit vector.
    #[error("index row {row} {what}")]
    Row {
        /// Counted from 0.
        row: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl Index {
    /// An index of `rows` (each a unit vector of `dim` numbers, with its entry) over `entries` entries.
    ///
    /// # Errors
    /// A row of another width, not of length 1, or of an entry that is not there.
    pub fn new(
        faq: Digest,
        model: Digest,
        (entries, dim): (usize, usize),
        found: impl IntoIterator<Item = (usize, Vec<f32>)>,
    ) -> Result<Self, IndexError> {
        let mut entry_of_row = Vec::new();
        let mut rows = Vec::new();
        for (row, (entry, vector)) in found.into_iter().enumerate() {
            if vector.len() != dim {
                return Err(IndexError::Row { row, what: "has another width" });
            }
            let entry = u32::try_from(entry)
                .map_err(|_| IndexError::Row { row, what: "leads to no entry" })?;
            entry_of_row.push(entry);
            rows.extend(vector);
        }
        let index = Self { faq, model, entries, dim, entry_of_row, rows };
        index.check()?;
        Ok(index)
    }

    /// The index that `bytes` hold.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; nothing is allocated before the header agrees with their number.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(IndexError::Magic);
        };
        if magic != MAGIC {
            return Err(IndexError::Magic);
        }
        let short = || IndexError::Length { expected: HEADER_BYTES, found: bytes.len() };
        let (faq, rest) = rest.split_first_chunk::<32>().ok_or_else(short)?;
        let (model, rest) = rest.split_first_chunk::<32>().ok_or_else(short)?;
        let (dim, rest) = take_u32(rest).ok_or_else(short)?;
        let (entries, rest) = take_u32(rest).ok_or_else(short)?;
        let (rows, rest) = take_u32(rest).ok_or_else(short)?;
        if !(1..=ROWS_MAX).contains(&rows) || !(1..=DIM_MAX).contains(&dim) || entries == 0 {
            return Err(IndexError::Shape { rows, dim, entries });
        }
        let body = rows * 4 * (1 + dim);
        if rest.len() != body {
            return Err(IndexError::Length { expected: HEADER_BYTES + body, found: bytes.len() });
        }
        let (entry_of_row, vectors) = rest.split_at(rows * 4);
        let index = Self {
            faq: Digest::from_bytes(*faq),
            model: Digest::from_bytes(*model),
            entries,
            dim,
            entry_of_row: words(entry_of_row).map(u32::from_le_bytes).collect(),
            rows: words(vectors).map(f32::from_le_bytes).collect(),
        };
        index.check()?;
        Ok(index)
    }

    /// The bytes of `index.bin`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * self.rows.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.faq.as_bytes());
        bytes.extend_from_slice(self.model.as_bytes());
        for number in [self.dim, self.entries, self.entry_of_row.len()] {
            bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes.extend(self.entry_of_row.iter().flat_map(|entry| entry.to_le_bytes()));
        bytes.extend(self.rows.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    /// The row nearest to `question` (a unit vector of [`Index::dim`] numbers) among the entries that `wanted` lets in.
    /// Rows of equal score: the first.
    pub fn nearest(&self, question: &[f32], wanted: impl Fn(usize) -> bool) -> Option<Hit> {
        let rows = self.entry_of_row.iter().zip(self.rows.chunks_exact(self.dim));
        let hits = rows.filter_map(|(entry, row)| {
            let entry = *entry as usize;
            wanted(entry).then(|| Hit { entry, score: dot(question, row) })
        });
        hits.fold(None, |best, hit| match best {
            Some(best) if best.score >= hit.score => Some(best),
            _ => Some(hit),
        })
    }

    /// Width of a row.
    pub const fn dim(&self) -> usize {
        self.dim
    }

    /// How many entries the rows may lead to.
    pub const fn entries(&self) -> usize {
        self.entries
    }

    fn check(&self) -> Result<(), IndexError> {
        let rows = self.entry_of_row.len();
        if !(1..=ROWS_MAX).contains(&rows)
            || !(1..=DIM_MAX).contains(&self.dim)
            || self.entries == 0
        {
            return Err(IndexError::Shape { rows, dim: self.dim, entries: self.entries });
        }
        let checked = self.entry_of_row.iter().zip(self.rows.chunks_exact(self.dim)).enumerate();
        for (row, (entry, vector)) in checked {
            if *entry as usize >= self.entries {
                return Err(IndexError::Row { row, what: "leads to no entry" });
            }
            let length = dot(vector, vector).sqrt();
            if !((1.0 - LENGTH_TOLERANCE)..=(1.0 + LENGTH_TOLERANCE)).contains(&length) {
                return Err(IndexError::Row { row, what: "is not a unit vector" });
            }
        }
        Ok(())
    }
}

fn take_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*word) as usize, rest))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    bytes.as_chunks::<4>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Index {
        let rows = [(0, vec![1.0, 0.0]), (1, vec![0.0, 1.0]), (1, vec![0.6, 0.8])];
        Index::new(Digest::of(b"faq"), Digest::of(b"model"), (2, 2), rows).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Index::decode(&sample().encode()).unwrap(), sample());
    }

    #[test]
    fn the_nearest_wanted_row_is_found() {
        let index = sample();
        assert_eq!(index.nearest(&[0.6, 0.8], |_| true), Some(Hit { entry: 1, score: 1.0 }));
        assert_eq!(
            index.nearest(&[0.6, 0.8], |entry| entry == 0),
            Some(Hit { entry: 0, score: 0.6 })
        );
        assert_eq!(index.nearest(&[0.6, 0.8], |_| false), None);
    }

    #[test]
    fn every_cut_and_every_wrong_header_is_refused() {
        let good = sample().encode();
        for end in 0..good.len() {
            assert!(Index::decode(&good[..end]).is_err(), "cut at {end}");
        }
        let set = |at: usize, value: u32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            Index::decode(&bytes).unwrap_err().to_string()
        };
        assert_eq!(
            set(0, 0),
            "index does not begin with SOCLEIX1: build it again with `socle model pack`"
        );
        assert_eq!(set(72, 3), "index is 120 bytes long, its header says 132");
        assert_eq!(
            set(76, 0),
            "index says 3 rows of 2 numbers over 0 entries, which is impossible"
        );
        assert_eq!(
            set(80, u32::MAX),
            "index says 4294967295 rows of 2 numbers over 2 entries, which is impossible"
        );
        assert_eq!(set(84, 2), "index row 0 leads to no entry");
        assert_eq!(set(96, f32::NAN.to_bits()), "index row 0 is not a unit vector");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Index::decode(&tail));
            drop(Index::decode(&[MAGIC.as_slice(), &tail].concat()));
        }
    }
}
