//! Content-defined chunks: how an object is cut so that a changed one moves only where it changed.
//!
//! A chunk index says into which chunks the publisher cut an object, in order. A device cuts what it has in the same way,
//! copies the chunks that it knows and fetches the others. Nothing here is trusted for content: the signed digest of the
//! whole object decides, and an index that lies costs a full download, no more.
//!
//! The index holds lengths and no positions, so chunks can neither overlap nor leave a gap nor reach outside.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use fastcdc::v2020::StreamCDC;
use serde::{Deserialize, Serialize};

use crate::{
    blob::Blob,
    cbor::{self, DecodeError, EncodeError},
    digest::Digest,
};

/// Format this code writes and reads.
const SCHEMA: u32 = 1;
/// Most chunks of one object.
pub const CHUNKS_MAX: usize = 1 << 18;
/// Largest chunk index, in bytes.
pub const INDEX_BYTES_MAX: usize = 8 << 20;
/// Smaller objects are not worth an index.
pub const CHUNKED_BYTES_MIN: u64 = 64 * 1024;

/// Average chunks are at least this large …
const AVERAGE_MIN: u64 = 4 * 1024;
/// … and no larger than this, unless the object would have more than [`CHUNKS_AIM`] of them.
const AVERAGE_USUAL_MAX: u64 = 64 * 1024;
/// Chunks that a small object is cut into.
const CHUNKS_SMALL: u64 = 512;
/// Chunks that a large object is cut into.
const CHUNKS_AIM: u64 = 1 << 16;
/// Largest average that the cutter takes.
const AVERAGE_MAX: u64 = 4 << 20;
/// The smallest chunk is this much smaller than the average, the largest this much larger.
const SPREAD: u32 = 4;

/// What a chunk is found by: the first 16 bytes of its SHA-256. It finds, it does not prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName([u8; 16]);

/// The sizes by which an object is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Smallest chunk in bytes, but for the last.
    min: u32,
    /// Average, in bytes: a power of two.
    average: u32,
    /// Largest chunk in bytes.
    max: u32,
}

/// One chunk of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What it is found by.
    pub name: ChunkName,
    /// Where it begins in the object.
    pub at: u64,
    /// Its length there.
    pub length: u32,
    /// Where it begins in what travels: the pack if there is one, else the object.
    pub packed_at: u64,
    /// Its length there; 0 if it is the same as an earlier chunk, which is where it is copied from.
    pub packed: u32,
    /// Where in the object that earlier chunk begins.
    pub same_as: Option<u64>,
}

/// A chunk index that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkIndex {
    cut: Cut,
    chunks: Vec<Chunk>,
}

/// The lengths that a manifest signs, against which an index is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Of the object.
    pub object: u64,
    /// Of its pack, if there is one.
    pub pack: Option<u64>,
}

