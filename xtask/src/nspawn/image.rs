//! The root file system of the machines: a small Debian, made once and kept in the user's cache.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::machine::Machine;
use crate::{cache, say, shell};

const SUITE: &str = "bookworm";
/// Counts up when [`INCLUDE`] changes.
const EDITION: u32 = 1;
/// What the package depends upon, and with what the machine is looked into. The Vulkan driver is a
/// software one: it compiles to machine code inside the worker, as those of real GPUs do.
const INCLUDE: &str = "--include=systemd,systemd-sysv,dbus,udev,debconf,init-system-helpers,\
                       iproute2,procps,curl,libvulkan1,mesa-vulkan-drivers";

/// The folder of the root file system, which is never written to once it is there.
pub(crate) fn ensure(machine: &Machine) -> Result<PathBuf, Failure> {
    let parent = machine.cache.join("nspawn");
    let folder = parent.join(format!("{SUITE}-{EDITION}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    say::line(&format!("making a Debian root in {} (about a minute)", folder.display()));
    let aside = |error| Failure::new(format!("preparing `{}`", folder.display())).because(error);
    std::fs::create_dir_all(&parent).map_err(aside)?;
    let work = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent).map_err(aside)?;
    let whole = work.path().join("root");
    let mut command = machine.command(Path::new("mmdebstrap"));
    command.args(["--quiet", "--variant=minbase", INCLUDE, SUITE]).arg(&whole);
    command.args(sources(Path::new("/etc/apt"))).stdin(std::process::Stdio::null());
    say::line(&format!("$ {}", shell::line(&command)));
    shell::run(&mut command)?;
    cache::put_in_place(&whole, &folder, &work.path().join("replaced")).map_err(aside)?;
    Ok(folder)
}

/// The machine's own lists of this suite, so that its mirror is used; none where it has none, and
/// then Debian's.
fn sources(apt: &Path) -> Vec<PathBuf> {
    let parts = std::fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    files.push(apt.join("sources.list"));
    files.retain(|file| std::fs::read_to_string(file).is_ok_and(|text| names_suite(&text)));
    files.sort();
    files
}

fn names_suite(text: &str) -> bool {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(str::split_whitespace).any(|word| word == SUITE)
}

#[cfg(test)]
mod tests {
    use super::names_suite;

    #[test]
    fn lists_of_other_suites_are_left_out() {
        for (text, expected) in [
            ("deb http://mirror/debian bookworm main", true),
            ("Types: deb\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n", true),
            ("deb https://elsewhere/apt cloud-bookworm main", false),
            ("# deb http://mirror/debian bookworm main", false),
        ] {
            assert_eq!(names_suite(text), expected, "{text}");
        }
    }
}
