//! What machines stand on: our machine, their network, the folder of programs, a folder to work in.

use std::path::PathBuf;

use crate::machine::Machine;
use crate::nspawn::fleet::Side;
use crate::nspawn::network::Network;

/// The ground.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    /// Our machine.
    pub(crate) machine: &'a Machine,
    /// The network that machine and fleet share.
    pub(crate) network: &'a Network,
    /// Programs, packages, model and questions; the machine sees it as /rig.
    pub(crate) rig: PathBuf,
    /// Where everything else is put.
    pub(crate) work: PathBuf,
}

impl Ground<'_> {
    /// What the fleet needs to know.
    pub(crate) fn side(&self) -> Side<'_> {
        Side { machine: self.machine, network: self.network, rig: &self.rig }
    }

    /// The folder of the fleet, which is always the same: its files name it.
    pub(crate) fn fleet_folder(&self) -> PathBuf {
        self.work.join("fleet")
    }
}
