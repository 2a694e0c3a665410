//! A container whose first process is systemd: booted, entered, rebooted, and bereft of its power.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;
use crate::machine::Machine;
use crate::nspawn::network::Network;
use crate::nspawn::wait;
use crate::shell::{self, Printed};

const BOOT_MAX: Duration = Duration::from_secs(90);
const END_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// Mounts what the container is made of, in namespaces of its own so that nothing is left behind, and
/// boots it. It is killed when our end of standard input closes, however that came about. A hierarchy of
/// version 2 and a writable /run/systemd are made whatever the host has.
const BOOT: &str = r#"
set -eu
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$NAME"
echo $$ >"/sys/fs/cgroup/$NAME/cgroup.procs"
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$SCRATCH" "$ROOT"
# Not `mount -o loop`, which asks every loop device what it is, and waits if another's disk does not answer.
if [ -n "$DISK" ]; then
    loop=$(losetup --find --show "$DISK")
    mount "$loop" "$VARLIB/socle"
    # It goes when it is no longer mounted.
    losetup --detach "$loop"
fi
exec 3<&0
systemd-nspawn -q -M "$NAME" -D "$ROOT" --register=no --keep-unit --boot --console=read-only \
    --network-namespace-path="$NET" --bind="$VARLIB":/var/lib --bind-ro="$RIG":/rig </dev/null &
nspawn=$!
(read -r _ || pkill -KILL -P "$nspawn") <&3 &
guard=$!
code=0
wait "$nspawn" || code=$?
kill "$guard" 2>/dev/null || true
exit "$code"
"#;

/// What a container is made of.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Read-only layers of its root, topmost first, divided by colons.
    pub(crate) lower: String,
    /// Where its changes go.
    pub(crate) upper: PathBuf,
    /// What an overlay needs beside that.
    pub(crate) scratch: PathBuf,
    /// Where its root is mounted.
    pub(crate) root: PathBuf,
    /// Its /var/lib: no overlay, so that folders are renamed and files linked as on a real disk.
    pub(crate) varlib: PathBuf,
    /// A disk image for its /var/lib/socle.
    pub(crate) disk: Option<PathBuf>,
    /// Programs and files that it sees as /rig.
    pub(crate) rig: PathBuf,
}

/// A running container.
#[derive(Debug)]
pub(crate) struct Container {
    outer: Child,
    leader: Pid,
}

impl Container {
    /// Boots one and waits until systemd has started what there is to start.
    pub(crate) fn boot(
        machine: &Machine,
        parts: &Parts,
        network: &Network,
    ) -> Result<Self, Failure> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut command = machine.command(Path::new("unshare"));
        command.args(["-m", "-C", "--propagation", "private", "bash", "-c", BOOT]);
        command.env("NAME", format!("socle-{}-{count}", std::process::id()));
        command.env("LOWER", &parts.lower).env("UPPER", &parts.upper);
        command.env("SCRATCH", &parts.scratch).env("ROOT", &parts.root);
        command.env("VARLIB", &parts.varlib).env("RIG", &parts.rig).env("NET", network.path());
        command.env("DISK", parts.disk.as_deref().unwrap_or(Path::new("")));
        let console = parts.root.with_extension("console");
        let log = std::fs::File::create(&console)
            .and_then(|log| log.try_clone().map(|other| (log, other)))
            .map_err(|error| Failure::new("making the console's log").because(error))?;
        command.stdin(Stdio::piped()).stdout(log.0).stderr(log.1);
        let mut outer = command
            .spawn()
            .map_err(|error| Failure::new("`unshare` could not be started").because(error))?;
        let booted = wait::until(BOOT_MAX, LOOK, || match outer.try_wait() {
            Ok(Some(_)) | Err(_) => Some(None),
            Ok(None) => {
                leader(machine, outer.id()).filter(|leader| is_up(machine, *leader)).map(Some)
            }
        });
        match booted.flatten() {
            Some(leader) => Ok(Self { outer, leader }),
            None => {
                drop(outer.stdin.take());
                if wait::until(END_MAX, LOOK, || outer.try_wait().ok().flatten()).is_none() {
                    drop(outer.kill());
                    drop(outer.wait());
                }
                let said = std::fs::read_to_string(&console).unwrap_or_default();
                let said: Vec<&str> = said.lines().rev().take(12).collect();
                let said = said.into_iter().rev().collect::<Vec<_>>().join("\n");
                Err(Failure::new(format!("the container did not boot; its console:\n{said}")))
            }
        }
    }

    /// Runs words of the shell inside, as root.
    pub(crate) fn sh(&self, machine: &Machine, script: &str) -> Result<Printed, Failure> {
        shell::read(enter(machine, self.leader).args(["bash", "-c", script]))
    }

    /// The container's files as we see them, with what is mounted there.
    pub(crate) fn files(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.leader.as_raw_nonzero()))
    }

    /// Kills the first process: nothing inside is told, nothing is written any more.
    pub(crate) fn cut_power(mut self) -> Result<(), Failure> {
        kill_process(self.leader, Signal::KILL).map_err(|error| {
            Failure::new("killing the container's first process").because(error)
        })?;
        self.wait()
    }

    /// Has it shut down in order, by `systemctl poweroff` or `reboot`, and waits for its end.
    pub(crate) fn shut_down(mut self, machine: &Machine, how: &str) -> Result<(), Failure> {
        self.sh(machine, &format!("systemctl {how} --no-block"))?;
        self.wait()
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let ended = wait::until(END_MAX, LOOK, || self.outer.try_wait().ok().flatten());
        ended.map(|_| ()).ok_or_else(|| Failure::new("the container did not end within a minute"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if matches!(self.outer.try_wait(), Ok(None)) {
            // The guard kills the container; then the shell that mounted everything ends.
            drop(self.outer.stdin.take());
        }
        drop(self.outer.wait());
    }
}

fn enter(machine: &Machine, leader: Pid) -> Command {
    let mut command = machine.command(Path::new("nsenter"));
    command.args(["-t", &leader.as_raw_nonzero().to_string(), "-a", "--"]).current_dir("/");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("HOME", "/root");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn is_up(machine: &Machine, leader: Pid) -> bool {
    let mut command = enter(machine, leader);
    let state = shell::read(command.args(["systemctl", "is-system-running"]));
    state.is_ok_and(|state| matches!(state.out.trim(), "running" | "degraded"))
}

/// The container's first process: the child of the nspawn that is a child of our shell.
fn leader(machine: &Machine, shell: u32) -> Option<Pid> {
    let nspawn = child(machine, &["-x", "systemd-nspawn", "-P", &shell.to_string()])?;
    child(machine, &["-P", &nspawn.to_string()]).and_then(Pid::from_raw)
}

fn child(machine: &Machine, by: &[&str]) -> Option<i32> {
    let mut command = machine.command(Path::new("pgrep"));
    let printed = shell::read(command.args(by).stdout(Stdio::piped())).ok()?;
    printed.out.lines().next()?.trim().parse().ok()
}
