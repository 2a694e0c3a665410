//! The disks that are served: their content, their log, their faults, and what orders do to them.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;

use crate::blocks::{
    image::{Image, PIECE_BYTES, PastEnd},
    log::Log,
    orders::{Answer, Failing, Faults, Order},
};

const SAVE_BYTES: usize = 1 << 20;

/// All disks, and the history that cuts are made in.
#[derive(Debug)]
pub struct Shelf {
    drives: Vec<Mutex<Drive>>,
    history: Mutex<Arc<Log>>,
    pieces: usize,
}

/// One disk.
#[derive(Debug)]
pub struct Drive {
    image: Image,
    log: Option<Log>,
    faults: Option<Faults>,
}

/// Why a disk refuses.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// It was told to fail.
    #[error("the disk fails, as it was told to")]
    Fault,
    /// There is no such place.
    #[error("reading or writing where the disk is not")]
    PastEnd(#[source] PastEnd),
}

impl Shelf {
    /// `disks` empty disks of `bytes` bytes each.
    pub fn new(disks: usize, bytes: u64) -> anyhow::Result<Self> {
        let pieces = usize::try_from(bytes)? / PIECE_BYTES;
        let history = Mutex::new(Arc::new(Log::new(Image::new(0))));
        let drives = (0..disks).map(|_| Mutex::new(Drive::holding(Image::new(pieces))));
        Ok(Self { drives: drives.collect(), history, pieces })
    }

    /// Size of each disk, in bytes.
    pub const fn bytes(&self) -> u64 {
        (self.pieces * PIECE_BYTES) as u64
    }

    /// One disk, for as long as nobody else may use it.
    pub fn drive(&self, disk: usize) -> Option<MutexGuard<'_, Drive>> {
        Some(self.drives.get(disk)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does what is ordered.
    pub fn follow(&self, order: Order) -> Answer {
        self.done(order).unwrap_or_else(|error| Answer::Refused(format!("{error:#}")))
    }

    fn done(&self, order: Order) -> anyhow::Result<Answer> {
        let drive = |disk: usize| self.drive(disk).with_context(|| format!("no disk {disk}"));
        match order {
            Order::Blank { disk } => {
                *drive(disk)? = Drive::holding(Image::new(self.pieces));
                Ok(Answer::Done)
            }
            Order::Record { disk } => {
                let mut drive = drive(disk)?;
                drive.log = Some(Log::new(drive.image.clone()));
                Ok(Answer::Done)
            }
            Order::Length { disk } => {
                let drive = drive(disk)?;
                Ok(Answer::Length(drive.log.as_ref().context("nothing is recorded")?.len()))
            }
            Order::Finish { disk } => {
                let log = drive(disk)?.log.take().context("nothing is recorded")?;
                let shape = log.shape();
                *self.history() = Arc::new(log);
                Ok(Answer::Shape(shape))
            }
            Order::Load { disk, cut } => {
                let history = Arc::clone(&self.history());
                let left = history.after(&cut);
                *drive(disk)? = Drive::holding(left.image);
                Ok(Answer::Left { volatile: left.volatile, lost: left.lost })
            }
            Order::Fail { disk, faults } => {
                drive(disk)?.faults = faults;
                Ok(Answer::Done)
            }
            Order::Save { disk, path } => {
                let image = drive(disk)?.image.clone();
                save(&image, &path).with_context(|| format!("writing {}", path.display()))?;
                Ok(Answer::Done)
            }
        }
    }

    fn history(&self) -> MutexGuard<'_, Arc<Log>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drive {
    const fn holding(image: Image) -> Self {
        Self { image, log: None, faults: None }
    }

    /// Up to `length` bytes at `offset`: fewer at the end of the disk.
    pub fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, DriveError> {
        self.work(Failing::Reads)?;
        let there = self.image.bytes().saturating_sub(offset);
        let length = length.min(usize::try_from(there).unwrap_or(usize::MAX));
        self.image.read(offset.min(self.image.bytes()), length).map_err(DriveError::PastEnd)
    }

    /// Writes `bytes` at `offset`, and notes it.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DriveError> {
        self.work(Failing::Writes)?;
        let changed = self.image.write(offset, bytes).map_err(DriveError::PastEnd)?;
        if let Some(log) = &mut self.log {
            log.written(changed);
        }
        Ok(())
    }

