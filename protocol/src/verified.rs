//! Proof, in a type, that a value passed its check.

/// A value whose signatures, digests, freshness and addressee were checked.
///
/// Only this crate's verifiers make one, so a function that takes `Verified<T>` cannot be handed raw input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value.
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// The value, without the proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}
