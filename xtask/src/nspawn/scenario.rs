//! What a scenario is.

use crate::failure::Failure;
use crate::nspawn::origin::From;
use crate::nspawn::station::Station;

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
