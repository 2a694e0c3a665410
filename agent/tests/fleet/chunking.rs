//! One object at a time: from chunks, from mirrors, resumed, slow, redirected. Whatever a server does, what is staged is
//! what is signed, or nothing is.

use std::{io::Write as _, sync::atomic::AtomicBool, time::Duration};

use agent::fleet::{
    artifact_server::ArtifactServer,
    download,
    identity::Credentials,
    meter::Meter,
    mirrors::Transport,
    rate::Slowest,
    transfer::{DownloadError, Wanted},
};
use flate2::{Compression, write::DeflateEncoder};
use proptest::prelude::*;
use protocol::{
    chunks::{self, ChunkName, Cut, IndexWriter},
    digest::Digest,
    id::Slot,
    manifest::{Chunked, Object},
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use slots::{
    disk::{Disk as _, RealDisk},
    layout::StateDir,
};
use tempfile::TempDir;

use crate::{
    artifacts::{Fault, Server},
    enrolment::words,
    pki::{Clients, Pki},
    release::noise,
};

const PATH: &str = "models/faq/model.onnx";

struct Rig {
    pki: Pki,
    server: Server,
    folder: TempDir,
}

/// What travels for one object.
struct Made {
    object: Object,
    chunks: Chunked,
    index: Vec<u8>,
    pack: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Packed {
    Yes,
    No,
}

fn object(content: &[u8]) -> Object {
    Object { sha256: Digest::of(content), length: content.len() as u64 }
}

/// `content` as a publisher cuts it. `unpacked` is what the chunks are taken from: a liar's differs from the content.
fn made(content: &[u8], unpacked: &[u8], packed: Packed) -> Made {
    let sizes = Cut::for_length(content.len() as u64);
    let (mut index, mut pack) = (IndexWriter::new(sizes), Vec::new());
    for chunk in chunks::cut(unpacked, sizes) {
        let chunk = chunk.unwrap();
        let (name, length) = (ChunkName::of(&chunk), chunk.len() as u32);
        let mut travels = Vec::new();
        if !index.knows(name, length) {
            let mut encoder = DeflateEncoder::new(&mut travels, Compression::fast());
            encoder.write_all(&chunk).unwrap();
            encoder.finish().unwrap();
            if travels.len() >= chunk.len() {
                travels = chunk;
            }
        }
        index.push(name, length, travels.len() as u32);
        pack.extend(travels);
    }
    let (index, pack) = match packed {
        Packed::Yes => (index.with_pack().unwrap(), Some(pack)),
        Packed::No => (index.without_pack().unwrap(), None),
    };
    let chunks = Chunked { index: object(&index), pack: pack.as_deref().map(object) };
    Made { object: object(content), chunks, index, pack }
}

impl Rig {
    fn new() -> Self {
        let pki = Pki::new();
        let server = Server::start(pki.server_config("localhost", Clients::OursOnly));
        let folder = tempfile::tempdir().unwrap();
        StateDir::new(folder.path()).prepare(&RealDisk).unwrap();
        Self { pki, server, folder }
    }

    fn state(&self) -> StateDir {
        StateDir::new(self.folder.path())
    }

    /// Something that an earlier release left in a slot.
    fn install(&self, content: &[u8]) {
        let path = self.state().slot(Slot::A).file(PATH);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        RealDisk.write(&path, &mut &*content).unwrap();
    }

    fn publish(&self, content: &[u8], made: &Made) {
        publish(&self.server, content, made);
    }

    fn client(&self, url: &str) -> ArtifactServer {
        let (certificate, key) = self.pki.client("device");
        let authority = self.pki.ca_der();
        let credentials =
            Credentials { certificate, authority, key: PrivatePkcs8KeyDer::from(key) };
        ArtifactServer::new(url, &credentials, Duration::from_secs(10)).unwrap()
    }

    /// Fetches it; says how many bytes moved.
    fn bring(&self, transport: &Transport, made: &Made) -> (u64, Result<(), DownloadError>) {
        let stop = AtomicBool::new(false);
        let mut meter = Meter::new(&stop, transport.limit, transport.slowest);
        let wanted = Wanted { object: made.object, chunks: Some(made.chunks), path: PATH };
        let own = self.client(&self.server.artifacts());
        let outcome = download::download(transport, &own, &self.state(), wanted, &mut meter);
        (meter.moved(), outcome)
    }

    fn bring_whole(&self, transport: &Transport, content: &[u8]) -> Result<(), DownloadError> {
        let stop = AtomicBool::new(false);
        let mut meter = Meter::new(&stop, transport.limit, transport.slowest);
        let wanted = Wanted { object: object(content), chunks: None, path: PATH };
        let own = self.client(&self.server.artifacts());
        download::download(transport, &own, &self.state(), wanted, &mut meter)
    }

    fn staged(&self, object: Object) -> Option<Vec<u8>> {
        std::fs::read(self.state().staged_object(&object.sha256)).ok()
    }
}

fn publish(server: &Server, content: &[u8], made: &Made) {
    server.put(&at(made.object), content);
    server.put(&at(made.chunks.index), &made.index);
    if let (Some(pack), Some(named)) = (&made.pack, made.chunks.pack) {
        server.put(&at(named), pack);
    }
}

fn at(object: Object) -> String {
    format!("sha256/{}", object.sha256)
}

fn plain() -> Transport {
    Transport::new(vec![], None)
}

/// The same with a few places changed, something inserted and something cut out.
fn edited(old: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    let length = new.len();
    new[length / 5] ^= 1;
    new.splice(length / 2..length / 2, *b"some words that were not there");
    new.drain(length / 4 * 3..length / 4 * 3 + 1000);
    new
}

#[test]
fn a_changed_file_moves_only_where_it_changed() {
    for packed in [Packed::Yes, Packed::No] {
        // Not quite noise, so that the pack is not the object itself.
        let rig = Rig::new();
        let old: Vec<u8> = noise(1, 3_000_000).iter().map(|byte| byte & 0x7f).collect();
        let new = edited(&old);
        let made = made(&new, &new, packed);
        rig.install(&old);
        rig.publish(&new, &made);
        let (moved, outcome) = rig.bring(&plain(), &made);
        outcome.unwrap();
        assert!(rig.staged(made.object).unwrap() == new);
        assert!(moved < 200_000, "{moved} of {} bytes moved", new.len());
        let asked = rig.server.asked();
        assert!(asked.len() <= 5, "{asked:?}");
        assert!(asked.iter().all(|(path, _)| *path != at(made.object)) || packed == Packed::No);
    }
}

#[test]
fn with_nothing_here_the_pack_comes_in_one_request_and_repeated_chunks_once() {
    let rig = Rig::new();
    let piece = b"the same words again and again, ".repeat(9_000);
    let content = [piece.clone(), noise(4, 200_000), piece].concat();
    let made = made(&content, &content, Packed::Yes);
    rig.publish(&content, &made);
    let (moved, outcome) = rig.bring(&plain(), &made);
    outcome.unwrap();
    assert!(rig.staged(made.object).unwrap() == content);
    assert!(moved < 250_000, "{moved} bytes moved");
    assert_eq!(rig.server.asked().len(), 2);
}

#[test]
fn whatever_is_odd_costs_a_whole_download_and_no_more() {
    type Spoil = fn(&Rig, &mut Made, &[u8]);
    let spoils: [(&str, Spoil); 8] = [
        ("no index", |rig, made, _| {
            rig.server.shelf.lock().unwrap().files.remove(&at(made.chunks.index));
        }),
        ("no pack", |rig, made, _| {
            rig.server.shelf.lock().unwrap().files.remove(&at(made.chunks.pack.unwrap()));
        }),
        ("an altered index", |rig, made, _| {
            let mut index = made.index.clone();
            index[made.index.len() / 2] ^= 1;
            rig.server.put(&at(made.chunks.index), &index);
        }),
        ("an altered pack", |rig, made, _| {
            let mut pack = made.pack.clone().unwrap();
            pack.iter_mut().for_each(|byte| *byte ^= 0x55);
            rig.server.put(&at(made.chunks.pack.unwrap()), &pack);
        }),
        ("a signed index of something else", |rig, made, content| {
            let mut other = content.to_vec();
            other[10] ^= 1;
            let lie = self::made(content, &other, Packed::Yes);
            rig.publish(content, &lie);
            *made = lie;
        }),
        ("a signed index that is none", |rig, made, _| {
            made.chunks.index = object(b"nothing");
            rig.server.put(&at(made.chunks.index), b"nothing");
        }),
        ("no ranges", |rig, made, _| {
            rig.server.fault(&at(made.chunks.pack.unwrap()), Fault::NoRanges);
        }),
        ("another object from the second answer on", |rig, made, _| {
            rig.server.fault(&at(made.chunks.pack.unwrap()), Fault::Changes(0));
        }),
    ];
    for (what, spoil) in spoils {
        let (rig, old) = (Rig::new(), noise(2, 1_000_000));
        let mut new = edited(&old);
        new.extend(b"words, words. ".repeat(1_000));
        let mut made = made(&new, &new, Packed::Yes);
        rig.install(&old);
        rig.publish(&new, &made);
        spoil(&rig, &mut made, &new);
        let (moved, outcome) = rig.bring(&plain(), &made);
        outcome.unwrap();
        assert!(rig.staged(made.object).unwrap() == new, "{what}");
        let asked = rig.server.asked();
        assert!(asked.iter().any(|(path, _)| *path == at(made.object)), "{what}: {asked:?}");
        assert!(moved <= 2_100_000, "{what}: {moved}");
    }
}

#[test]
fn a_chunk_that_unpacks_to_more_than_it_says_is_not_unpacked() {
    let rig = Rig::new();
    let content = vec![0; 300_000];
    let mut bomb = DeflateEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 64 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let sizes = Cut::for_length(content.len() as u64);
    let mut index = IndexWriter::new(sizes);
    let mut pack = Vec::new();
    for chunk in chunks::cut(content.as_slice(), sizes) {
        let chunk = chunk.unwrap();
        let (name, length) = (ChunkName::of(&chunk), chunk.len() as u32);
        let known = index.knows(name, length);
        let travels = if known { &[][..] } else { &bomb[..bomb.len().min(chunk.len() - 1)] };
        index.push(name, length, travels.len() as u32);
        pack.extend(travels);
    }
    let index = index.with_pack().unwrap();
    let chunks = Chunked { index: object(&index), pack: Some(object(&pack)) };
    let made = Made { object: object(&content), chunks, index, pack: Some(pack) };
    rig.publish(&content, &made);
    rig.bring(&plain(), &made).1.unwrap();
    assert!(rig.staged(made.object).unwrap() == content);
}

#[test]
fn chunks_go_on_where_they_broke_after_a_restart() {
    let (rig, content) = (Rig::new(), noise(3, 2_000_000));
    let half: Vec<u8> = content.iter().map(|byte| byte & 0x0f).collect();
    let made = made(&half, &half, Packed::Yes);
    rig.publish(&half, &made);
    let pack = made.chunks.pack.unwrap();
    rig.server.fault(&at(pack), Fault::CutAfter(700_000));
    let (_, broken) = rig.bring(&plain(), &made);
    assert!(broken.unwrap_err().passes());
    let (moved, outcome) = rig.bring(&plain(), &made);
    outcome.unwrap();
    assert!(rig.staged(made.object).unwrap() == half);
    assert!(moved < pack.length - 500_000, "{moved} of {} bytes moved again", pack.length);
    // What a download of the whole file left serves the chunks too, and a torn end is found.
    std::fs::remove_file(rig.state().staged_object(&made.object.sha256)).unwrap();
    let mut torn = half[..1_500_000].to_vec();
    torn[1_400_000..].fill(0);
    RealDisk.write(&rig.state().staged_part(&made.object.sha256), &mut &torn[..]).unwrap();
    let (moved, outcome) = rig.bring(&plain(), &made);
    outcome.unwrap();
    assert!(rig.staged(made.object).unwrap() == half);
    assert!(moved < pack.length / 2, "{moved}");
}

#[test]
fn a_whole_file_goes_on_only_if_the_server_has_the_same() {
    for (tag, then, again) in [("\"one\"", "\"one\"", false), ("\"one\"", "\"two\"", true)] {
        let (rig, content) = (Rig::new(), noise(6, 900_000));
        let path = at(object(&content));
        rig.server.put(&path, &content);
        let tagged = |tag: &str| {
            rig.server.shelf.lock().unwrap().tags.insert(path.clone(), tag.to_owned());
        };
        tagged(tag);
        rig.server.fault(&path, Fault::CutAfter(500_000));
        assert!(rig.bring_whole(&plain(), &content).unwrap_err().passes());
        tagged(then);
        rig.bring_whole(&plain(), &content).unwrap();
        assert_eq!(rig.server.shelf.lock().unwrap().conditions, [tag]);
        assert!(rig.staged(object(&content)).unwrap() == content, "{again}");
        assert_eq!(std::fs::read_dir(rig.state().staged_objects()).unwrap().count(), 1);
    }
}

#[test]
fn mirrors_are_asked_in_order_and_one_that_lies_rests() {
    let (rig, content) = (Rig::new(), noise(8, 400_000));
    let config = || rig.pki.server_config("localhost", Clients::OursOnly);
    let (lying, good) = (Server::start(config()), Server::start(config()));
    let path = at(object(&content));
    let mut wrong = content.clone();
    wrong[7] ^= 1;
    lying.put(&path, &wrong);
    good.put(&path, &content);
    rig.server.put(&path, &content);
    let dead = rig.client("https://localhost:1/artifacts");
    let mirrors = vec![dead, rig.client(&lying.artifacts()), rig.client(&good.artifacts())];
    let transport = Transport::new(mirrors, None);
    rig.bring_whole(&transport, &content).unwrap();
    assert_eq!((lying.asked().len(), good.asked().len(), rig.server.asked().len()), (1, 1, 0));
    // The one that lied is not asked again; without any mirror the fleet's own server is.
    let other = noise(9, 1_000);
    rig.server.put(&at(object(&other)), &other);
    rig.bring_whole(&transport, &other).unwrap();
    assert_eq!((lying.asked().len(), good.asked().len(), rig.server.asked().len()), (0, 1, 1));
    assert!(rig.staged(object(&other)).unwrap() == other);
}

#[test]
fn slow_data_does_not_hold_for_ever_and_what_came_is_kept() {
    let (rig, content) = (Rig::new(), noise(10, 600_000));
    let path = at(object(&content));
    rig.server.put(&path, &content);
    rig.server.fault(&path, Fault::Drops(1_000, 20));
    let mut transport = plain();
    transport.slowest =
        Slowest { bytes_per_second: 10_000_000, window: Duration::from_millis(200) };
    let refused = rig.bring_whole(&transport, &content).unwrap_err();
    assert!(refused.passes() && words(&refused).contains("less than"), "{}", words(&refused));
    let kept = std::fs::metadata(rig.state().staged_part(&object(&content).sha256)).unwrap().len();
    assert!(kept > 0);
    rig.server.shelf.lock().unwrap().faults.clear();
    rig.bring_whole(&plain(), &content).unwrap();
    assert!(rig.staged(object(&content)).unwrap() == content);
}

#[test]
fn redirects_are_few_and_never_leave_tls() {
    let (rig, content) = (Rig::new(), noise(11, 10_000));
    let (path, elsewhere) = (at(object(&content)), "sha256/elsewhere");
    rig.server.put(&path, &content);
    rig.server.put(elsewhere, &content);
    rig.server.fault(&path, Fault::Redirect(format!("{}/{elsewhere}", rig.server.artifacts())));
    rig.bring_whole(&plain(), &content).unwrap();
    std::fs::remove_file(rig.state().staged_object(&object(&content).sha256)).unwrap();
    rig.server.asked();
    for to in ["http://localhost:1/x".to_owned(), format!("/artifacts/{path}")] {
        rig.server.fault(&path, Fault::Redirect(to));
        let refused = rig.bring_whole(&plain(), &content).unwrap_err();
        assert!(words(&refused).contains("redirect"), "{}", words(&refused));
        assert!(rig.server.asked().len() <= 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Old and new differ at random, the server misbehaves at random: what is staged is what is signed, or nothing.
    #[test]
    fn what_is_staged_is_what_is_signed(
        seed: u64,
        length in 1_usize..400_000,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..3_000, any::<bool>()), 0..6),
        with_pack: bool,
        spoil in 0_u8..6,
        at_byte: prop::sample::Index,
    ) {
        let rig = Rig::new();
        let old: Vec<u8> = noise(seed, length).iter().map(|byte| byte & 0x3f).collect();
        let mut new = old.clone();
        for (place, size, insert) in edits {
            let place = place.index(new.len());
            if insert {
                new.splice(place..place, noise(seed ^ size as u64, size));
            } else {
                new.drain(place..(place + size).min(new.len() - 1).max(place));
            }
        }
        let packed = if with_pack { Packed::Yes } else { Packed::No };
        let mut made = made(&new, &new, packed);
        if made.chunks.pack.is_some_and(|pack| pack.length >= made.object.length) {
            made.chunks.pack = None;
        }
        rig.install(&old);
        rig.publish(&new, &made);
        let travels = made.chunks.pack.unwrap_or(made.object);
        let path = at(travels);
        match spoil {
            0 => rig.server.fault(&path, Fault::NoRanges),
            1 => rig.server.fault(&path, Fault::Endless),
            2 => rig.server.fault(&path, Fault::CutAfter(at_byte.index(length))),
            3 => rig.server.fault(&path, Fault::Changes(0)),
            4 => {
                let mut shelf = rig.server.shelf.lock().unwrap();
                let content = shelf.files.get_mut(&path).unwrap();
                let at = at_byte.index(content.len());
                content[at] ^= 1;
            }
            _ => {}
        }
        let (_, mut outcome) = rig.bring(&plain(), &made);
        if outcome.as_ref().is_err_and(DownloadError::passes) {
            outcome = rig.bring(&plain(), &made).1;
        }
        match (outcome, rig.staged(made.object)) {
            (Ok(()), Some(staged)) => prop_assert!(staged == new),
            (Err(_), None) => {}
            (outcome, staged) => prop_assert!(false, "{outcome:?}, staged {}", staged.is_some()),
        }
        // Alone a server whose only copy is wrong can keep the object from us.
        if spoil > 4 || (spoil != 4 && spoil != 1) || travels != made.object {
            prop_assert!(rig.staged(made.object).is_some(), "spoiled by {spoil}");
        }
    }
}
