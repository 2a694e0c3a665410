//! Putting a finished folder into the cache: whole or not at all.

use std::io;
use std::path::Path;

/// Puts `whole` at `folder` with one rename; what stood there goes to `replaced`, which must be on
/// the same file system and is the caller's to delete.
#[expect(
    clippy::disallowed_methods,
    reason = "a cache that a power cut tears is fetched again: every file is checked on each use"
)]
pub(crate) fn put_in_place(whole: &Path, folder: &Path, replaced: &Path) -> io::Result<()> {
    if folder.exists() {
        std::fs::rename(folder, replaced)?;
    }
    std::fs::rename(whole, folder)
}

#[cfg(test)]
mod tests {
    use super::put_in_place;

    #[test]
    fn what_stood_there_is_replaced_as_a_whole() {
        let work = tempfile::tempdir().unwrap();
        let at = |name: &str| work.path().join(name);
        for (folder, file) in [("whole", "new"), ("folder", "old")] {
            std::fs::create_dir(at(folder)).unwrap();
            std::fs::File::create(at(folder).join(file)).unwrap();
        }
        put_in_place(&at("whole"), &at("folder"), &at("replaced")).unwrap();
        assert!(at("folder/new").exists() && !at("folder/old").exists());
    }
}
