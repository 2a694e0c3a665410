//! Softmax along rows.

use crate::kernels::{
    elementary,
    isa::{Isa, for_each_isa},
    lanes::{LANES, filled, folded, largest},
};

/// Rows whose largest numbers are found before their exponentials are computed, so that the two overlap.
const ROWS: usize = 12;

/// Each row of `width` becomes e^(x - max) / Σ e^(x - max), relative error ≤ 1e-6.
///
/// An entry of -∞ becomes 0. A row with NaN or +∞, or with -∞ alone, becomes NaN.
pub fn softmax(isa: Isa, rows: &mut [f32], width: usize) {
    let mut sums = [0.0; ROWS];
    for rows in rows.chunks_mut(ROWS * width.max(1)) {
        let sums = &mut sums[..rows.len() / width.max(1)];
        exponentials(isa, rows, width, 1.0, sums);
        divide(isa, rows, width, sums);
    }
}

/// Replaces each `x` of the rows of `width` by e^(scale · (x - max)), for a `scale` above 0, and writes down the sum
/// of each row; at most [`ROWS`] of them.
pub(in crate::kernels) fn exponentials(
    isa: Isa,
    rows: &mut [f32],
    width: usize,
    scale: f32,
    sums: &mut [f32],
) {
    let mut offsets = [0.0; ROWS];
    for (row, offset) in rows.chunks_exact(width).zip(&mut offsets) {
        *offset = -largest(isa, row) * scale;
    }
    powers(isa, rows, width, scale, &offsets, sums);
}

for_each_isa! {
    fn powers(
        isa: Isa,
        rows: &mut [f32],
        width: usize,
        scale: f32,
        offsets: &[f32; ROWS],
        sums: &mut [f32],
    ) {
        for ((row, offset), sum) in rows.chunks_exact_mut(width).zip(offsets).zip(sums) {
            let mut lanes = [0_f32; LANES];
            let (chunks, rest) = row.as_chunks_mut::<LANES>();
            for chunk in chunks {
                power(chunk, scale, *offset, &mut lanes);
            }
            if !rest.is_empty() {
                let mut last = filled(rest, f32::NEG_INFINITY);
                power(&mut last, scale, *offset, &mut lanes);
                rest.copy_from_slice(&last[..rest.len()]);
            }
            *sum = folded(lanes);
        }
    }
}

#[inline(always)]
fn power(chunk: &mut [f32; LANES], scale: f32, offset: f32, sums: &mut [f32; LANES]) {
    for (value, sum) in chunk.iter_mut().zip(sums) {
        *value = elementary::exp_of_negative(value.mul_add(scale, offset));
        *sum += *value;
    }
}

for_each_isa! {
    fn divide(isa: Isa, rows: &mut [f32], width: usize, sums: &[f32]) {
        for (row, sum) in rows.chunks_exact_mut(width).zip(sums) {
            let inverse = 1.0 / sum;
            for value in row {
                *value *= inverse;
            }
        }
    }
}