    /// Notes that everything before is durable.
    pub fn flush(&mut self) -> Result<(), DriveError> {
        self.work(Failing::Writes)?;
        if let Some(log) = &mut self.log {
            log.flushed();
        }
        Ok(())
    }

    fn work(&mut self, request: Failing) -> Result<(), DriveError> {
        let Some(faults) = &mut self.faults else { return Ok(()) };
        if faults.failing != request && faults.failing != Failing::Both {
            return Ok(());
        }
        if faults.after > 0 {
            faults.after -= 1;
            return Ok(());
        }
        if faults.count > 0 {
            faults.count -= 1;
            return Err(DriveError::Fault);
        }
        Ok(())
    }
}

/// Only what is not zero is written, so that the file takes no more room than it must.
fn save(image: &Image, path: &Path) -> anyhow::Result<()> {
    let file = File::create_new(path)?;
    file.set_len(image.bytes())?;
    let mut at = 0;
    while at < image.bytes() {
        let part = image.read(at, SAVE_BYTES.min(usize::try_from(image.bytes() - at)?))?;
        if part.iter().any(|byte| *byte != 0) {
            file.write_all_at(&part, at)?;
        }
        at += part.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Shelf;
    use crate::blocks::{
        log::{Cache, Cut, Fate},
        orders::{Answer, Failing, Faults, Order},
    };

    fn cut(at: usize, fate: Fate) -> Cut {
        Cut { at, cache: Cache::Honest, fate, seed: 1 }
    }

    #[test]
    fn a_cut_of_what_one_disk_was_asked_is_put_on_another() {
        let shelf = Shelf::new(2, 8192).unwrap();
        shelf.drive(0).unwrap().write(0, b"before").unwrap();
        assert_eq!(shelf.follow(Order::Record { disk: 0 }), Answer::Done);
        shelf.drive(0).unwrap().write(0, b"first").unwrap();
        shelf.drive(0).unwrap().flush().unwrap();
        shelf.drive(0).unwrap().write(0, b"other").unwrap();
        assert_eq!(shelf.follow(Order::Length { disk: 0 }), Answer::Length(3));
        let Answer::Shape(shape) = shelf.follow(Order::Finish { disk: 0 }) else { panic!() };
        assert_eq!((shape.entries, shape.flushes), (3, vec![1]));
        for (at, fate, expected) in [
            (0, Fate::Kept, b"before"),
            (1, Fate::Lost, b"before"),
            (2, Fate::Lost, b"firste"),
            (3, Fate::Lost, b"firste"),
            (3, Fate::Kept, b"othere"),
        ] {
            shelf.follow(Order::Load { disk: 1, cut: cut(at, fate) });
            assert_eq!(shelf.drive(1).unwrap().read(0, 6).unwrap(), expected, "{at} {fate:?}");
        }
        assert!(matches!(shelf.follow(Order::Finish { disk: 0 }), Answer::Refused(_)));
        assert!(matches!(shelf.follow(Order::Blank { disk: 2 }), Answer::Refused(_)));
    }

    #[test]
    fn faults_begin_and_end_where_they_were_told_to() {
        let shelf = Shelf::new(1, 4096).unwrap();
        let faults = Some(Faults { failing: Failing::Writes, after: 1, count: 2 });
        shelf.follow(Order::Fail { disk: 0, faults });
        let mut drive = shelf.drive(0).unwrap();
        drive.write(0, b"a").unwrap();
        drive.read(0, 1).unwrap();
        assert!(drive.write(0, b"b").is_err());
        assert!(drive.flush().is_err());
        drive.write(0, b"c").unwrap();
        assert_eq!(drive.read(0, 2).unwrap(), b"c\0");
    }

    #[test]
    fn a_read_ends_at_the_end_of_the_disk() {
        let shelf = Shelf::new(1, 4096).unwrap();
        let mut drive = shelf.drive(0).unwrap();
        assert_eq!(drive.read(4000, 4096).unwrap().len(), 96);
        assert_eq!(drive.read(9000, 10).unwrap().len(), 0);
        assert!(drive.write(4000, &[0; 100]).is_err());
    }
}
