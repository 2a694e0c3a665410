//! Where scenarios start.

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