/// Why an index is of no use.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not an index.
    #[error("reading the chunk index")]
    Content(#[source] DecodeError),
    /// A newer format.
    #[error("the chunk index has schema {0}; this version reads schema {SCHEMA}")]
    Schema(u32),
    /// Sizes that no cutter takes.
    #[error("the chunk index was cut by sizes that are not taken: {0:?}")]
    Cut(Cut),
    /// Too many chunks, none, or columns of different lengths.
    #[error("the chunk index has {names} names, {lengths} lengths and {packed} packed lengths")]
    Count {
        /// Names, in bytes divided by 16.
        names: usize,
        /// Lengths.
        lengths: usize,
        /// Packed lengths.
        packed: usize,
    },
    /// A chunk out of bounds.
    #[error("chunk {0} of the index is empty, too large, or packed into more than it is")]
    Chunk(usize),
    /// The chunks are not the object.
    #[error("the chunks add up to {found:?}, signed are {signed:?}")]
    Sum {
        /// Signed.
        signed: Lengths,
        /// What the chunks add up to.
        found: Lengths,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema: u32,
    cut: Cut,
    names: Blob,
    lengths: Vec<u32>,
    packed: Vec<u32>,
}

impl ChunkName {
    const BYTES: usize = 16;

    /// The name of a chunk with this content.
    pub fn of(content: &[u8]) -> Self {
        let digest = Digest::of(content);
        let mut name = [0; Self::BYTES];
        name.copy_from_slice(&digest.as_bytes()[..Self::BYTES]);
        Self(name)
    }
}

impl Cut {
    /// The sizes for an object of `length` bytes: small chunks for small objects, never more than an index holds.
    pub fn for_length(length: u64) -> Self {
        let small =
            (length / CHUNKS_SMALL).next_power_of_two().clamp(AVERAGE_MIN, AVERAGE_USUAL_MAX);
        let large = length.div_ceil(CHUNKS_AIM).next_power_of_two().min(AVERAGE_MAX);
        let average = u32::try_from(small.max(large)).unwrap_or(u32::MAX);
        Self { min: average / SPREAD, average, max: average.saturating_mul(SPREAD) }
    }

    /// Largest chunk in bytes.
    pub const fn max(self) -> u32 {
        self.max
    }

    /// Holds for the sizes that [`Cut::for_length`] gives and no others: a cutter is never run on strange ones.
    fn is_ours(self) -> bool {
        let average = u64::from(self.average);
        self.average.is_power_of_two()
            && (AVERAGE_MIN..=AVERAGE_MAX).contains(&average)
            && self.min == self.average / SPREAD
            && Some(self.max) == self.average.checked_mul(SPREAD)
    }
}

/// Cuts what `content` gives; each item is the next chunk's bytes. At most two of the largest are held at a time.
pub fn cut<R: Read>(content: R, cut: Cut) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    let size = |size: u32| size as usize;
    StreamCDC::new(content, size(cut.min), size(cut.average), size(cut.max))
        .map(|chunk| chunk.map(|chunk| chunk.data).map_err(io::Error::from))
}

impl ChunkIndex {
    /// Reads an index whose digest was checked, and holds it against the signed lengths.
    pub fn read(bytes: &[u8], signed: Lengths) -> Result<Self, IndexError> {
        let written: Written = cbor::decode(bytes, INDEX_BYTES_MAX).map_err(IndexError::Content)?;
        if written.schema != SCHEMA {
            return Err(IndexError::Schema(written.schema));
        }
        if !written.cut.is_ours() {
            return Err(IndexError::Cut(written.cut));
        }
        let names = written.names.as_slice();
        let (count, packed) = (written.lengths.len(), written.packed.len());
        let expected = if signed.pack.is_some() { count } else { 0 };
        if !(1..=CHUNKS_MAX).contains(&count)
            || names.len() != count * ChunkName::BYTES
            || packed != expected
        {
            let names = names.len() / ChunkName::BYTES;
            return Err(IndexError::Count { names, lengths: count, packed });
        }
        let mut seen = HashMap::new();
        let mut chunks = Vec::with_capacity(count);
        let (mut at, mut packed_at) = (0_u64, 0_u64);
        for (number, (name, length)) in
            names.chunks_exact(ChunkName::BYTES).zip(&written.lengths).enumerate()
        {
            let name = ChunkName(name.try_into().map_err(|_| IndexError::Chunk(number))?);
            let same_as = seen.get(&(name, *length)).copied();
            let packed = written.packed.get(number).copied();
            // Without a pack a chunk travels as it is, from where it lies.
            let travels = packed.unwrap_or(*length);
            let repeated = packed.is_some() && same_as.is_some();
            if *length == 0
                || *length > written.cut.max
                || travels > *length
                || (travels == 0) != repeated
            {
                return Err(IndexError::Chunk(number));
            }
            chunks.push(Chunk { name, at, length: *length, packed_at, packed: travels, same_as });
            seen.entry((name, *length)).or_insert(at);
            at += u64::from(*length);
            packed_at += u64::from(travels);
        }
        let found = Lengths { object: at, pack: signed.pack.map(|_| packed_at) };
        if found == signed {
            Ok(Self { cut: written.cut, chunks })
        } else {
            Err(IndexError::Sum { signed, found })
        }
    }

