//! Our verifier as a client of a repository in memory: it fetches what the verifier asks for, and keeps what it trusts
//! between looks, as a device does.

use std::{collections::BTreeMap, error::Error};

use protocol::{
    id::Environment,
    time::UnixMs,
    tuf::{
        chain::{Seen, fresh_timestamp},
        metadata::Target,
        refusal::{ROOTS_MAX, VerifyError},
        verify::{Offered, Release, Trusted, resolve, verify},
    },
    verified::Verified,
};

use crate::attacks::{
    cases::{Answer, Answered, Case, Look},
    draft::Files,
};

/// What our client makes of one case.
pub fn answer(case: &Case) -> Answer {
    let mut trusted = Trusted::new(case.pinned(), Seen::default());
    let steps = (0..case.steps.len()).map(|step| {
        let files = case.files(step);
        match &mut trusted {
            Ok(trusted) => look(trusted, &files, &case.paths, case.now()),
            Err(error) => Look { refused: Some(chain(error)), ..Look::default() },
        }
    });
    Answer { id: case.id, steps: steps.collect() }
}

/// What is found for each path, and what is trusted from then on if anything was.
pub fn look(trusted: &mut Trusted, files: &Files, paths: &[String], now: UnixMs) -> Look {
    let mut offered = match offer(trusted, files, now) {
        Ok(offered) => offered,
        Err(error) => return Look { refused: Some(chain(&error)), ..Look::default() },
    };
    let mut next = None;
    let mut answers = BTreeMap::new();
    for path in paths {
        let answered = match ask(trusted, &mut offered, files, path, now) {
            Ok((after, target)) => {
                next = Some(after);
                target.map_or(Answered::Absent, |target| Answered::Found {
                    sha256: target.hashes.get("sha256").cloned().unwrap_or_default(),
                    length: target.length,
                })
            }
            Err(error) => Answered::Refused(chain(&error)),
        };
        answers.insert(path.clone(), answered);
    }
    if let Some(next) = next {
        *trusted = next;
    }
    Look { refused: None, paths: answers }
}

/// What a downloader fetches before any role: newer roots, the timestamp, the snapshot that it names.
pub fn offer(trusted: &Trusted, files: &Files, now: UnixMs) -> Result<Offered, VerifyError> {
    let first = trusted.root().get().version.saturating_add(1);
    let roots: Vec<Vec<u8>> = (first..first.saturating_add(ROOTS_MAX as u64))
        .map_while(|version| files.get(&format!("{version}.root.json")).cloned())
        .collect();
    let after = trusted.after_roots(&roots)?;
    let timestamp = files.get("timestamp.json").cloned().unwrap_or_default();
    let fresh = fresh_timestamp(after.root(), &timestamp, after.seen(), now)?;
    let version = fresh.get().snapshot().map_or(0, |meta| meta.version);
    let name = if after.root().get().consistent_snapshot {
        format!("{version}.snapshot.json")
    } else {
        "snapshot.json".to_owned()
    };
    let snapshot = files.get(&name).cloned().unwrap_or_default();
    Ok(Offered { roots, timestamp, snapshot, ..Offered::default() })
}

/// The release whose manifest is `manifest`, with whatever roles the verifier wants for it.
pub fn release(
    trusted: &Trusted,
    files: &Files,
    manifest: &[u8],
    environment: &Environment,
    now: UnixMs,
) -> Result<(Trusted, Verified<Release>), VerifyError> {
    let mut offered = offer(trusted, files, now)?;
    offered.manifest = manifest.to_vec();
    with_wanted(&mut offered, files, |offered| verify(trusted, offered, environment, now))
}

/// Asks about one path, and fetches the roles that are wanted for it.
fn ask(
    trusted: &Trusted,
    offered: &mut Offered,
    files: &Files,
    path: &str,
    now: UnixMs,
) -> Result<(Trusted, Option<Target>), VerifyError> {
    with_wanted(offered, files, |offered| resolve(trusted, offered, path, now))
}

fn with_wanted<T>(
    offered: &mut Offered,
    files: &Files,
    mut verify: impl FnMut(&Offered) -> Result<T, VerifyError>,
) -> Result<T, VerifyError> {
    loop {
        match verify(offered) {
            Err(VerifyError::Wanted { role, version, bytes_max }) => {
                let file = files
                    .get(&format!("{version}.{role}.json"))
                    .filter(|bytes| bytes.len() <= bytes_max);
                match file {
                    Some(bytes) => offered.roles.push((role, bytes.clone())),
                    None => return Err(VerifyError::Wanted { role, version, bytes_max }),
                }
            }
            other => return other,
        }
    }
}

/// An error with all its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
