//! What a machine needs beyond cargo, as a table; installed with apt as root, else asked for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::machine::Machine;
use crate::{say, shell};

/// How to see that a need is met.
#[derive(Debug)]
enum Sign {
    /// A program in PATH.
    Program(&'static str),
    /// One of these files.
    AnyFile(&'static [&'static str]),
    /// A Python module that can be run.
    Module(&'static str),
}

/// One thing from the distribution.
#[derive(Debug)]
struct Package {
    /// Its name in Debian.
    name: &'static str,
    /// What we do with it.
    why: &'static str,
    sign: Sign,
}

const PACKAGES: [Package; 10] = [
    Package {
        name: "build-essential",
        why: "the C compiler that ring and SQLite are built with",
        sign: Sign::Program("cc"),
    },
    Package {
        name: "mosquitto",
        why: "the real broker of `demo --mosquitto`",
        sign: Sign::Program("mosquitto"),
    },
    Package {
        name: "mosquitto-clients",
        why: "an independent subscriber for the broker tests",
        sign: Sign::Program("mosquitto_sub"),
    },
    Package {
        name: "libvulkan1",
        why: "the Vulkan loader that the GPU kernels are run through",
        sign: Sign::AnyFile(&[
            "/usr/lib/x86_64-linux-gnu/libvulkan.so.1",
            "/usr/lib/aarch64-linux-gnu/libvulkan.so.1",
            "/usr/lib64/libvulkan.so.1",
        ]),
    },
    Package {
        name: "mesa-vulkan-drivers",
        why: "a software GPU, so that the kernels are checked without a real one",
        sign: Sign::AnyFile(&[
            "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
            "/usr/share/vulkan/icd.d/lvp_icd.aarch64.json",
            "/usr/share/vulkan/icd.d/lvp_icd.json",
        ]),
    },
    Package {
        name: "systemd",
        why: "`systemd-analyze`, which checks the units",
        sign: Sign::Program("systemd-analyze"),
    },
    Package {
        name: "python3-pip",
        why: "fetches the model (nothing of it is run)",
        sign: Sign::Module("pip"),
    },
    Package {
        name: "python3-venv",
        why: "keeps the peers that we compare with out of the system",
        sign: Sign::Module("venv"),
    },
    Package {
        name: "mount",
        why: "mounts the disks of the power-cut test",
        sign: Sign::Program("mount"),
    },
    Package {
        name: "e2fsprogs",
        why: "makes their file systems",
        sign: Sign::AnyFile(&["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"]),
    },
];

/// What machines with systemd as their first process are made of; see `nspawn`.
const FOR_MACHINES: [Package; 8] = [
    Package {
        name: "systemd-container",
        why: "boots the machines",
        sign: Sign::Program("systemd-nspawn"),
    },
    Package {
        name: "mmdebstrap",
        why: "makes their root file system",
        sign: Sign::Program("mmdebstrap"),
    },
    Package { name: "iproute2", why: "their network", sign: Sign::Program("ip") },
    Package { name: "e2fsprogs", why: "their disks", sign: Sign::Program("mkfs.ext4") },
    Package { name: "procps", why: "finds their processes", sign: Sign::Program("pgrep") },
    Package { name: "util-linux", why: "namespaces", sign: Sign::Program("nsenter") },
    Package { name: "dpkg-dev", why: "packing", sign: Sign::Program("dpkg-shlibdeps") },
    Package { name: "mosquitto", why: "their broker", sign: Sign::Program("mosquitto") },
];

/// What updates are compared with; see `bench_update`.
const FOR_UPDATES: [Package; 2] = [
    Package { name: "zstd", why: "makes the patches to compare with", sign: Sign::Program("zstd") },
    Package { name: "coreutils", why: "hashes beside us", sign: Sign::Program("sha256sum") },
];

/// Installs what is missing and names it; without the right to, fails and gives the command.
pub(crate) fn ensure(machine: &Machine) -> Result<String, Failure> {
    ensure_of(machine, &PACKAGES)
}

/// The same for [`FOR_MACHINES`].
pub(crate) fn ensure_for_machines(machine: &Machine) -> Result<String, Failure> {
    ensure_of(machine, &FOR_MACHINES)
}

/// The same for [`FOR_UPDATES`].
pub(crate) fn ensure_for_updates(machine: &Machine) -> Result<String, Failure> {
    ensure_of(machine, &FOR_UPDATES)
}

fn ensure_of(machine: &Machine, packages: &[Package]) -> Result<String, Failure> {
    let missing: Vec<&Package> =
        packages.iter().filter(|package| !is_met(machine, &package.sign)).collect();
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if names.is_empty() {
        return Ok("nothing was missing".to_owned());
    }
    let reasons: Vec<String> =
        missing.iter().map(|package| format!("{} ({})", package.name, package.why)).collect();
    if !machine.superuser {
        return Err(Failure::missing(format!("not installed: {}", reasons.join(", ")))
            .next(format!("sudo apt-get install -y --no-install-recommends {}", names.join(" "))));
    }
    say::line(&format!("installing {}", reasons.join(", ")));
    install(machine, &names)?;
    Ok(format!("installed {}", names.join(", ")))
}

/// Installs, and refreshes the package lists only when that did not do.
fn install(machine: &Machine, names: &[&str]) -> Result<(), Failure> {
    let apt = machine.program("apt-get").ok_or_else(|| {
        Failure::missing("this machine has no `apt-get`")
            .next(format!("install with its own package manager: {}", names.join(", ")))
    })?;
    if shell::run(&mut apt_install(machine, &apt, names)).is_ok() {
        return Ok(());
    }
    shell::run(quiet(&mut machine.command(&apt)).args(["update", "-q"]))?;
    shell::run(&mut apt_install(machine, &apt, names))
}

fn apt_install(machine: &Machine, apt: &Path, names: &[&str]) -> Command {
    let mut command = machine.command(apt);
    quiet(&mut command).args(["install", "-y", "-q", "--no-install-recommends"]).args(names);
    command
}

fn quiet(command: &mut Command) -> &mut Command {
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(std::io::stderr())
}

fn is_met(machine: &Machine, sign: &Sign) -> bool {
    match sign {
        Sign::Program(name) => machine.program(name).is_some(),
        Sign::AnyFile(files) => files.iter().any(|file| Path::new(file).is_file()),
        Sign::Module(name) => {
            machine.program("python3").is_some_and(|python| module(&python, name))
        }
    }
}

fn module(python: &PathBuf, name: &str) -> bool {
    let probe = Command::new(python).args(["-m", name, "--help"]).stdin(Stdio::null()).output();
    probe.is_ok_and(|output| output.status.success())
}
