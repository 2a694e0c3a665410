//! Memory that a thread keeps between calls, so that kernels allocate only when a call is larger than any before.

use std::cell::Cell;

use crate::kernels::{aligned::Aligned, quantize::BlockCodes};

/// What kernels write while they compute. It never carries anything from one call to the next.
#[derive(Debug, Default)]
pub(in crate::kernels) struct Scratch {
    /// Quantized rows.
    pub(in crate::kernels) codes: BlockCodes,
    /// Quantized rows of one scale, as bytes, and the sum of each.
    pub(in crate::kernels) bytes: Vec<u8>,
    /// Sums of rows.
    pub(in crate::kernels) sums: Vec<i32>,
    /// Quantized queries.
    pub(in crate::kernels) queries: Aligned,
    /// Packed keys.
    pub(in crate::kernels) keys: Aligned,
    /// Packed values.
    pub(in crate::kernels) values: Aligned,
    /// Scores.
    pub(in crate::kernels) scores: Aligned,
    /// Quantized weights of attention.
    pub(in crate::kernels) weights: Aligned,
}

thread_local! {
    static KEPT: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Runs `work` with this thread's memory. A nested call gets memory of its own.
pub(in crate::kernels) fn with<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = KEPT.take().unwrap_or_default();
    let result = work(&mut scratch);
    KEPT.set(Some(scratch));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_and_a_nested_call_does_not_share_it() {
        with(|outer| {
            outer.bytes.resize(10, 1);
            with(|inner| assert!(inner.bytes.is_empty()));
        });
        with(|again| assert_eq!(again.bytes.len(), 10));
    }
}
