//! Archives that hold something else than one executable. Each is signed: its maker, or who bribed them, is the attacker.

use std::{fs, io::Write as _, os::unix::fs::MetadataExt as _, path::Path};

use fleet_tests::release::{PackedAgent, Recipe, build};
use protocol::digest::Digest;
use tar::{Builder, EntryType, Header};

use crate::device::{NOW, Rig};

/// An executable that the device does not have yet, and an attacker could point to.
const NEW: &str = "/bin/ls";

/// A genuine release whose archive is `archive`, and which says that `agent` comes out of it.
fn tried(archive: Vec<u8>, agent: &[u8]) -> Rig {
    let mut rig = Rig::new();
    let before = rig.active();
    let outside = rig.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let packed = PackedAgent { archive, sha256: Digest::of(agent), length: agent.len() as u64 };
    let release = build(&rig.keys, Recipe { agent: packed, ..Rig::recipe(2) }).unwrap();
    rig.stage(&release);
    rig.run_at(NOW);
    rig.stayed(before, "");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was written outside");
    let left = rig.tree(rig.device.dir.root());
    let strange = left.keys().find(|path| path.contains("evil"));
    assert_eq!(strange, None);
    // The next genuine release goes in.
    let three = rig.release(3);
    rig.commit(&three);
    rig
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_mtime(0);
    header
}

/// An archive of one entry whose name is written as it is, whatever it says.
fn one(name: &str, kind: EntryType, link: Option<&str>, content: &[u8]) -> Vec<u8> {
    let mut header = header(kind, content.len() as u64);
    let bytes = &mut header.as_old_mut().name;
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    if let Some(link) = link {
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, content).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_symbolic_link_in_the_place_of_the_executable() {
    let agent = fs::read(NEW).unwrap();
    tried(one("socle-agent", EntryType::Symlink, Some(NEW), &[]), &agent);
    tried(one("socle-agent", EntryType::Symlink, Some("../../evil"), &[]), &agent);
}

#[test]
fn a_hard_link_in_the_place_of_the_executable() {
    let agent = fs::read(NEW).unwrap();
    tried(one("socle-agent", EntryType::Link, Some(NEW), &[]), &agent);
}

#[test]
fn a_device_or_a_pipe_in_the_place_of_the_executable() {
    for kind in [EntryType::Fifo, EntryType::Char, EntryType::Block, EntryType::Directory] {
        tried(one("socle-agent", kind, None, &[]), b"agent");
    }
}

#[test]
fn a_name_that_leaves_the_folder() {
    for name in ["../evil", "../../evil", "a/../../evil", "/evil", "socle-agent/../../evil"] {
        tried(one(name, EntryType::Regular, None, b"evil"), b"evil");
    }
}

#[test]
fn a_link_that_a_second_entry_writes_through() {
    let rig = tempfile::tempdir().unwrap();
    let target = rig.path().join("evil-target");
    let mut builder = Builder::new(Vec::new());
    let mut link = header(EntryType::Symlink, 0);
    builder.append_link(&mut link, "socle-agent", &target).unwrap();
    let content = fs::read(NEW).unwrap();
    let mut file = header(EntryType::Regular, content.len() as u64);
    builder.append_data(&mut file, "socle-agent", content.as_slice()).unwrap();
    tried(builder.into_inner().unwrap(), b"another");
    assert!(!target.exists());
}

#[test]
fn a_bomb_that_unpacks_to_more_than_is_signed() {
    // A sparse entry: half a kilobyte that says it is a terabyte.
    let mut header = header(EntryType::GNUSparse, 512);
    header.set_path("socle-agent").unwrap();
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_is_extended(false);
    gnu.realsize.copy_from_slice(b"000000000000");
    let size: u64 = 1 << 40;
    gnu.realsize[0] = 0x80;
    gnu.realsize[4..].copy_from_slice(&size.to_be_bytes());
    gnu.sparse[0].offset[0] = 0x80;
    gnu.sparse[0].offset[4..].copy_from_slice(&(size - 512).to_be_bytes());
    gnu.sparse[0].numbytes.copy_from_slice(b"00000001000\0");
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, [0; 512].as_slice()).unwrap();
    let rig = tried(builder.into_inner().unwrap(), &fs::read(NEW).unwrap());
    let blocks: u64 = rig
        .tree(rig.folder.path())
        .keys()
        .map(|path| Path::new(path).symlink_metadata().unwrap().blocks() * 512)
        .sum();
    assert!(blocks < 64 << 20, "{blocks} bytes are on the disk");
}

#[test]
fn a_compressed_bomb() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        gzip.write_all(&zeros).unwrap();
    }
    tried(gzip.finish().unwrap(), b"agent");
}

#[test]
fn a_truncated_archive() {
    let whole = PackedAgent::pack(Path::new(NEW)).unwrap();
    let agent = fs::read(NEW).unwrap();
    for part in [0, 1, 511, 512, 600, whole.archive.len() / 2] {
        tried(whole.archive[..part.min(whole.archive.len())].to_vec(), &agent);
    }
}

#[test]
fn another_executable_than_signed() {
    let whole = PackedAgent::pack(Path::new("/bin/false")).unwrap();
    let agent = fs::read(NEW).unwrap();
    tried(whole.archive, &agent);
}

#[test]
fn an_object_altered_in_the_staging_area() {
    let mut rig = Rig::new();
    let before = rig.active();
    let two = rig.release(2);
    for digest in two.objects.keys() {
        let mut bent = two.clone();
        let content = bent.objects.get_mut(digest).unwrap();
        let at = content.len() / 2;
        content[at] ^= 1;
        rig.stage(&bent);
        rig.run_at(NOW);
        let path = rig.device.dir.staged_object(digest);
        if rig.device.record().state.phase() == "steady" {
            rig.stayed(before, "");
        }
        assert!(!path.exists() || rig.active() == before, "{digest}");
        assert_eq!(rig.active(), before, "{digest}");
        // What the store has from release 1 is not read from staging; the trial ends where it began.
        if rig.device.record().state.phase() != "steady" {
            rig = Rig::new();
        }
    }
}
