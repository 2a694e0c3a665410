//! Other clients on a repository that our code makes, and our client on repositories that others make.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use protocol::{
    digest::Digest,
    time::UnixMs,
    tuf::{
        chain::Seen,
        document::Document,
        metadata::{
            DelegatedRole, Delegations, Key, Meta, Role, Root, SPEC_VERSION, Snapshot, Target,
            Targets, Timestamp,
        },
        verify::Trusted,
    },
};
use serde::Serialize;
use slots::disk::{self, Disk as _, RealDisk};

use crate::attacks::{
    cases::{self, Answer, Answered, Case},
    differential,
    draft::{self, Files, key},
    fuzz::documents,
    ours,
    scene::DAY_MS,
};

/// The release that every repository lists.
const RELEASE: &str = "env/prod/2027.1.1.json";

/// Another implementation: its client, and its maker of repositories.
#[derive(Debug)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// Its client: reads cases, answers them.
    pub client: Command,
    /// Its maker; the folder is the last argument.
    pub maker: Command,
}

/// Something that was tried with a peer.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// What.
    pub what: String,
    /// How many files were found as they should be.
    pub files: usize,
    /// Why it does not hold, if it does not.
    pub failed: Option<String>,
}

/// Tries a peer both ways.
pub fn try_peer(peer: &mut Peer, now: UnixMs) -> anyhow::Result<Vec<Tried>> {
    let name = peer.name;
    let tried = |what: String, outcome: anyhow::Result<usize>| match outcome {
        Ok(files) => Tried { what, files, failed: None },
        Err(error) => Tried { what, files: 0, failed: Some(format!("{error:#}")) },
    };
    Ok(vec![
        tried(format!("{name} as a client of a repository of ours"), reads_ours(peer, now)),
        tried(format!("our client on a repository by {name}"), made_by(peer, now)),
    ])
}

/// The files of every repository by target path.
fn files() -> anyhow::Result<Files> {
    let plain = |path: &str| (path.to_owned(), format!("content of {path}").into_bytes());
    let mut files: Files = [
        "agent/socle-agent-0.1.0-x86_64-linux",
        "models/faq/faq.model.onnx",
        "models/faq/faq.tokenizer.json",
        "env/prod/2027.1.0.json",
        "notes.txt",
    ]
    .into_iter()
    .map(plain)
    .collect();
    // What the release is made of, as its makers endorse it.
    files.insert("agent/socle-agent-0.1.0-x86_64-linux".to_owned(), b"agent".to_vec());
    files.insert("models/faq/faq.model.onnx".to_owned(), b"model".to_vec());
    // Enough models that each of a maker's hash bins holds some.
    files.extend((0..8).map(|number| plain(&format!("models/faq/extra.{number}"))));
    files.insert(RELEASE.to_owned(), serde_json::to_vec_pretty(&documents::manifest())?);
    Ok(files)
}

/// Whether `answer` finds every file at every look.
fn finds_all(answer: &Answer, files: &Files) -> anyhow::Result<usize> {
    for (step, look) in answer.steps.iter().enumerate() {
        for (path, content) in files {
            let expected = Answered::Found {
                sha256: Digest::of(content).to_string(),
                length: content.len() as u64,
            };
            let found = look.of(path);
            ensure!(found.agrees(&expected), "look {step}, `{path}`: {found:?}");
        }
        let absent = look.of("env/prod/absent.json");
        ensure!(absent == Answered::Absent, "look {step}, a file that is not listed: {absent:?}");
    }
    Ok(files.len())
}

fn reads_ours(peer: &mut Peer, now: UnixMs) -> anyhow::Result<usize> {
    let files = files()?;
    let (pinned, first) = ours_at(1, now, &files)?;
    let (_, second) = ours_at(2, now, &files)?;
    let encode = |step: &Files| -> BTreeMap<String, String> {
        step.iter().map(|(name, bytes)| (name.clone(), cases::encode(bytes))).collect()
    };
    let mut paths: Vec<String> = files.keys().cloned().collect();
    paths.push("env/prod/absent.json".to_owned());
    let case = Case {
        id: 0,
        kind: "interop".to_owned(),
        delegated: String::new(),
        seed: 0,
        now: now.to_rfc3339(),
        root: cases::encode(&pinned),
        steps: vec![encode(&first), encode(&second)],
        paths,
    };
    let folder = tempfile::tempdir()?;
    let own = ours::answer(&case);
    finds_all(&own, &files).context("our own client")?;
    let answers = differential::ask(&mut peer.client, std::slice::from_ref(&case), folder.path())?;
    finds_all(answers.first().context("no answer")?, &files)
}

