//! What is fed with random inputs.

use fastrand::Rng;

/// Something that reads bytes from outside.
pub trait Target {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// An input: a valid one changed, or bytes that were never valid.
    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>>;

    /// Reads an input; whether it was accepted. Refusing is what is expected, panicking is not.
    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool>;
}
