//! What an update moves: by chunks as a device fetches it, beside whole files and beside `zstd --patch-from`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use agent::fleet::{
    artifact_server::{self, ArtifactServer, Plain},
    download,
    meter::Meter,
    mirrors::Transport,
    transfer::Wanted,
};
use anyhow::{Context as _, ensure};
use protocol::{
    id::Slot,
    manifest::{File, Role},
};
use serde::Serialize;
use slots::{
    disk::{Disk as _, RealDisk},
    layout::StateDir,
};

use crate::transport::{
    packages::{Built, Pair},
    program,
    shelf::Shelf,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What one update moves, in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Moved {
    /// What changed.
    pub what: String,
    /// Files that changed.
    pub files: usize,
    /// Bodies of all answers: chunk indexes and chunks.
    pub by_chunks: u64,
    /// Requests for them.
    pub requests: u64,
    /// The same files on a device that has nothing: packs where there are packs.
    pub packed: u64,
    /// The same files as they are.
    pub whole_files: u64,
    /// Everything that travels for the release, as it is.
    pub whole_release: u64,
    /// `zstd -19 --patch-from` of each file, with the old version beside it.
    pub patch_from: u64,
}

/// Measures one update, in folders below `work`.
pub fn measure(pair: &Pair, work: &Path) -> anyhow::Result<Moved> {
    let Pair { what, old, new } = pair;
    let changed: Vec<&File> = new
        .manifest
        .files
        .iter()
        .filter(|file| !old.manifest.files.iter().any(|known| known.sha256 == file.sha256))
        .collect();
    let shelf = Shelf::open(&new.folder.join("objects"))?;
    let updated = tempfile::tempdir_in(work).context("making a state folder")?;
    let state = StateDir::new(updated.path());
    state.prepare(&RealDisk)?;
    install(old, &state)?;
    let by_chunks = fetch(&shelf, &state, &changed)?;
    let requests = shelf.requests();
    let fresh = tempfile::tempdir_in(work).context("making a state folder")?;
    let empty = StateDir::new(fresh.path());
    empty.prepare(&RealDisk)?;
    let packed = fetch(&shelf, &empty, &changed)?;
    let mut patch_from = 0;
    for file in &changed {
        patch_from += patch(old, new, file, work)?;
    }
    Ok(Moved {
        what: (*what).to_owned(),
        files: changed.len(),
        by_chunks,
        requests,
        packed,
        whole_files: changed.iter().map(|file| file.object().length).sum(),
        whole_release: new.manifest.objects().iter().map(|object| object.length).sum(),
        patch_from,
    })
}

/// Where the installed form of `file` lies.
fn installed(built: &Built, file: &File) -> PathBuf {
    match file.role {
        Role::Agent => built.agent.clone(),
        Role::Model | Role::Tokenizer | Role::Config | Role::Golden | Role::Data | Role::Notice => {
            built.folder.join("objects").join(file.sha256.to_string())
        }
    }
}

/// Fills slot a as the updater would have.
fn install(built: &Built, state: &StateDir) -> anyhow::Result<()> {
    for file in &built.manifest.files {
        let to = state.slot(Slot::A).file(&file.path);
        fs::create_dir_all(to.parent().unwrap_or(&to)).context("making the slot")?;
        RealDisk.clone_file(&installed(built, file), &to).context("filling the slot")?;
    }
    Ok(())
}

/// Fetches `files` as the gateway does; the bytes that moved.
fn fetch(shelf: &Shelf, state: &StateDir, files: &[&File]) -> anyhow::Result<u64> {
    let stop = AtomicBool::new(false);
    let transport = Transport::new(vec![], None);
    let mut meter = Meter::new(&stop, transport.limit, transport.slowest);
    let agent = artifact_server::client(&[], None, PATIENCE, Plain::Allowed)?;
    let server = ArtifactServer::asked_by(agent, &shelf.url);
    for file in files {
        let wanted = Wanted { object: file.object(), chunks: file.chunks, path: &file.path };
        download::download(&transport, &server, state, wanted, &mut meter)
            .with_context(|| format!("fetching {}", file.path))?;
    }
    Ok(meter.moved())
}

fn patch(old: &Built, new: &Built, file: &File, work: &Path) -> anyhow::Result<u64> {
    let (to, out) = (installed(new, file), work.join("patch.zst"));
    let mut arguments =
        vec!["-q".into(), "-f".into(), "-19".into(), "--ultra".into(), "--long=27".into()];
    if let Some(known) = old.manifest.files.iter().find(|known| known.path == file.path) {
        arguments.push(format!("--patch-from={}", installed(old, known).display()));
    }
    arguments.extend([to.display().to_string(), "-o".into(), out.display().to_string()]);
    program::run("zstd", &arguments)?;
    Ok(fs::metadata(&out).context("looking at the patch")?.len())
}

/// Fetches `file` from `folder` in this process, whole and then by chunks that are all here, and nothing else: for its
/// memory to be looked at.
pub fn fetch_one(folder: &Path, file: &File, state: &StateDir) -> anyhow::Result<()> {
    state.prepare(&RealDisk)?;
    let shelf = Shelf::open(folder)?;
    let staged = state.staged_object(&file.object().sha256);
    let whole = File { chunks: None, ..file.clone() };
    ensure!(fetch(&shelf, state, &[&whole])? == file.length, "the file did not come whole");
    let installed = state.slot(Slot::A).file(&file.path);
    fs::create_dir_all(installed.parent().unwrap_or(&installed)).context("making the slot")?;
    RealDisk.rename(&staged, &installed)?;
    ensure!(fetch(&shelf, state, &[file])? < file.length / 100, "its chunks were not found here");
    RealDisk.remove_file(&staged).context("removing what was fetched")
}
