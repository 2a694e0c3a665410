//! Whether containers with systemd as their first process can be made on this machine.

use std::path::Path;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::{packages, shell};

/// What a container is made of, tried once before anything is built: namespaces, a cgroup hierarchy
/// of version 2, and an overlay whose upper layer lies in `$1`.
const TRIAL: &str = "\
umount -R /sys/fs/cgroup 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup && test -w /sys/fs/cgroup/cgroup.procs || exit 1
cd \"$1\" && mkdir lower upper scratch whole &&
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=scratch whole";

/// Installs what is missing, and fails with the reason if it cannot be done here.
pub(crate) fn check(machine: &Machine) -> Result<(), Failure> {
    if !machine.superuser {
        return Err(Failure::missing("only root can boot a container")
            .next("run it as root: sudo -E cargo xtask nspawn"));
    }
    packages::ensure_for_machines(machine)?;
    let work = tempfile::tempdir()
        .map_err(|error| Failure::new("making a temporary folder").because(error))?;
    namespaces(machine, work.path())
}

fn namespaces(machine: &Machine, work: &Path) -> Result<(), Failure> {
    let mut command = machine.command(Path::new("unshare"));
    command.args(["-m", "-C", "--propagation", "private", "sh", "-c", TRIAL, "sh"]).arg(work);
    let printed = shell::read(command.stdout(std::process::Stdio::piped()))?;
    if printed.status.success() {
        return Ok(());
    }
    let words = printed.err.trim();
    Err(Failure::missing(format!("this machine gives no namespaces, cgroups or overlays: {words}"))
        .next("run it outside of a container, or set TMPDIR to a folder on a disk of its own"))
}
