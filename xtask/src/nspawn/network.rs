//! A network of the machine's own: loopback and nothing else, shared with the processes on our side.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::failure::Failure;
use crate::machine::Machine;

/// The network, which is there as long as this value; its holder ends when its standard input does.
#[derive(Debug)]
pub(crate) struct Network {
    holder: Child,
}

impl Network {
    /// Makes one.
    pub(crate) fn new(machine: &Machine) -> Result<Self, Failure> {
        let making = |error| Failure::new("making a network namespace").because(error);
        let mut command = machine.command(Path::new("unshare"));
        command.args(["--net", "sh", "-c", "ip link set lo up && echo up && read -r _"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().map_err(making)?;
        let mut line = String::new();
        let out = holder.stdout.take();
        let said = out.map(|out| BufReader::new(out).read_line(&mut line));
        match said {
            Some(Ok(_)) if line.trim() == "up" => Ok(Self { holder }),
            Some(Ok(_) | Err(_)) | None => {
                drop(holder.kill());
                drop(holder.wait());
                Err(Failure::new("a network namespace did not come up"))
            }
        }
    }

    /// Its name in the file system.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    /// A program on our side of it, which ends when we do.
    pub(crate) fn command(&self, machine: &Machine, program: &Path) -> Command {
        let mut command = machine.command(Path::new("setpriv"));
        command.args(["--pdeathsig", "KILL", "nsenter"]);
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}
