//! Filling a file while its content is still being read: whoever reads may hash meanwhile, and the disk is not waited for
//! until the end.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
};

const PIECE_BYTES: usize = 1 << 20;
/// Pieces that are on their way from the reader to the disk.
const PIECES: usize = 4;
/// Bytes after which the disk is told to begin.
const FLUSH_BYTES: usize = 64 << 20;

/// Writes all that `content` gives into `file`; returns how much that was. Memory: a few pieces, however much it is.
pub fn fill(file: &File, content: &mut dyn Read) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_BYTES];
    let first = read_full(content, &mut piece)?;
    if first < PIECE_BYTES {
        let mut file = file;
        return file.write_all(piece.get(..first).unwrap_or_default()).map(|()| first as u64);
    }
    let (full_sender, full) = sync_channel(PIECES);
    let (empty_sender, empty) = sync_channel(PIECES);
    let (flush_sender, flush) = sync_channel(1);
    thread::scope(|scope| {
        scope.spawn(move || flusher(file, &flush));
        let writer = scope.spawn(move || writer(file, &full, &empty_sender, &flush_sender));
        let read = reader(content, (piece, first), &full_sender, &empty);
        drop(full_sender);
        match (read, writer.join()) {
            (Err(error), _) | (Ok(_), Ok(Err(error))) => Err(error),
            (Ok(length), Ok(Ok(()))) => Ok(length),
            (Ok(_), Err(_)) => Err(io::Error::other("the writing thread panicked")),
        }
    })
}

type Piece = (Vec<u8>, usize);

/// Reads to the end, or until nobody writes any more: the writer says why.
fn reader(
    content: &mut dyn Read,
    first: Piece,
    full: &SyncSender<Piece>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<u64> {
    let (mut made, mut length) = (1, 0);
    let mut next = first;
    loop {
        length += next.1 as u64;
        let last = next.1 < PIECE_BYTES;
        if full.send(next).is_err() || last {
            return Ok(length);
        }
        let spare = if made < PIECES { empty.try_recv().ok() } else { empty.recv().ok() };
        let mut piece = match spare {
            Some(piece) => piece,
            None if made < PIECES => {
                made += 1;
                vec![0; PIECE_BYTES]
            }
            None => return Ok(length),
        };
        let count = read_full(content, &mut piece)?;
        next = (piece, count);
    }
}

fn writer(
    mut file: &File,
    full: &Receiver<Piece>,
    empty: &SyncSender<Vec<u8>>,
    flush: &SyncSender<()>,
) -> io::Result<()> {
    let mut waiting = 0;
    for (piece, count) in full {
        file.write_all(piece.get(..count).unwrap_or_default())?;
        waiting += count;
        if waiting >= FLUSH_BYTES {
            match flush.try_send(()) {
                Ok(()) => waiting = 0,
                // It is at it still.
                Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
        // The reader may have ended.
        drop(empty.send(piece));
    }
    Ok(())
}

/// Lets the disk begin early. Its errors come again when the caller syncs the file.
fn flusher(file: &File, flush: &Receiver<()>) {
    for () in flush {
        drop(file.sync_data());
    }
}

/// Fills `piece` unless the content ends before.
fn read_full(content: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = piece.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match content.read(rest) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order_whatever_its_size() {
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 9 * PIECE_BYTES + 17] {
            let content: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x");
            let written = fill(&File::create(&path).unwrap(), &mut content.as_slice()).unwrap();
            assert_eq!(written, length as u64);
            assert!(std::fs::read(&path).unwrap() == content, "{length}");
        }
    }

    #[test]
    fn an_error_of_either_side_comes_back() {
        struct Breaks(usize);
        impl Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.checked_sub(1) {
                    None => Err(io::Error::other("broken")),
                    Some(left) => {
                        self.0 = left;
                        Ok(buffer.len())
                    }
                }
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let file = File::create(&path).unwrap();
        for pieces in [0, 1, 9] {
            assert_eq!(fill(&file, &mut Breaks(pieces)).unwrap_err().to_string(), "broken");
        }
        let read_only = File::open(&path).unwrap();
        assert!(fill(&read_only, &mut Breaks(100)).is_err());
        if let Ok(full) = File::options().write(true).open("/dev/full") {
            let refused = fill(&full, &mut io::repeat(1)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        }
    }
}
