//! The names and files of a modelled disk, and the effects that a power cut keeps or loses one by one.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Content is lost or kept in pieces of this size, as by a disk that tears a larger write.
pub(crate) const SECTOR_BYTES: usize = 512;

/// Up to this many undurable effects, every subset is a state after the cut; above, a selection.
const EXHAUSTIVE: usize = 8;
/// Random subsets in a selection.
const DRAWN: usize = 24;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A folder.
    Folder,
    /// The file with this number.
    File(u64),
}

/// A file's content and permission bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    /// Content; shared until it is changed, since most files of most states are the same.
    pub(crate) bytes: Arc<Vec<u8>>,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Everything on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Names.
    pub(crate) names: BTreeMap<Arc<Path>, Node>,
    /// Files by number. One without a name is unreachable.
    pub(crate) files: BTreeMap<u64, Body>,
}

/// One effect, durable as a whole or not at all.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A name appears, changes or goes.
    Name {
        /// Name.
        path: Arc<Path>,
        /// What it stands for now.
        node: Option<Node>,
    },
    /// A file moves: both names change at once.
    Rename {
        /// Old name.
        from: Arc<Path>,
        /// New name.
        to: Arc<Path>,
        /// File.
        node: Node,
    },
    /// A file's length.
    Length {
        /// File.
        file: u64,
        /// Length.
        length: usize,
    },
    /// Up to one sector of content.
    Data {
        /// File.
        file: u64,
        /// Where.
        offset: usize,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A file's permission bits.
    Mode {
        /// File.
        file: u64,
        /// Bits.
        mode: u32,
    },
}

impl Change {
    /// Whether `later` decides alone what this change decided: then this one leaves no trace.
    pub(crate) fn is_covered_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Name { path, .. }, Self::Name { path: again, .. }) => path == again,
            (Self::Rename { to, .. }, Self::Name { path, .. }) => to == path,
            (Self::Rename { to, .. }, Self::Rename { to: again, .. }) => to == again,
            (Self::Name { path, .. }, Self::Rename { from, to, .. }) => path == from || path == to,
            (Self::Length { file, .. }, Self::Length { file: again, .. }) => file == again,
            (
                Self::Data { file, offset, bytes },
                Self::Data { file: again, offset: at, bytes: new },
            ) => file == again && offset == at && bytes.len() <= new.len(),
            (Self::Mode { file, .. }, Self::Mode { file: again, .. }) => file == again,
            (
                Self::Name { .. }
                | Self::Rename { .. }
                | Self::Length { .. }
                | Self::Data { .. }
                | Self::Mode { .. },
                _,
            ) => false,
        }
    }

    /// Whether a sync of the file `synced` makes it durable.
    pub(crate) fn is_of_file(&self, synced: u64) -> bool {
        match self {
            Self::Length { file, .. } | Self::Data { file, .. } | Self::Mode { file, .. } => {
                *file == synced
            }
            Self::Name { .. } | Self::Rename { .. } => false,
        }
    }

    /// Whether a sync of `folder` makes it durable.
    pub(crate) fn is_of_folder(&self, folder: &Path) -> bool {
        match self {
            Self::Name { path, .. } => path.parent() == Some(folder),
            Self::Rename { from, to, .. } => {
                from.parent() == Some(folder) || to.parent() == Some(folder)
            }
            Self::Length { .. } | Self::Data { .. } | Self::Mode { .. } => false,
        }
    }
}

