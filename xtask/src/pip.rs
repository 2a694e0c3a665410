//! `pip download` of one pinned wheel: no dependencies, no build scripts, nothing run from it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use indicatif::ProgressBar;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::shell;
use crate::wheel::{self, Wheel};

/// How often the progress bar looks at how much has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Downloads a wheel into `folder` (which must be empty) and checks it against its pin.
pub(crate) fn download(
    machine: &Machine,
    wheel: &Wheel,
    folder: &Path,
    bar: &ProgressBar,
) -> Result<PathBuf, Failure> {
    download_for(machine, wheel, &[], folder, bar)
}

/// The same where a version has a wheel for each kind of machine: `tags` are pip's options that name the pinned one,
/// whatever machine this is, since nothing is run from it.
pub(crate) fn download_for(
    machine: &Machine,
    wheel: &Wheel,
    tags: &[&str],
    folder: &Path,
    bar: &ProgressBar,
) -> Result<PathBuf, Failure> {
    let pip = installed(machine)?;
    let scratch = folder.join("scratch");
    std::fs::create_dir_all(&scratch).map_err(|error| {
        Failure::new(format!("making the folder `{}`", scratch.display())).because(error)
    })?;
    let mut command = machine.command(&pip);
    command
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"])
        .args(tags)
        .args(["--disable-pip-version-check", "--no-input", "--no-cache-dir"])
        .args(["--quiet", "--retries", "3", "--timeout", "30", "--dest"])
        .arg(folder)
        .arg(wheel.requirement)
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null());
    watched(&mut command, &scratch, bar).map_err(|_| no_network(wheel))?;
    let archive = wheel::find(folder).ok_or_else(|| {
        Failure::new(format!("pip ended well but left no wheel of {}", wheel.requirement))
    })?;
    wheel::verify(wheel, &archive, &ProgressBar::hidden())?;
    Ok(archive)
}

/// A Python that has pip, or what to do about it.
pub(crate) fn installed(machine: &Machine) -> Result<PathBuf, Failure> {
    let advice = "install it (Debian: `apt-get install -y python3-pip python3-venv`), then repeat";
    let python = machine.program("python3").ok_or_else(|| {
        Failure::missing("`python3`, whose pip fetches pinned files, is not installed").next(advice)
    })?;
    let printed = shell::read(Command::new(&python).args(["-m", "pip", "--version"]))?;
    if printed.status.success() {
        return Ok(python);
    }
    Err(Failure::missing("this python3 has no pip, which fetches pinned files").next(advice))
}

fn no_network(wheel: &Wheel) -> Failure {
    Failure::missing(format!(
        "pip could not fetch {}; its own words stand above",
        wheel.requirement
    ))
    .next("check that pip reaches a package index (`pip config list`, HTTPS_PROXY), then repeat")
}

/// Runs pip on a thread of its own and meanwhile moves the bar by what has arrived.
fn watched(command: &mut Command, scratch: &Path, bar: &ProgressBar) -> Result<(), Failure> {
    let start = bar.position();
    std::thread::scope(|scope| {
        let (done, ended) = mpsc::sync_channel(1);
        let runner = scope.spawn(move || {
            let result = shell::run(command);
            drop(done);
            result
        });
        while ended.recv_timeout(LOOK_EVERY) == Err::<(), _>(RecvTimeoutError::Timeout) {
            bar.set_position(bar.position().max(start + arrived(scratch)));
        }
        runner.join().unwrap_or_else(|_| Err(Failure::new("the thread that ran pip panicked")))
    })
}

/// Bytes of all files under a folder; what vanishes meanwhile counts nothing.
fn arrived(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => arrived(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
