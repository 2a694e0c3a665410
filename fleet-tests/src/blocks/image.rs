//! The content of a disk, in memory: pieces of 4 KiB that images share, so that a copy costs a list of pointers.

use std::sync::Arc;

/// Size of one piece, in bytes; also the block size of the file system on it.
pub const PIECE_BYTES: usize = 4096;
/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// The content of one piece.
pub type Piece = [u8; PIECE_BYTES];

/// A disk's content. Its size is set once and never changes.
#[derive(Clone, Debug)]
pub struct Image {
    /// What was never written is zero.
    pieces: Vec<Option<Arc<Piece>>>,
}

/// Nothing lies past the end of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at {offset} reach past the end of the disk, which is at {bytes}")]
pub struct PastEnd {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: usize,
    /// Where the disk ends.
    pub bytes: u64,
}

impl Image {
    /// An empty disk of `pieces` pieces.
    pub fn new(pieces: usize) -> Self {
        Self { pieces: vec![None; pieces] }
    }

    /// Its size, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.pieces.len() * PIECE_BYTES) as u64
    }

    /// `length` bytes at `offset`.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, PastEnd> {
        let mut at = self.inside(offset, length)?;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let (piece, from) = (at / PIECE_BYTES, at % PIECE_BYTES);
            let here = (length - bytes.len()).min(PIECE_BYTES - from);
            match &self.pieces[piece] {
                Some(content) => bytes.extend_from_slice(&content[from..from + here]),
                None => bytes.resize(bytes.len() + here, 0),
            }
            at += here;
        }
        Ok(bytes)
    }

    /// Writes `bytes` at `offset`; gives each piece that it changed, as it is now, in order.
    pub fn write(
        &mut self,
        offset: u64,
        mut bytes: &[u8],
    ) -> Result<Vec<(usize, Arc<Piece>)>, PastEnd> {
        let mut at = self.inside(offset, bytes.len())?;
        let mut changed = Vec::with_capacity(bytes.len().div_ceil(PIECE_BYTES) + 1);
        while !bytes.is_empty() {
            let (piece, from) = (at / PIECE_BYTES, at % PIECE_BYTES);
            let (here, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES - from));
            let mut content = self.piece(piece);
            content[from..from + here.len()].copy_from_slice(here);
            let content = Arc::new(content);
            self.set(piece, Arc::clone(&content));
            changed.push((piece, content));
            at += here.len();
            bytes = rest;
        }
        Ok(changed)
    }

    /// Replaces one piece.
    pub fn set(&mut self, piece: usize, content: Arc<Piece>) {
        self.pieces[piece] = Some(content);
    }

    /// Replaces the first `sectors` sectors of one piece: a write that power was cut in.
    pub fn tear(&mut self, piece: usize, content: &Piece, sectors: usize) {
        let mut torn = self.piece(piece);
        let bytes = (sectors * SECTOR_BYTES).min(PIECE_BYTES);
        torn[..bytes].copy_from_slice(&content[..bytes]);
        self.set(piece, Arc::new(torn));
    }

    fn piece(&self, piece: usize) -> Piece {
        self.pieces[piece].as_deref().copied().unwrap_or([0; PIECE_BYTES])
    }

    fn inside(&self, offset: u64, length: usize) -> Result<usize, PastEnd> {
        let past = PastEnd { offset, length, bytes: self.bytes() };
        let at = usize::try_from(offset).map_err(|_| past)?;
        match at.checked_add(length) {
            Some(end) if end <= self.pieces.len() * PIECE_BYTES => Ok(at),
            Some(_) | None => Err(past),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Image, PIECE_BYTES};

    #[test]
    fn what_is_written_across_pieces_is_read_back_and_the_rest_is_zero() {
        let mut image = Image::new(3);
        let text: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
        let changed = image.write(4000, &text).unwrap();
        assert_eq!(changed.iter().map(|(piece, _)| *piece).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(image.read(4000, 5000).unwrap(), text);
        assert_eq!(image.read(0, 4000).unwrap(), vec![0; 4000]);
        assert_eq!(image.read(9000, 3 * PIECE_BYTES - 9000).unwrap(), vec![0; 3288]);
    }

    #[test]
    fn nothing_is_read_or_written_past_the_end() {
        let mut image = Image::new(1);
        assert!(image.read(1, PIECE_BYTES).is_err());
        assert!(image.write(4095, b"ab").is_err());
        assert!(image.read(u64::MAX, 1).is_err());
        assert_eq!(image.bytes(), 4096);
    }

    #[test]
    fn a_copy_does_not_see_later_writes() {
        let mut image = Image::new(1);
        image.write(0, b"old").unwrap();
        let copy = image.clone();
        image.write(0, b"new").unwrap();
        assert_eq!(copy.read(0, 3).unwrap(), b"old");
        assert_eq!(image.read(0, 3).unwrap(), b"new");
    }

    #[test]
    fn a_torn_piece_holds_new_sectors_and_then_old_ones() {
        let mut image = Image::new(1);
        image.write(0, &[1; PIECE_BYTES]).unwrap();
        image.tear(0, &[2; PIECE_BYTES], 3);
        let content = image.read(0, PIECE_BYTES).unwrap();
        assert!(content[..1536].iter().all(|byte| *byte == 2));
        assert!(content[1536..].iter().all(|byte| *byte == 1));
    }
}
