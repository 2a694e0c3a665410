//! `socle release build`: one folder with everything a release is made of, unsigned.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use engine::package::{Package, PackageError};
use protocol::{
    digest::Digest,
    id::Environment,
    manifest::{Archive, File, Manifest, ManifestError, Policy, Requires, Role, SCHEMA},
    time::UnixMs,
    tuf::shape::is_role_name,
};

use crate::{
    files::{self, Access, FileError},
    metadata::{
        document::{self, LoadError},
        listing::{self, ListingError},
    },
    release::{
        folder::ReleaseFolder,
        object::{self, Added},
    },
};

const AGENT_PATH: &str = "bin/socle-agent";

/// Arguments of `socle release build`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Name for people: a-z, 0-9, . and -
    #[arg(long)]
    pub name: String,
    /// Environment it is for: devices of another one refuse it
    #[arg(long = "env", default_value = "prod")]
    pub environment: Environment,
    /// Number that grows with every release; devices never go back
    #[arg(long)]
    pub counter: u64,
    /// The agent's executable
    #[arg(long)]
    pub agent: PathBuf,
    /// Version of that agent
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    pub agent_version: String,
    /// A model package (folder made by `socle model pack`); repeat for several
    #[arg(long = "model")]
    pub models: Vec<PathBuf>,
    /// Folder to make
    #[arg(long)]
    pub out: PathBuf,
    /// Metadata of the role before this release, whose list this one extends
    #[arg(long)]
    pub previous: Option<PathBuf>,
    /// The role that lists it: targets, or one that is trusted for env/ENV/*
    #[arg(long, default_value = "targets")]
    pub role: String,
    /// Days until the metadata must be signed again
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Memory a device must have, in bytes
    #[arg(long, default_value_t = 512 << 20)]
    pub memory_bytes: u64,
    /// Good answers that the new version must give before it commits
    #[arg(long, default_value_t = Policy::standard().probation_answers)]
    pub probation_answers: u32,
    /// Longest probation, in milliseconds
    #[arg(long, default_value_t = Policy::standard().probation_ms)]
    pub probation_ms: u64,
    /// Starts that a new version may fail before it is rolled back
    #[arg(long, default_value_t = Policy::standard().tries)]
    pub tries: u8,
}