    /// How the object was cut.
    pub const fn cut(&self) -> Cut {
        self.cut
    }

    /// The chunks in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }
}

/// Makes an index, chunk by chunk.
#[derive(Debug)]
pub struct IndexWriter {
    cut: Cut,
    names: Vec<u8>,
    lengths: Vec<u32>,
    packed: Vec<u32>,
    seen: HashMap<(ChunkName, u32), ()>,
}

impl IndexWriter {
    /// An index of an object that is cut so.
    pub fn new(cut: Cut) -> Self {
        Self { cut, names: vec![], lengths: vec![], packed: vec![], seen: HashMap::new() }
    }

    /// Whether the same chunk came before: then it is packed into nothing.
    pub fn knows(&self, name: ChunkName, length: u32) -> bool {
        self.seen.contains_key(&(name, length))
    }

    /// Adds the next chunk; `packed` is its length in the pack, 0 if it is known.
    pub fn push(&mut self, name: ChunkName, length: u32, packed: u32) {
        self.names.extend(name.0);
        self.lengths.push(length);
        self.packed.push(packed);
        self.seen.insert((name, length), ());
    }

    /// The index of an object that travels as a pack.
    pub fn with_pack(self) -> Result<Vec<u8>, EncodeError> {
        let Self { cut, names, lengths, packed, .. } = self;
        cbor::encode(&Written { schema: SCHEMA, cut, names: Blob::from(names), lengths, packed })
    }

    /// The index of an object that travels as it is.
    pub fn without_pack(self) -> Result<Vec<u8>, EncodeError> {
        Self { packed: vec![], ..self }.with_pack()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that look like nothing in particular.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect()
    }

    /// The index of `content`, each chunk "packed" to three quarters.
    fn index(content: &[u8]) -> (Vec<u8>, Lengths) {
        let sizes = Cut::for_length(content.len() as u64);
        let mut writer = IndexWriter::new(sizes);
        let mut pack = 0;
        for chunk in cut(content, sizes) {
            let chunk = chunk.unwrap();
            let (name, length) = (ChunkName::of(&chunk), chunk.len() as u32);
            let packed = if writer.knows(name, length) { 0 } else { length.div_ceil(4) * 3 };
            let packed = packed.min(length);
            pack += u64::from(packed);
            writer.push(name, length, packed);
        }
        let lengths = Lengths { object: content.len() as u64, pack: Some(pack) };
        (writer.with_pack().unwrap(), lengths)
    }

    #[test]
    fn sizes_are_even_powers_and_no_object_has_too_many_chunks() {
        for length in [0, 1, 65_536, 1 << 20, 23 << 20, 1 << 30, 4 << 30, 5 << 30, 1 << 38] {
            let cut = Cut::for_length(length);
            assert!(cut.is_ours(), "{length}: {cut:?}");
            assert!(length / u64::from(cut.min) <= CHUNKS_MAX as u64, "{length}: {cut:?}");
        }
        assert_eq!(Cut::for_length(300_000).average, 4096);
        assert_eq!(Cut::for_length(4 << 30).average, 65_536);
        assert_eq!(Cut::for_length(8 << 30).average, 131_072);
    }

    #[test]
    fn an_insertion_changes_the_chunks_around_it_alone() {
        let old = noise(1, 2_000_000);
        let mut new = old.clone();
        new.splice(1_000_000..1_000_000, *b"inserted");
        let sizes = Cut::for_length(2_000_000);
        let names = |content: &[u8]| -> Vec<ChunkName> {
            cut(content, sizes).map(|chunk| ChunkName::of(&chunk.unwrap())).collect()
        };
        let (old, new) = (names(&old), names(&new));
        let changed = new.iter().filter(|name| !old.contains(name)).count();
        assert!(old.len() > 200 && changed <= 3, "{changed} of {}", old.len());
    }