impl Tree {
    /// The tree with `change` in it.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Name { path, node: Some(node) } => {
                self.names.insert(Arc::clone(path), *node);
            }
            Change::Name { path, node: None } => {
                self.names.remove(path);
            }
            Change::Rename { from, to, node } => {
                self.names.remove(from);
                self.names.insert(Arc::clone(to), *node);
            }
            Change::Length { file, length } => {
                Arc::make_mut(&mut self.files.entry(*file).or_default().bytes).resize(*length, 0);
            }
            Change::Data { file, offset, bytes } => {
                let content = Arc::make_mut(&mut self.files.entry(*file).or_default().bytes);
                // Content beyond a length that was lost is lost with it.
                for (i, byte) in bytes.iter().enumerate() {
                    if let Some(place) = content.get_mut(offset + i) {
                        *place = *byte;
                    }
                }
            }
            Change::Mode { file, mode } => self.files.entry(*file).or_default().mode = *mode,
        }
    }

    /// A name whose folder was lost is lost too, and so is a file without a name.
    pub(crate) fn drop_orphans(&mut self) {
        let mut kept: BTreeMap<Arc<Path>, Node> = BTreeMap::new();
        // Sorted by components: a folder comes before what is in it.
        for (path, node) in &self.names {
            let parent = path.parent().unwrap_or(Path::new("/"));
            let root = parent == Path::new("/") || parent == Path::new("");
            if root || kept.get(parent) == Some(&Node::Folder) {
                kept.insert(Arc::clone(path), *node);
            }
        }
        self.names = kept;
        self.forget_unnamed();
    }

    /// Bytes of all files that have a name.
    pub(crate) fn used_bytes(&self) -> u64 {
        let mut counted: Vec<u64> = self.names.values().filter_map(file_of).collect();
        counted.sort_unstable();
        counted.dedup();
        counted
            .iter()
            .filter_map(|file| self.files.get(file))
            .map(|body| body.bytes.len() as u64)
            .sum()
    }

    /// The same for two trees that no program could tell apart.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut ordinals: BTreeMap<u64, usize> = BTreeMap::new();
        for (path, node) in &self.names {
            path.hash(&mut hasher);
            match node {
                Node::Folder => 0_u8.hash(&mut hasher),
                Node::File(file) => {
                    let next = ordinals.len();
                    let ordinal = *ordinals.entry(*file).or_insert(next);
                    ordinal.hash(&mut hasher);
                    if ordinal == next
                        && let Some(body) = self.files.get(file)
                    {
                        hasher.write(&body.bytes);
                        body.mode.hash(&mut hasher);
                    }
                }
            }
        }
        hasher.finish()
    }

    /// Names in and below `folder`, itself included, deepest last.
    pub(crate) fn below(&self, folder: &Path) -> Vec<PathBuf> {
        let inside = self.names.keys().filter(|name| name.starts_with(folder));
        inside.map(|name| name.to_path_buf()).collect()
    }

    fn forget_unnamed(&mut self) {
        let mut named: Vec<u64> = self.names.values().filter_map(file_of).collect();
        named.sort_unstable();
        self.files.retain(|file, _| named.binary_search(file).is_ok());
    }
}

fn file_of(node: &Node) -> Option<u64> {
    match node {
        Node::File(file) => Some(*file),
        Node::Folder => None,
    }
}

/// Which of `n` effects survive: every subset of few; of many, every prefix, each one alone, all but each, and drawn ones.
pub(crate) fn subsets(n: usize, seed: u64) -> Vec<Vec<bool>> {
    let of = |chosen: &dyn Fn(usize) -> bool| (0..n).map(chosen).collect::<Vec<bool>>();
    if n <= EXHAUSTIVE {
        return (0..1_usize << n).map(|mask| of(&|i| mask >> i & 1 == 1)).collect();
    }
    let mut masks: Vec<Vec<bool>> = (0..=n).map(|end| of(&|i| i < end)).collect();
    masks.extend((0..n).map(|only| of(&|i| i == only)));
    masks.extend((0..n).map(|but| of(&|i| i != but)));
    let mut random = seed | 1;
    masks.extend((0..DRAWN).map(|_| {
        (0..n)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random & 1 == 1
            })
            .collect()
    }));
    masks
}

/// `sync_dir slots/*/release`: what was done, to which path, without slot, digest and version.
pub(crate) fn label(what: &str, path: &Path) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in path.iter().skip(2).map(|word| word.to_string_lossy()) {
        let hex = |text: &str| text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let object = hex(&word) && words.iter().any(|word| word == "store" || word == "objects");
        let slot = matches!(&*word, "a" | "b") && words.last().is_some_and(|word| word == "slots");
        let version = word.split_once('.').filter(|(n, _)| n.bytes().all(|b| b.is_ascii_digit()));
        words.push(match version {
            Some((_, rest)) => format!("N.{rest}"),
            None if object || slot => "*".to_owned(),
            None => word.into_owned(),
        });
    }
    match path.parent() {
        None => format!("{what} the root"),
        Some(_) if words.is_empty() => format!("{what} the state folder"),
        Some(_) => format!("{what} {}", words.join("/")),
    }
}

/// The label of a sync, `last` being that of the operation before: one slot's folder is synced for several reasons.
pub(crate) fn sync_label(what: &str, path: &Path, last: &str) -> String {
    let label = label(what, path);
    if !label.ends_with(" slots/*") {
        return label;
    }
    let when = match last {
        "remove slots/*/COMMITTED" => "its stamp goes",
        write if write.starts_with("write slots/*/release") => "it is filled",
        _ => "it is stamped",
    };
    format!("{label} when {when}")
}
