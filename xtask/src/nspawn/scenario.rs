//! What a scenario is.

use crate::failure::Failure;
use crate::nspawn::station::Station;

/// The state that a machine starts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum From {
    /// Debian without us.
    Bare,
    /// With the package, as the scenario `install` left it.
    Installed,
    /// In a fleet, with its first release committed, as `enrol` left it.
    Enrolled,
    /// The same, its state on a disk of its own with this many bytes left.
    OnDisk(u64),
}

/// One thing that a machine goes through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// The name that `--only` takes.
    pub(crate) name: &'static str,
    /// What is held, in a sentence.
    pub(crate) about: &'static str,
    /// Where it starts.
    pub(crate) from: From,
    /// Whether it belongs to the quick form.
    pub(crate) quick: bool,
    /// Does it; gives what is worth telling, or what did not hold.
    pub(crate) run: fn(&mut Station<'_>) -> Result<String, Failure>,
}