    #[test]
    fn a_repeated_chunk_says_where_it_was() {
        let piece = noise(7, 300_000);
        let content = [piece.clone(), piece].concat();
        let (bytes, lengths) = index(&content);
        let index = ChunkIndex::read(&bytes, lengths).unwrap();
        let repeated: Vec<&Chunk> = index.chunks().iter().filter(|c| c.packed == 0).collect();
        assert!(repeated.len() > 30, "{}", repeated.len());
        for chunk in repeated {
            let (from, to) = (chunk.same_as.unwrap() as usize, chunk.at as usize);
            let length = chunk.length as usize;
            assert_eq!(content[from..from + length], content[to..to + length]);
        }
    }

    #[test]
    fn an_index_that_lies_is_refused() {
        let (bytes, lengths) = index(&noise(3, 200_000));
        assert!(ChunkIndex::read(&bytes, lengths).is_ok());
        let read = |change: fn(&mut Written), lengths: Lengths| {
            let mut written: Written = cbor::decode(&bytes, INDEX_BYTES_MAX).unwrap();
            change(&mut written);
            ChunkIndex::read(&cbor::encode(&written).unwrap(), lengths).unwrap_err().to_string()
        };
        type Change = fn(&mut Written);
        let cases: [(Change, &str); 10] = [
            (|w| w.schema = 2, "schema 2"),
            (|w| w.cut.max = u32::MAX, "sizes that are not taken"),
            (|w| w.cut.average = 3 * 4096, "sizes that are not taken"),
            (|w| (w.cut.min, w.cut.average, w.cut.max) = (64, 256, 1024), "sizes that are not"),
            (|w| w.lengths.truncate(1), "names"),
            (|w| w.packed.clear(), "0 packed"),
            (|w| w.lengths[0] = 0, "chunk 0"),
            (|w| w.lengths[1] = u32::MAX, "chunk 1"),
            (|w| w.packed[2] = w.lengths[2] + 1, "chunk 2"),
            (|w| w.packed[3] = 0, "chunk 3"),
        ];
        for (change, expected) in cases {
            let said = read(change, lengths);
            assert!(said.contains(expected), "{said}");
        }
        for wrong in [
            Lengths { object: lengths.object - 1, ..lengths },
            Lengths { pack: lengths.pack.map(|length| length + 1), ..lengths },
        ] {
            assert!(read(|_| {}, wrong).contains("add up to"));
        }
        assert!(read(|_| {}, Lengths { pack: None, ..lengths }).contains("packed"));
    }

    #[test]
    fn the_written_form_is_the_documented_one() {
        let mut writer = IndexWriter::new(Cut::for_length(0));
        writer.push(ChunkName([0xab; 16]), 5, 3);
        let bytes = writer.with_pack().unwrap();
        let hex = data_encoding::HEXLOWER.encode(&bytes);
        let expected = "a5000101a30019040001191000021940000250abababababababababababababababab0381050481\
                        03";
        assert_eq!(hex, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn chunks_put_together_are_the_object(seed: u64, length in 0_usize..400_000) {
            let content = noise(seed, length);
            let sizes = Cut::for_length(length as u64);
            let chunks: Vec<Vec<u8>> =
                cut(content.as_slice(), sizes).collect::<io::Result<_>>().unwrap();
            prop_assert!(chunks.iter().all(|c| c.len() <= sizes.max as usize && !c.is_empty()));
            prop_assert_eq!(chunks.concat(), content);
        }

        #[test]
        fn a_flipped_bit_never_panics_and_sums_stay_signed(
            seed: u64, at: proptest::sample::Index, bit in 0_u8..8,
        ) {
            let (mut bytes, lengths) = index(&noise(seed, 100_000));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(read) = ChunkIndex::read(&bytes, lengths) {
                let mut end = 0;
                for chunk in read.chunks() {
                    prop_assert_eq!(chunk.at, end);
                    end += u64::from(chunk.length);
                }
                prop_assert_eq!(end, lengths.object);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(ChunkIndex::read(&bytes, Lengths { object: 10, pack: None }));
        }
    }
}
