//! `socle repo endorse`: who makes agents or models lists the very files, so that whoever signs releases cannot put
//! others in.

use std::path::PathBuf;

use clap::Args;
use protocol::{
    manifest::{Manifest, ManifestError},
    time::UnixMs,
    tuf::metadata::Target,
};
use serde::Serialize;

use crate::{
    files::{self, FileError},
    metadata::{
        document::{self, LoadError},
        listing::{self, ListingError},
    },
    release::folder::ReleaseFolder,
};

/// Arguments of `socle repo endorse`.
#[derive(Debug, Args)]
pub struct EndorseArgs {
    /// Metadata of the endorsing role: a draft is changed, of a signed one the next version is made
    #[arg(long)]
    pub metadata: PathBuf,
    /// A release folder: its agent or models are endorsed, not the release
    #[arg(long)]
    pub release: PathBuf,
    /// Endorse the agent: agent/socle-agent-VERSION-PLATFORM
    #[arg(long, required_unless_present = "team")]
    pub agent: bool,
    /// Endorse the models, for this team: models/TEAM/MODEL.FILE
    #[arg(long, value_name = "TEAM")]
    pub team: Option<String>,
    /// Only this model; without it, all of the release
    #[arg(long, requires = "team")]
    pub model: Option<String>,
    /// Days until the metadata must be signed again
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// Why nothing was endorsed.
#[derive(Debug, thiserror::Error)]
pub enum EndorseError {
    /// The manifest.
    #[error("reading the release's manifest")]
    File(#[from] FileError),
    /// The manifest is none.
    #[error("checking the release's manifest")]
    Manifest(#[from] ManifestError),
    /// The metadata.
    #[error("changing the role's metadata")]
    Listing(#[from] ListingError),
    /// Writing it.
    #[error("writing the role's metadata")]
    Load(#[from] LoadError),
    /// A team that is no path segment.
    #[error("`{0}` is not the name of a team: 1 to 64 of a-z 0-9 - _")]
    Team(String),
    /// Nothing to endorse.
    #[error("the release has nothing to endorse: {0}")]
    Nothing(String),
}

/// What was listed.
#[derive(Clone, Debug, Serialize)]
pub struct Endorsed {
    /// The metadata, to be signed.
    pub metadata: PathBuf,
    /// Its version.
    pub version: u64,
    /// Paths listed now.
    pub paths: Vec<String>,
}

/// Lists the files as they will be installed.
pub fn endorse(args: &EndorseArgs, now: UnixMs) -> Result<Endorsed, EndorseError> {
    let folder = ReleaseFolder::new(&args.release);
    let manifest = Manifest::parse(&files::read(&folder.manifest(), files::TEXT_BYTES_MAX)?)?;
    let mut found: Vec<(String, Target)> = Vec::new();
    if args.agent {
        let agent = manifest.agent().ok_or_else(|| EndorseError::Nothing("no agent".into()))?;
        let path =
            format!("agent/socle-agent-{}-{}", manifest.agent_version, manifest.requires.platform);
        found.push((path, Target::named(agent.sha256, agent.length)));
    }
    if let Some(team) = &args.team {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if !(1..=64).contains(&team.len()) || !team.bytes().all(word) {
            return Err(EndorseError::Team(team.clone()));
        }
        let before = found.len();
        for file in &manifest.files {
            let Some((model, name)) =
                file.path.strip_prefix("models/").and_then(|rest| rest.split_once('/'))
            else {
                continue;
            };
            if args.model.as_deref().is_none_or(|wanted| wanted == model) {
                let target = Target::named(file.sha256, file.length);
                found.push((format!("models/{team}/{model}.{name}"), target));
            }
        }
        if found.len() == before {
            return Err(EndorseError::Nothing("no such model".into()));
        }
    }
    let mut targets = listing::draft(&args.metadata, now, args.days)?;
    let paths = found.iter().map(|(path, _)| path.clone()).collect();
    targets.targets.extend(found);
    document::write_unsigned(&args.metadata, &targets)?;
    Ok(Endorsed { metadata: args.metadata.clone(), version: targets.version, paths })
}
