//! What the supervisor starts, and how.

use std::{env, net::SocketAddr, path::PathBuf};

use protocol::id::Slot;
use slots::layout::StateDir;
use tokio::process::Command;

use crate::installed;

/// Environment variable that names the supervisor's process to its children: they end with it.
pub const SUPERVISOR_VARIABLE: &str = "SOCLE_SUPERVISOR";

/// Environment variable by which `socle-launch` knows the start that a try was spent on.
const START_VARIABLE: &str = "SOCLE_START";

/// Vulkan drivers look for a display here, and complain when it is not set.
const DISPLAY_FOLDER_VARIABLE: &str = "XDG_RUNTIME_DIR";

/// Options of `socle-agent run --single`, resolved.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The device's state.
    pub state: StateDir,
    /// The package's own agent.
    pub factory: PathBuf,
    /// `socle-launch`.
    pub launch: PathBuf,
    /// Folder of the sockets.
    pub runtime: PathBuf,
    /// Where the local API listens.
    pub listen: SocketAddr,
}

impl Plan {
    /// Where the local API listens on this machine alone.
    pub fn api_socket(&self) -> PathBuf {
        installed::api_socket(&self.runtime)
    }

    /// Where the worker of `slot` listens.
    pub fn worker_socket(&self, slot: Slot) -> PathBuf {
        installed::worker_socket(&self.runtime, slot)
    }

    /// Spends a try, if one is to be spent, for the start that is named so.
    pub fn arm(&self, start: &str) -> Command {
        let mut command = self.launch("arm");
        command.arg("--factory").arg(&self.factory).env(START_VARIABLE, start);
        command
    }

    /// Gives the try of a clean stop back.
    pub fn refund(&self) -> Command {
        self.launch("refund")
    }

    /// The gateway of the right slot, for the start that a try was spent on.
    pub fn gateway(&self, start: &str) -> Command {
        let mut command = self.exec();
        command.env(START_VARIABLE, start);
        command.args(["--adopt-listeners", "gateway", "--", "--runtime"]).arg(&self.runtime);
        command.arg("--listen").arg(self.listen.to_string());
        command
    }

    /// The worker of `slot`.
    pub fn worker(&self, slot: Slot) -> Command {
        let mut command = self.exec();
        command.args(["--adopt-listeners", "--slot", slot.as_str(), "worker"]);
        if env::var_os(DISPLAY_FOLDER_VARIABLE).is_none() {
            command.env(DISPLAY_FOLDER_VARIABLE, &self.runtime);
        }
        command
    }

    /// The updater.
    pub fn updater(&self) -> Command {
        let mut command = self.exec();
        command.arg("updater");
        command
    }

    fn exec(&self) -> Command {
        let mut command = self.launch("exec");
        command.arg("--factory").arg(&self.factory);
        command
    }

    fn launch(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.launch);
        command.arg(verb).arg("--state").arg(self.state.root());
        command.env(SUPERVISOR_VARIABLE, std::process::id().to_string());
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        for variable in ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"] {
            command.env_remove(variable);
        }
        command
    }
}
