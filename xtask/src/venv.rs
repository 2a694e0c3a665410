//! Virtual environments of Python in the cache, each made of one file of pinned requirements and nothing else.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::{cache, pip, say, shell};

/// An environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environment {
    /// Its folder under `peers/` in the cache.
    pub(crate) name: &'static str,
    /// `requirements.txt`, from the root of the checkout: every package with its version and the
    /// digests of its wheels, those that others need too. What has no digest or another one is refused.
    pub(crate) requirements: &'static str,
}

/// The Python of an environment: as it is if it was made of these very requirements, else made anew, aside, and renamed
/// when whole. Its programs are reached through its Python, so that its place does not matter.
pub(crate) fn python(machine: &Machine, environment: Environment) -> Result<PathBuf, Failure> {
    let Environment { name, requirements } = environment;
    let pins = machine.root.join(requirements);
    let wanted = fs::read_to_string(&pins)
        .map_err(|error| Failure::new(format!("reading `{requirements}`")).because(error))?;
    let folder = machine.cache.join("peers").join(name);
    let python = folder.join("bin/python");
    let stamp = folder.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    say::line(&format!("installing {requirements} into the cache"));
    let system = pip::installed(machine)?;
    let preparing = |error| {
        Failure::new(format!("preparing the virtual environment `{}`", folder.display()))
            .because(error)
    };
    let parent = folder.parent().unwrap_or(&folder);
    fs::create_dir_all(parent).map_err(preparing)?;
    let work = tempfile::Builder::new().prefix(".peer-").tempdir_in(parent).map_err(preparing)?;
    let whole = work.path().join("whole");
    let mut venv = machine.command(&system);
    shell::run(venv.args(["-m", "venv", "--clear"]).arg(&whole).stdout(std::io::stderr()))?;
    let mut install = machine.command(&whole.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]);
    install.args(["--require-hashes", "--disable-pip-version-check", "--no-input"]);
    install.arg("--requirement").arg(&pins);
    shell::run(install.stdin(Stdio::null()).stdout(std::io::stderr())).map_err(|failure| {
        failure.next("check that pip reaches a package index (`pip config list`), then repeat")
    })?;
    fs::copy(&pins, whole.join("requirements.txt")).map_err(preparing)?;
    cache::put_in_place(&whole, &folder, &work.path().join("replaced")).map_err(preparing)?;
    Ok(python)
}