/// The metadata of a repository made with the product's own types, at `version`: from version 2 on with new keys of
/// targets, snapshot and timestamp under a second root.
fn ours_at(version: u64, now: UnixMs, files: &Files) -> anyhow::Result<(Vec<u8>, Files)> {
    let expires = now.plus(30 * DAY_MS).to_rfc3339();
    let mut out = Files::new();
    let first = root(1, &expires)?;
    out.insert("1.root.json".to_owned(), first.clone());
    if version > 1 {
        out.insert("2.root.json".to_owned(), root(version, &expires)?);
    }
    let mut listed = Vec::new();
    for (name, prefix, keys) in ROLES {
        let of = files.iter().filter(|(path, _)| path.starts_with(prefix));
        let content = targets(version, &expires, of, None);
        listed.push((name, signed(&content, keys)?));
    }
    let delegated = |path: &str| ROLES.iter().any(|(_, prefix, _)| path.starts_with(prefix));
    let rest = files.iter().filter(|(path, _)| !delegated(path));
    let top = targets(version, &expires, rest, Some(delegations()?));
    listed.push(("targets", signed(&top, &top_keys(20, version))?));
    let mut meta = BTreeMap::new();
    for (name, bytes) in listed {
        meta.insert(format!("{name}.json"), Meta::of(version, &bytes));
        out.insert(format!("{version}.{name}.json"), bytes);
    }
    let snapshot = Snapshot {
        kind: "snapshot".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: expires.clone(),
        meta,
        other: BTreeMap::new(),
    };
    let snapshot = signed(&snapshot, &top_keys(30, version))?;
    let timestamp = Timestamp {
        kind: "timestamp".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires,
        meta: [("snapshot.json".to_owned(), Meta::of(version, &snapshot))].into(),
        other: BTreeMap::new(),
    };
    out.insert(format!("{version}.snapshot.json"), snapshot);
    out.insert("timestamp.json".to_owned(), signed(&timestamp, &top_keys(40, version))?);
    Ok((first, out))
}

/// Delegated roles of our own repository: name, beginning of paths, keys.
const ROLES: [(&str, &str, &[u64]); 3] = [
    ("prod", "env/prod/", &[51, 52]),
    ("agent", "agent/", &[61]),
    ("models-faq", "models/faq/", &[71]),
];

fn top_keys(first: u64, version: u64) -> [u64; 2] {
    [first + 2 * version, first + 2 * version + 1]
}

fn root(version: u64, expires: &str) -> anyhow::Result<Vec<u8>> {
    let mut keys = BTreeMap::new();
    let mut role = |numbers: &[u64]| -> anyhow::Result<Role> {
        let mut keyids = Vec::new();
        for number in numbers {
            let key = Key::ed25519(&key(*number)?.public());
            let id = key.id()?;
            keys.insert(id.clone(), key);
            keyids.push(id);
        }
        Ok(Role { keyids, threshold: 2 })
    };
    let roles = [
        ("root".to_owned(), role(&[10, 11, 12])?),
        ("targets".to_owned(), role(&top_keys(20, version))?),
        ("snapshot".to_owned(), role(&top_keys(30, version))?),
        ("timestamp".to_owned(), role(&top_keys(40, version))?),
    ];
    let root = Root {
        kind: "root".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: expires.to_owned(),
        consistent_snapshot: true,
        roles: roles.into(),
        keys,
        other: BTreeMap::new(),
    };
    signed(&root, &[10, 12])
}

fn targets<'a>(
    version: u64,
    expires: &str,
    files: impl Iterator<Item = (&'a String, &'a Vec<u8>)>,
    delegations: Option<Delegations>,
) -> Targets {
    Targets {
        kind: "targets".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: expires.to_owned(),
        targets: files.map(|(path, content)| (path.clone(), Target::of(content))).collect(),
        delegations,
        other: BTreeMap::new(),
    }
}

fn delegations() -> anyhow::Result<Delegations> {
    let mut delegations = Delegations::default();
    for (name, prefix, numbers) in ROLES {
        let mut keyids = Vec::new();
        for number in numbers {
            let key = Key::ed25519(&key(*number)?.public());
            let id = key.id()?;
            delegations.keys.insert(id.clone(), key);
            keyids.push(id);
        }
        delegations.roles.push(DelegatedRole {
            name: name.to_owned(),
            threshold: u32::try_from(keyids.len())?,
            keyids,
            paths: Some(vec![format!("{prefix}*")]),
            path_hash_prefixes: None,
            terminating: name == "prod",
            other: BTreeMap::new(),
        });
    }
    Ok(delegations)
}