/// Why no release was made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file.
    #[error("handling the release's files")]
    File(#[from] FileError),
    /// The folder of a model.
    #[error("listing the model package `{}`", .path.display())]
    Package {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is no model package.
    #[error("opening the model package")]
    Model(#[from] PackageError),
    /// A file that has no place in a package.
    #[error("`{}` has no place in a model package; remove it, or pack the model again", .0.display())]
    Stray(PathBuf),
    /// Something is out of bounds.
    #[error("checking the release")]
    Manifest(#[from] ManifestError),
    /// Metadata that cannot be written.
    #[error("writing metadata")]
    Json(#[from] serde_json::Error),
    /// Metadata of the release before.
    #[error("listing the release")]
    Listing(#[from] ListingError),
    /// Metadata that cannot be written.
    #[error("writing the release's metadata")]
    Load(#[from] LoadError),
    /// A counter that devices would refuse.
    #[error(
        "counter {got} is not above {newest}, the highest that the metadata before lists: devices would refuse the release; give --counter {}", .newest.saturating_add(1)
    )]
    Counter {
        /// Highest listed.
        newest: u64,
        /// Given.
        got: u64,
    },
    /// A role that cannot have this name.
    #[error(
        "`{0}` is not the name of a role: 1 to 64 of a-z 0-9 . _ -, and not root, snapshot or timestamp"
    )]
    Role(String),
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// SHA-256 of the manifest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// Version of the targets metadata.
    pub targets_version: u64,
}

/// Makes the release folder.
pub fn build(args: &BuildArgs, now: UnixMs) -> Result<Built, BuildError> {
    if args.role != "targets" && !is_role_name(&args.role) {
        return Err(BuildError::Role(args.role.clone()));
    }
    let mut targets = listing::next(args.previous.as_deref(), now, args.days)?;
    if let Some(newest) = listing::newest_counter(&targets)
        && args.counter <= newest
    {
        return Err(BuildError::Counter { newest, got: args.counter });
    }
    let folder = ReleaseFolder::new(&args.out);
    files::make_new_folder(&args.out)?;
    files::make_folder(&folder.objects())?;
    let mut entries = vec![add_agent(&folder, &args.agent)?];
    for package in &args.models {
        add_model(&folder, package, &mut entries)?;
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let manifest = Manifest {
        schema: SCHEMA,
        name: args.name.clone(),
        counter: args.counter,
        created: now.to_rfc3339(),
        agent_version: args.agent_version.clone(),
        requires: Requires {
            platform: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            memory_bytes: args.memory_bytes,
            disk_bytes: entries.iter().map(|file| file.length).sum(),
        },
        policy: Policy {
            tries: args.tries,
            probation_answers: args.probation_answers,
            probation_ms: args.probation_ms,
            ..Policy::standard()
        },
        files: entries,
    };
    manifest.check()?;
    let bytes = manifest.to_bytes()?;
    files::write(&folder.manifest(), &bytes, Access::All)?;

    listing::list_release(&mut targets, &args.environment, &manifest, &bytes);
    document::write_unsigned(&folder.document(&args.role), &targets)?;
    Ok(Built { digest: Digest::of(&bytes), manifest, targets_version: targets.version })
}

fn add_agent(folder: &ReleaseFolder, agent: &Path) -> Result<File, BuildError> {
    let (executable, Added { object, chunks }) = object::add_agent(folder, agent)?;
    Ok(File {
        path: AGENT_PATH.into(),
        role: Role::Agent,
        length: executable.length,
        sha256: executable.sha256,
        archive: Some(Archive { length: object.length, sha256: object.sha256 }),
        chunks,
    })
}

fn add_model(
    folder: &ReleaseFolder,
    package: &Path,
    entries: &mut Vec<File>,
) -> Result<(), BuildError> {
    let failed = |source| BuildError::Package { path: package.to_owned(), source };
    // The worker serves a model under the name in its description, so that is where it is installed.
    let name = Package::open(package)?.spec.name;
    for entry in fs::read_dir(package).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let role = role_of(file).ok_or_else(|| BuildError::Stray(path.clone()))?;
        let mut content = fs::File::open(&path)
            .map_err(|source| FileError::Read { path: path.clone(), source })?;
        let Added { object, chunks } = object::add(folder, &mut content)?;
        entries.push(File {
            path: format!("models/{name}/{file}"),
            role,
            length: object.length,
            sha256: object.sha256,
            archive: None,
            chunks,
        });
    }
    Ok(())
}

fn role_of(file: &str) -> Option<Role> {
    Some(match file {
        "model.onnx" => Role::Model,
        "tokenizer.json" => Role::Tokenizer,
        "model.toml" => Role::Config,
        "golden.json" => Role::Golden,
        "faq.jsonl" | "index.bin" => Role::Data,
        // What an import did and cost.
        "import.json" => Role::Notice,
        _ if file.starts_with("licence")
            || file.starts_with("notice")
            || file.starts_with("license") =>
        {
            Role::Notice
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_no_package_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("minilm");
        files::make_folder(&package).unwrap();
        let release = ReleaseFolder::new(&folder.path().join("r"));
        files::make_folder(&release.objects()).unwrap();
        let refused = add_model(&release, &package, &mut Vec::new()).unwrap_err();
        assert!(matches!(refused, BuildError::Model(_)), "{refused:?}");
    }

    #[test]
    fn a_file_without_a_role_has_no_place() {
        for file in ["run.sh", "model.onnx.bak", ".hidden", "weights.bin"] {
            assert_eq!(role_of(file), None, "{file}");
        }
        assert_eq!(role_of("model.onnx"), Some(Role::Model));
        assert_eq!(role_of("licence.txt"), Some(Role::Notice));
        assert_eq!(role_of(crate::import::command::REPORT_FILE), Some(Role::Notice));
    }
}
