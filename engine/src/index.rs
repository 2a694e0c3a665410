//! `index.bin`: the embeddings of every question and answer of an FAQ, and which entry each belongs to.
//!
//! Little-endian, no padding, nothing after the last row:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `SOCLEIX2` |
//! | 32 | SHA-256 of the `faq.jsonl` whose entries the rows point at |
//! | 32 | SHA-256 of the `model.onnx` that computed the rows |
//! | 4 | `dim`: width of a row, u32 |
//! | 4 | `entries`: lines of the FAQ, u32 |
//! | 4 | `questions`: rows that are questions and paraphrases, u32 |
//! | 4 × questions | for each of these its entry, counted from 0, u32 |
//! | 4 × dim × questions | for each of these its unit vector, f32 |
//! | 4 × dim × entries | for each entry the unit vector of its answer, f32 |

use protocol::digest::Digest;

use crate::pooling::dot;

const MAGIC: &[u8; 8] = b"SOCLEIX2";
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
    entry_of_question: Vec<u32>,
    /// Of the questions, then of the answers.
    rows: Vec<f32>,
}

/// How near a question is to an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosines {
    /// To the nearest of its questions.
    pub question: f32,
    /// To its answer.
    pub answer: f32,
}

/// The vectors of an index.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// Of questions, each with its entry counted from 0; at least one of each entry.
    pub questions: Vec<(usize, Vec<f32>)>,
    /// Of answers, one of each entry in their order.
    pub answers: Vec<Vec<f32>>,
}

/// Why bytes are not an index, or rows do not make one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IndexError {
    /// Not an index, or of another version.
    #[error("index does not begin with SOCLEIX2: build it again with `socle model pack`")]
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
    /// An entry that nothing leads to.
    #[error("index has no question of entry {entry}: build it again with `socle model pack`")]
    Entry {
        /// Counted from 0.
        entry: usize,
    },
}

