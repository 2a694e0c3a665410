//! What the machine must have, and a mount namespace of our own, with which all mounts go however the harness ends.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::geteuid;

use crate::blocks::ended::well;

/// Set in the process that has the namespace.
const INSIDE: &str = "SOCLE_BLOCKS_INSIDE";
const DEVICES: [(&str, &str); 2] = [
    ("/dev/fuse", "load the kernel module `fuse`; in a container pass `--device /dev/fuse`"),
    ("/dev/loop-control", "load the kernel module `loop`; in a container run it privileged"),
];
const PROGRAMS: [(&str, &str); 5] = [
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
];
/// Empty folders of every distribution that may be hidden: what is mounted there is seen by us alone.
const FOLDERS: [&str; 3] = ["/media", "/mnt", "/srv"];

/// What is missing, each with how to get it.
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !geteuid().is_root() {
        missing.push("the right to mount: run it as root".to_owned());
    }
    for (device, advice) in DEVICES {
        if !Path::new(device).exists() {
            missing.push(format!("{device}: {advice}"));
        }
    }
    for (program, package) in PROGRAMS {
        if path(program).is_none() {
            missing.push(format!("`{program}`: apt-get install -y {package}"));
        }
    }
    missing
}

/// One of the programs that [`missing`] looks for.
pub fn command(program: &str) -> Command {
    Command::new(path(program).unwrap_or_else(|| program.into()))
}

/// Whether this process has its own mount namespace already.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Becomes the same program with the same arguments in a mount namespace of its own. Returns only when that fails.
pub fn enter() -> anyhow::Result<()> {
    let program = env::current_exe().context("finding this program")?;
    let mut unshare = command("unshare");
    unshare.args(["--mount", "--propagation", "private", "--"]).arg(program);
    unshare.args(env::args_os().skip(1)).env(INSIDE, "1");
    let refusal = unshare.exec();
    Err(refusal).context("starting `unshare`, which makes a mount namespace")
}

/// A folder in memory that nobody else sees and that leaves nothing behind. Neither of `visible` is hidden by it.
pub fn folder(visible: &[&Path]) -> anyhow::Result<PathBuf> {
    ensure!(is_inside(), "a folder of our own needs a mount namespace of our own");
    let free = FOLDERS.iter().map(Path::new).find(|folder| {
        fs::read_dir(folder).is_ok() && !visible.iter().any(|path| path.starts_with(folder))
    });
    let Some(folder) = free else { bail!("none of {} can be mounted on", FOLDERS.join(", ")) };
    let mut mount = command("mount");
    mount.args(["-t", "tmpfs", "-o", "size=256m,mode=700", "socle-blocks"]).arg(folder);
    well(&mut mount, "mount of a file system in memory")?;
    Ok(folder.to_owned())
}

/// Below `folder` from now on, what a program started by [`apart`] mounts is seen here, too.
pub fn share(folder: &Path) -> anyhow::Result<()> {
    let mut mount = command("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m,mode=700", "socle-blocks"]).arg(folder);
    well(&mut mount, "mount of a file system in memory")?;
    well(command("mount").arg("--make-shared").arg(folder), "mount --make-shared").map(|_| ())
}

/// `program`, to be started in a mount namespace of its own, in which nothing appears that is mounted here outside of
/// what [`share`] was told.
pub fn apart(program: &Path) -> Command {
    let mut unshare = command("unshare");
    unshare.args(["--mount", "--propagation", "unchanged", "--"]).arg(program);
    unshare
}

fn path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Not everyone who becomes root gets root's path.
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}