fn signed<T: Serialize>(content: &T, numbers: &[u64]) -> anyhow::Result<Vec<u8>> {
    let mut document = Document::unsigned(content)?;
    for number in numbers {
        document.sign(&key(*number)?)?;
    }
    Ok(document.to_bytes()?)
}

fn made_by(peer: &mut Peer, now: UnixMs) -> anyhow::Result<usize> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let files = files()?;
    for (path, content) in &files {
        put(&folder.join("files").join(path), content)?;
    }
    let pinned = prepare_keys(folder, now)?;
    let mut command = Command::new(peer.maker.get_program());
    let output = command.args(peer.maker.get_args()).arg(folder).output().context("starting it")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    // A maker that cannot make roots starts from those that were prepared.
    let root = fs::read(folder.join("pinned.json")).unwrap_or(pinned);
    let mut made = Files::new();
    for entry in fs::read_dir(folder.join("metadata"))? {
        let entry = entry?;
        made.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    let mut trusted = Trusted::new(root, Seen::default())?;
    let mut paths: Vec<String> = files.keys().cloned().collect();
    paths.push("env/prod/absent.json".to_owned());
    let prod = "prod".parse()?;
    let manifest = files.get(RELEASE).cloned().unwrap_or_default();
    let (_, release) = ours::release(&trusted, &made, &manifest, &prod, now)
        .map_err(|error| anyhow::anyhow!("the release: {}", ours::chain(&error)))?;
    ensure!(release.get().signers.role() == "prod", "signed by another role");
    let look = ours::look(&mut trusted, &made, &paths, now);
    let found = finds_all(&Answer { id: 0, steps: vec![look] }, &files)?;
    ensure!(trusted.root().get().version == 2, "root version {}", trusted.root().get().version);
    refuses_altered(&trusted, &made, &paths, now)?;
    Ok(found)
}

/// Flips one bit in each document: our client must then find nothing that it finds now.
fn refuses_altered(
    trusted: &Trusted,
    made: &Files,
    paths: &[String],
    now: UnixMs,
) -> anyhow::Result<()> {
    for name in made.keys().filter(|name| !name.ends_with("root.json")) {
        let mut altered = made.clone();
        let Some(bytes) = altered.get_mut(name) else { continue };
        let at = bytes.windows(7).position(|piece| piece == b"version").unwrap_or(0);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        let look = ours::look(&mut trusted.clone(), &altered, paths, now);
        let refused = |path: &String| matches!(look.of(path), Answered::Refused(_));
        ensure!(paths.iter().any(refused), "one bit of {name} was changed, and nothing refused");
    }
    Ok(())
}

/// Two roots and the keys that they name, for a maker that makes neither; the first root.
fn prepare_keys(folder: &Path, now: UnixMs) -> anyhow::Result<Vec<u8>> {
    let expires = now.plus(30 * DAY_MS).to_rfc3339();
    let mut roots = Vec::new();
    for version in [1, 2] {
        // Online keys of one signature each, as the maker signs with all it is given.
        let numbers = [("targets", 81), ("snapshot", 82), ("timestamp", 83)];
        let mut root: Root = {
            let bytes = root(version, &expires)?;
            serde_json::from_value(Document::parse("root", &bytes)?.signed)?
        };
        for (role, number) in numbers {
            let key = Key::ed25519(&key(number)?.public());
            let id = key.id()?;
            root.keys.insert(id.clone(), key);
            root.roles.insert(role.to_owned(), Role { keyids: vec![id], threshold: 1 });
            put(&folder.join(format!("keys/{role}.pk8")), &draft::pkcs8(number))?;
        }
        let used: Vec<String> = root.roles.values().flat_map(|role| role.keyids.clone()).collect();
        root.keys.retain(|id, _| used.contains(id));
        roots.push(signed(&root, &[10, 12])?);
    }
    for (role, number) in [("prod", 84), ("agent", 85), ("models-faq", 86)] {
        put(&folder.join(format!("keys/{role}.pk8")), &draft::pkcs8(number))?;
    }
    for (at, root) in roots.iter().enumerate() {
        put(&folder.join(format!("metadata/{}.root.json", at + 1)), root)?;
    }
    put(&folder.join("root.json"), roots.last().context("no root")?)?;
    roots.into_iter().next().context("no root")
}

fn put(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut above: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
    above.reverse();
    for folder in above.into_iter().filter(|folder| !folder.exists()) {
        RealDisk.create_dir(&folder)?;
    }
    disk::replace(&RealDisk, path, content).with_context(|| format!("writing {}", path.display()))
}
