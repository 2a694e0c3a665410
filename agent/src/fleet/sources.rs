//! Chunks that this machine has already: in the files of its slots, cut as the wanted object was cut.
//!
//! Whatever is found here is only a candidate: it is compared again when it is read, and the whole object is compared
//! with its signed digest in the end.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use protocol::{
    chunks::{self, Chunk, ChunkIndex, ChunkName},
    id::Slot,
};
use rustix::fs::OFlags;
use slots::{
    disk::{Disk, RealDisk},
    layout::StateDir,
};

/// Most files that are searched for one object.
const FILES_MAX: usize = 4;

/// Where the chunks of one object are on this machine.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<File>,
    found: HashMap<ChunkName, Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    file: usize,
    at: u64,
    length: u32,
}

impl Sources {
    /// Looks for the chunks of `index` in `candidates`. A file that cannot be read is left out.
    pub fn search(index: &ChunkIndex, candidates: &[PathBuf]) -> Self {
        let wanted: std::collections::HashSet<ChunkName> =
            index.chunks().iter().map(|chunk| chunk.name).collect();
        let mut sources = Self::default();
        let mut seen = BTreeSet::new();
        for path in candidates.iter().take(FILES_MAX) {
            let Some((file, identity)) = open(path) else { continue };
            if !seen.insert(identity) {
                continue;
            }
            let Ok(reading) = file.try_clone() else { continue };
            let number = sources.files.len();
            sources.files.push(file);
            let mut at = 0;
            for chunk in chunks::cut(reading, index.cut()) {
                let Ok(chunk) = chunk else { break };
                let name = ChunkName::of(&chunk);
                let length = chunk.len() as u32;
                if wanted.contains(&name) {
                    sources.found.entry(name).or_insert(Place { file: number, at, length });
                }
                at += u64::from(length);
            }
            if sources.found.len() == wanted.len() {
                break;
            }
        }
        sources
    }

    /// Whether `chunk` was found.
    pub fn has(&self, chunk: &Chunk) -> bool {
        self.found.get(&chunk.name).is_some_and(|place| place.length == chunk.length)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Reads `chunk` into `content`. False if it is not there any more; then it is forgotten.
    pub fn read(&mut self, chunk: &Chunk, content: &mut Vec<u8>) -> bool {
        content.resize(chunk.length as usize, 0);
        let read = self.found.get(&chunk.name).filter(|place| place.length == chunk.length);
        let read = read
            .and_then(|place| Some((self.files.get(place.file)?, place.at)))
            .is_some_and(|(file, at)| file.read_exact_at(content, at).is_ok());
        let genuine = read && ChunkName::of(content) == chunk.name;
        if !genuine {
            self.found.remove(&chunk.name);
        }
        genuine
    }
}

/// Files of the slots that the file `path` of a release may be a new version of: the same path first, else files of the
/// same name in other models.
pub fn candidates(state: &StateDir, path: &str) -> Vec<PathBuf> {
    let slots = Slot::BOTH.map(|slot| state.slot(slot));
    let same: Vec<PathBuf> =
        slots.iter().map(|slot| slot.file(path)).filter(|file| file.is_file()).collect();
    if !same.is_empty() {
        return same;
    }
    let Some(name) = Path::new(path).file_name() else { return vec![] };
    slots
        .iter()
        .flat_map(|slot| {
            let models = RealDisk.list(&slot.models()).unwrap_or_default();
            let folder = slot.models();
            models.into_iter().map(move |model| folder.join(model).join(name))
        })
        .filter(|file| file.is_file())
        .collect()
}

/// A regular file and what tells it from others.
fn open(path: &Path) -> Option<(File, (u64, u64))> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path).ok()?;
    let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some((file, (meta.dev(), meta.ino())))
}
