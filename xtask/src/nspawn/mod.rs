//! `cargo xtask nspawn`: the Debian package on a machine whose first process is systemd.
//!
//! # Layout
//! `run` chooses scenarios and tells how they went; `possible` says whether such machines can be made
//! here, `image` keeps their root file system. A machine is a `container` on a `network` of its own;
//! its controller and broker (`fleet`) and the requests it is asked (`load`) run outside of it, and so
//! survive what it does not. `ground` is what all of them stand on, `origin` names the states to start
//! from, `stand` puts a machine together in one of them, `station` is a machine that runs. `install`,
//! `updates`, `hangs`, `power`, `upgrades` and `disks` are the scenarios.

pub(crate) mod container;
pub(crate) mod disks;
pub(crate) mod fleet;
pub(crate) mod ground;
pub(crate) mod hangs;
pub(crate) mod image;
pub(crate) mod install;
pub(crate) mod load;
pub(crate) mod network;
pub(crate) mod origin;
pub(crate) mod possible;
pub(crate) mod power;
pub(crate) mod run;
pub(crate) mod scenario;
pub(crate) mod stand;
pub(crate) mod station;
pub(crate) mod updates;
pub(crate) mod upgrades;
pub(crate) mod wait;