impl Index {
    /// An index of unit vectors of `dim` numbers.
    ///
    /// # Errors
    /// A vector of another width, not of length 1, or of an entry that is not there; an entry without a question.
    pub fn new(
        faq: Digest,
        model: Digest,
        dim: usize,
        vectors: Vectors,
    ) -> Result<Self, IndexError> {
        let entries = vectors.answers.len();
        let mut entry_of_question = Vec::with_capacity(vectors.questions.len());
        for (row, (entry, _)) in vectors.questions.iter().enumerate() {
            let entry = u32::try_from(*entry)
                .map_err(|_| IndexError::Row { row, what: "leads to no entry" })?;
            entry_of_question.push(entry);
        }
        let questions = vectors.questions.into_iter().map(|(_, vector)| vector);
        let mut rows = Vec::new();
        for (row, vector) in questions.chain(vectors.answers).enumerate() {
            if vector.len() != dim {
                return Err(IndexError::Row { row, what: "has another width" });
            }
            rows.extend(vector);
        }
        let index = Self { faq, model, entries, dim, entry_of_question, rows };
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
        let (questions, rest) = take_u32(rest).ok_or_else(short)?;
        check_shape(questions, dim, entries)?;
        let body = 4 * (questions + dim * (questions + entries));
        if rest.len() != body {
            return Err(IndexError::Length { expected: HEADER_BYTES + body, found: bytes.len() });
        }
        let (entry_of_question, vectors) = rest.split_at(questions * 4);
        let index = Self {
            faq: Digest::from_bytes(*faq),
            model: Digest::from_bytes(*model),
            entries,
            dim,
            entry_of_question: words(entry_of_question).map(u32::from_le_bytes).collect(),
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
        for number in [self.dim, self.entries, self.entry_of_question.len()] {
            bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes.extend(self.entry_of_question.iter().flat_map(|entry| entry.to_le_bytes()));
        bytes.extend(self.rows.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    /// How near `question`, a unit vector of [`Index::dim`] numbers, is to each entry.
    pub fn cosines(&self, question: &[f32]) -> Vec<Cosines> {
        let mut cosines = vec![Cosines { question: -1.0, answer: -1.0 }; self.entries];
        let mut rows = self.rows.chunks_exact(self.dim);
        for (entry, row) in self.entry_of_question.iter().zip(rows.by_ref()) {
            if let Some(found) = cosines.get_mut(*entry as usize) {
                found.question = found.question.max(dot(question, row));
            }
        }
        for (found, row) in cosines.iter_mut().zip(rows) {
            found.answer = dot(question, row);
        }
        cosines
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
        check_shape(self.entry_of_question.len(), self.dim, self.entries)?;
        let mut reached = vec![false; self.entries];
        for (row, entry) in self.entry_of_question.iter().enumerate() {
            match reached.get_mut(*entry as usize) {
                Some(reached) => *reached = true,
                None => return Err(IndexError::Row { row, what: "leads to no entry" }),
            }
        }
        if let Some(entry) = reached.iter().position(|reached| !reached) {
            return Err(IndexError::Entry { entry });
        }
        for (row, vector) in self.rows.chunks_exact(self.dim).enumerate() {
            let length = dot(vector, vector).sqrt();
            if !((1.0 - LENGTH_TOLERANCE)..=(1.0 + LENGTH_TOLERANCE)).contains(&length) {
                return Err(IndexError::Row { row, what: "is not a unit vector" });
            }
        }
        Ok(())
    }
}

/// Whether there can be an index of so many questions and entries. More entries than questions there are never.
fn check_shape(rows: usize, dim: usize, entries: usize) -> Result<(), IndexError> {
    let possible = (1..=ROWS_MAX).contains(&rows)
        && (1..=DIM_MAX).contains(&dim)
        && (1..=rows).contains(&entries);
    if possible { Ok(()) } else { Err(IndexError::Shape { rows, dim, entries }) }
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

    fn vectors() -> Vectors {
        Vectors {
            questions: vec![(0, vec![1.0, 0.0]), (1, vec![0.0, 1.0]), (1, vec![0.6, 0.8])],
            answers: vec![vec![0.8, 0.6], vec![0.0, -1.0]],
        }
    }

    fn made(vectors: Vectors) -> Result<Index, IndexError> {
        Index::new(Digest::of(b"faq"), Digest::of(b"model"), 2, vectors)
    }

    fn sample() -> Index {
        made(vectors()).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Index::decode(&sample().encode()).unwrap(), sample());
    }

    #[test]
    fn a_question_is_compared_with_every_question_and_answer() {
        let found = sample().cosines(&[0.6, 0.8]);
        let expected = [(0.6, 0.96), (1.0, -0.8)];
        assert_eq!(found.len(), expected.len());
        for (found, (question, answer)) in found.iter().zip(expected) {
            assert!((found.question - question).abs() < 1e-6, "{found:?}");
            assert!((found.answer - answer).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn vectors_that_do_not_fit_are_refused() {
        let refused = |change: &dyn Fn(&mut Vectors)| {
            let mut vectors = vectors();
            change(&mut vectors);
            made(vectors).unwrap_err().to_string()
        };
        let none = refused(&|vectors| vectors.questions[0].0 = 1);
        assert!(none.starts_with("index has no question of entry 0"), "{none}");
        let nowhere = refused(&|vectors| vectors.questions[2].0 = 2);
        assert_eq!(nowhere, "index row 2 leads to no entry");
        assert_eq!(
            refused(&|vectors| vectors.answers[1] = vec![1.0]),
            "index row 4 has another width"
        );
        assert_eq!(
            refused(&|vectors| vectors.answers[0] = vec![1.0, 1.0]),
            "index row 3 is not a unit vector"
        );
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
            "index does not begin with SOCLEIX2: build it again with `socle model pack`"
        );
        assert_eq!(set(72, 3), "index is 136 bytes long, its header says 156");
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
        assert_eq!(set(132, f32::NAN.to_bits()), "index row 4 is not a unit vector");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Index::decode(&tail));
            drop(Index::decode(&[MAGIC.as_slice(), &tail].concat()));
        }
    }
}
