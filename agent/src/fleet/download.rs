//! One object into the staging area: from chunks or whole, from mirrors or the fleet's own server, resumed, bounded by
//! its signed length, verified while it streams, and visible under its own name only when it is complete and durable.

use std::path::Path;

use protocol::manifest::Object;
use slots::{
    disk::{Disk, RealDisk},
    layout::StateDir,
};

use crate::{
    fleet::{
        artifact_server::{self, ArtifactServer},
        assembly::{self, Trouble},
        meter::Meter,
        mirrors::{Behaviour, Transport},
        part::Part,
        sources,
        tag_file::TagFile,
        transfer::{DownloadError, Incoming, Wanted},
    },
    observe::{clock, logging::chain},
};

const PIECE_BYTES: usize = 64 * 1024;

/// Brings `wanted` into the staging area: from the mirrors that are awake, in order, else from the fleet's `own` server.
pub fn download(
    transport: &Transport,
    own: &ArtifactServer,
    state: &StateDir,
    wanted: Wanted<'_>,
    meter: &mut Meter<'_>,
) -> Result<(), DownloadError> {
    for (number, mirror) in transport.awake(clock::now()) {
        let behaviour = match from_server(mirror, state, wanted, meter) {
            Ok(part) => {
                transport.note(number, Behaviour::Good, clock::now());
                return finish(part, state, wanted.object);
            }
            Err(error @ (DownloadError::Stopped | DownloadError::Disk { .. })) => {
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(mirror = mirror.base(), "{}; asking the next server", chain(&error));
                if error.passes() { Behaviour::Failed } else { Behaviour::Wrong }
            }
        };
        transport.note(number, behaviour, clock::now());
    }
    let part = from_server(own, state, wanted, meter)?;
    finish(part, state, wanted.object)
}

/// The whole object from one server. What is wrong does not stay on the disk.
fn from_server(
    server: &ArtifactServer,
    state: &StateDir,
    wanted: Wanted<'_>,
    meter: &mut Meter<'_>,
) -> Result<Part, DownloadError> {
    let path = state.staged_part(&wanted.object.sha256);
    if let Some(chunked) = wanted.chunks {
        let candidates = sources::candidates(state, wanted.path);
        match assembly::assemble(server, &path, wanted, chunked, &candidates, meter) {
            Ok(part) => return Ok(part),
            Err(Trouble::Odd(why)) => {
                tracing::info!(path = wanted.path, "fetched whole and not by chunks: {why}");
            }
            Err(Trouble::Download(error)) => return Err(error),
        }
    }
    let tags = TagFile::of(state, &wanted.object.sha256);
    let (resumed, outcome) = whole(server, &path, &tags, wanted, meter);
    let outcome = match outcome {
        // The beginning may have been damaged on our own disk: only a whole download can accuse the server.
        Err(DownloadError::Altered { .. } | DownloadError::Longer { .. }) if resumed => {
            remove(&path)?;
            whole(server, &path, &tags, wanted, meter).1
        }
        outcome => outcome,
    };
    if let Err(DownloadError::Altered { .. } | DownloadError::Longer { .. }) = &outcome {
        remove(&path)?;
        tags.remove().map_err(|source| DownloadError::Disk { file: path, source })?;
    }
    outcome
}

/// One exchange; says too whether it went on from an earlier one.
fn whole(
    server: &ArtifactServer,
    path: &Path,
    tags: &TagFile,
    wanted: Wanted<'_>,
    meter: &mut Meter<'_>,
) -> (bool, Result<Part, DownloadError>) {
    let disk = |source| DownloadError::Disk { file: path.to_owned(), source };
    match Part::open(path, wanted.object.length) {
        Ok(mut part) => {
            let resumed = part.have() > 0;
            let ended = fill(server, &mut part, tags, wanted, meter);
            (resumed, ended.map(|()| part))
        }
        Err(source) => (false, Err(disk(source))),
    }
}

fn fill(
    server: &ArtifactServer,
    part: &mut Part,
    tags: &TagFile,
    wanted: Wanted<'_>,
    meter: &mut Meter<'_>,
) -> Result<(), DownloadError> {
    let Object { sha256, length } = wanted.object;
    let path = || wanted.path.to_owned();
    let file = part.path().to_owned();
    let disk = move |source| DownloadError::Disk { file: file.clone(), source };
    if part.have() < length || length == 0 {
        let tag = tags.read(server.base());
        let rest = artifact_server::Part { from: part.have(), end: length, tag: tag.as_deref() };
        let download = server
            .object(&sha256, rest, length)
            .map_err(|source| DownloadError::Http { path: path(), source })?;
        if download.from != part.have() {
            part.restart().map_err(&disk)?;
        }
        tags.write(server.base(), download.tag.as_deref()).map_err(&disk)?;
        let mut incoming =
            Incoming::new(download, meter).map_err(|error| wanted.broken(part.have(), error))?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count =
                incoming.read(&mut piece).map_err(|error| wanted.broken(part.have(), error))?;
            if count == 0 {
                break;
            }
            if part.have() + count as u64 > length {
                return Err(DownloadError::Longer { path: path(), length });
            }
            part.append(piece.get(..count).unwrap_or_default()).map_err(&disk)?;
        }
    }
    if part.have() < length {
        return Err(DownloadError::Shorter { path: path(), have: part.have(), length });
    }
    let got = part.digest();
    if got == sha256 {
        Ok(())
    } else {
        Err(DownloadError::Altered { path: path(), signed: sha256, got })
    }
}

/// Gives the complete part its own name, durably.
fn finish(part: Part, state: &StateDir, object: Object) -> Result<(), DownloadError> {
    let to = state.staged_object(&object.sha256);
    part.finish(&to)
        .and_then(|()| TagFile::of(state, &object.sha256).remove())
        .map_err(|source| DownloadError::Disk { file: to, source })
}

fn remove(part: &Path) -> Result<(), DownloadError> {
    RealDisk
        .remove_file(part)
        .map_err(|source| DownloadError::Disk { file: part.to_owned(), source })
}
