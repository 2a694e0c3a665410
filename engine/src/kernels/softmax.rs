//! Softmax along rows.

use crate::kernels::{elementary, isa::for_each_isa};

/// Numbers that are reduced side by side. Every form keeps this order of summation.
const LANES: usize = 16;

for_each_isa! {
    /// Each row of `width` becomes e^(x - max) / Σ e^(x - max), relative error ≤ 1e-6.
    ///
    /// An entry of -∞ becomes 0. A row with NaN or +∞, or with -∞ alone, becomes NaN.
    pub fn softmax(isa: Isa, rows: &mut [f32], width: usize) {
        for row in rows.chunks_exact_mut(width.max(1)) {
            let inverse = 1.0 / exponentials(row, 1.0);
            for value in row {
                *value *= inverse;
            }
        }
    }
}

/// Replaces each `x` by e^(scale · (x - max)), for a `scale` above 0, and returns their sum.
#[inline(always)]
pub(in crate::kernels) fn exponentials(row: &mut [f32], scale: f32) -> f32 {
    let most = largest(row);
    let offset = -most * scale;
    let mut sums = [0_f32; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (value, sum) in chunk.iter_mut().zip(&mut sums) {
            *value = elementary::exp(value.mul_add(scale, offset));
            *sum += *value;
        }
    }
    for (value, sum) in chunks.into_remainder().iter_mut().zip(&mut sums) {
        *value = elementary::exp(value.mul_add(scale, offset));
        *sum += *value;
    }
    folded(sums)
}

/// The sum of all lanes, halves onto halves.
#[inline(always)]
pub(in crate::kernels) fn folded(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        let (low, high) = lanes.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
    }
    lanes[0]
}

/// The largest number; -∞ of none. NaN is passed over here, and shows in the sum.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    for (value, most) in chunks.remainder().iter().zip(&mut most) {
        *most = if *value > *most { *value } else { *most };
    }
    for chunk in chunks {
        for (value, most) in chunk.iter().zip(&mut most) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    most.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}
