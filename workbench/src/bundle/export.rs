//! `socle bundle export`: a repository, or some releases of it, as one file or folder.

use std::path::PathBuf;

use clap::Args;
use data_encoding::BASE64;
use protocol::{id::DeviceId, time::UnixMs};
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{ApiError, Controller, ControllerArgs},
    bundle::{
        archive::{ArchiveError, TarSink},
        assignment::{self, AssignmentError},
    },
    files::{self, Access, FileError},
    repo::{
        collected::{CollectError, Collected},
        copy::{self, Copied, CopyError, VerifyArgs},
        source::{Source, SourceError},
    },
    terminal::Terminal,
};

/// Arguments of `socle bundle export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What to take
    #[command(flatten)]
    pub verify: VerifyArgs,
    /// The bundle: a file if the name ends in .tar, else a folder
    #[arg(long)]
    pub out: PathBuf,
    /// A device that is to install from the bundle: its assignment is taken along, which the repository's controller
    /// must have signed; repeat for several
    #[arg(long = "device", value_name = "ID")]
    pub devices: Vec<String>,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The repository.
    #[error("taking the repository")]
    Copy(#[from] CopyError),
    /// It cannot be read.
    #[error("opening the repository")]
    Source(#[from] SourceError),
    /// It does not hold.
    #[error("checking the repository")]
    Collect(#[from] CollectError),
    /// The file.
    #[error("writing the bundle")]
    Archive(#[from] ArchiveError),
    /// Files.
    #[error("writing the bundle's files")]
    File(#[from] FileError),
    /// The controller.
    #[error("asking for an assignment")]
    Api(#[from] ApiError),
    /// An assignment that is none.
    #[error("reading the assignment of {device}")]
    Assignment {
        /// Whose.
        device: String,
        /// Why.
        source: AssignmentError,
    },
    /// An assignment of something else.
    #[error(
        "{device} is assigned release {release}, which is not in the bundle; assign it one that is, or take that along"
    )]
    OtherRelease {
        /// Whose.
        device: String,
        /// Which.
        release: String,
    },
    /// Assignments come from a controller.
    #[error(
        "--device needs the controller's own address (https://…/artifacts), --ca and --token-file: it is the controller that signs assignments"
    )]
    NoController,
    /// The controller's answer.
    #[error("the controller's answer lacks `{0}`")]
    Lacks(&'static str),
}

/// What the bundle holds.
#[derive(Clone, Debug, Serialize)]
pub struct Exported {
    /// Objects and bytes.
    #[serde(flatten)]
    pub copied: Copied,
    /// Releases.
    pub releases: Vec<String>,
    /// Devices whose assignments go along.
    pub assignments: Vec<DeviceId>,
}

/// Writes the bundle.
pub fn export(
    args: &ExportArgs,
    now: UnixMs,
    terminal: &Terminal,
) -> Result<Exported, ExportError> {
    let source = Source::open(&args.verify.source)?;
    let anchor = copy::anchor(&args.verify)?;
    let collected = Collected::read(&source, &anchor, &args.verify.selection, now)?;
    if !collected.problems.is_empty() {
        return Err(CopyError::Problems(collected.problems).into());
    }
    let assignments = assignments(args, &collected)?;
    let copied = if args.out.extension().is_some_and(|end| end == "tar") {
        let mut sink = TarSink::create(&args.out)?;
        let copied = copy::copy(&source, &collected, &mut sink, terminal)?;
        for (device, bytes) in &assignments {
            sink.add(&format!("assignments/{device}.cbor"), bytes)?;
        }
        sink.finish()?;
        copied
    } else {
        let copied = copy::place(&source, &collected, &args.out, false, terminal)?;
        let folder = args.out.join("assignments");
        for (device, bytes) in &assignments {
            files::make_folder(&folder)?;
            files::write(&folder.join(format!("{device}.cbor")), bytes, Access::All)?;
        }
        copied
    };
    let releases = collected.releases.iter();
    Ok(Exported {
        copied,
        releases: releases.map(|r| format!("{} for {}", r.manifest.name, r.environment)).collect(),
        assignments: assignments.into_iter().map(|(device, _)| device).collect(),
    })
}

fn assignments(
    args: &ExportArgs,
    collected: &Collected,
) -> Result<Vec<(DeviceId, Vec<u8>)>, ExportError> {
    if args.devices.is_empty() {
        return Ok(Vec::new());
    }
    let source = &args.verify.source;
    let base = source.from.trim_end_matches('/').strip_suffix("/artifacts");
    let (Some(base), Some(ca), Some(token_file)) = (base, &source.ca, &source.token_file) else {
        return Err(ExportError::NoController);
    };
    let access = ControllerArgs {
        controller: base.to_owned(),
        ca: ca.clone(),
        token_file: token_file.clone(),
    };
    let controller = Controller::connect(&access)?;
    let mut found = Vec::new();
    for device in &args.devices {
        let answer: Value = controller.get(&format!("devices/{device}/desired"))?;
        let text = answer["desired"].as_str().ok_or(ExportError::Lacks("desired"))?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| ExportError::Lacks("desired"))?;
        let desired = assignment::read(&bytes)
            .map_err(|source| ExportError::Assignment { device: device.clone(), source })?;
        if !collected.releases.iter().any(|release| release.digest == desired.release) {
            let (device, release) = (device.clone(), desired.release.to_string());
            return Err(ExportError::OtherRelease { device, release });
        }
        found.push((desired.device, bytes));
    }
    Ok(found)
}
