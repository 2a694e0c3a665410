//! Power cuts as a disk sees them: a disk that notes every write and flush under a real ext4, the real updater and
//! launcher on it, and the machine started again from what any cut may leave.
//!
//! # Layout
//! - [`image`], [`log`], [`cuts`]: a disk's content, its history, where power is cut in it; pure
//! - [`shelf`], [`served`], [`orders`], [`disks`]: disks as FUSE files, served by a process of their own
//! - [`needs`], [`mounted`], [`ended`]: the machine, file systems, and programs that end
//! - [`course`], [`machine`], [`history`]: an update's moves, the device that makes them, what is recorded
//! - [`recovery`], [`sweep`], [`parallel`]: what must hold after a cut, and many cuts at a time
//! - [`trouble`]: a disk that fails in the middle of an update
//! - [`campaign`], [`place`]: a whole run, and where it takes place

pub mod campaign;
pub mod course;
pub mod cuts;
pub mod disks;
pub mod ended;
pub mod history;
pub mod image;
pub mod log;
pub mod machine;
pub mod mounted;
pub mod needs;
pub mod orders;
pub mod parallel;
pub mod place;
pub mod recovery;
pub mod served;
pub mod shelf;
pub mod sweep;
pub mod trouble;
