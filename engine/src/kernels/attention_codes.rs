//! What the forms of [`crate::kernels::attention_words`] share.

use crate::kernels::linear::panels::Strided;

/// 4095 · 2ᶠ = P(f) for |f| ≤ 1/2, relative error ≤ 3e-6; fitted for this file.
pub(in crate::kernels) const POWER_P: [f32; 5] =
    [4094.997, 2838.3337, 983.8133, 228.98364, 39.189564];
/// 4095 times two to this is below one half, and so is everything below.
pub(in crate::kernels) const POWER_LOW: f32 = -14.0;

/// A head's columns of some rows.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Head<'a> {
    pub(in crate::kernels) rows: Strided<'a>,
    pub(in crate::kernels) count: usize,
    pub(in crate::kernels) width: usize,
    pub(in crate::kernels) steps: Steps,
}

/// How numbers become codes, and codes numbers.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Steps {
    pub(in crate::kernels) factor: f32,
    /// NaN where a number is not finite.
    pub(in crate::kernels) scale: f32,
}

/// Rows of scores.
pub(in crate::kernels) struct Scores<'a> {
    pub(in crate::kernels) data: &'a [i32],
    /// Scores of a row that count.
    pub(in crate::kernels) length: usize,
    /// Scores from a row to the next.
    pub(in crate::kernels) padded: usize,
    /// Of the difference of two.
    pub(in crate::kernels) factor: f32,
}
