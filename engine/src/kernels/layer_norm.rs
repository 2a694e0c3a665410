//! Layer normalisation, with the sum before it.

use crate::kernels::{
    isa::{Isa, for_each_isa},
    lanes::{squares_around, sum},
};

/// What a normalisation learnt.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Factor of each column.
    pub gamma: &'a [f32],
    /// What is added to each column.
    pub beta: &'a [f32],
    /// Added to the variance, so that a constant row does not divide by zero.
    pub epsilon: f32,
}

/// `out[row] = (s - mean s) / √(var s + ε) · γ + β` with `s = x[row] + residual[row]`, rows as wide as `gamma`.
///
/// Variance is the mean of squares around the mean, in a second pass; relative error ≤ 1e-5 of the largest of a row.
/// A row with a number that is not finite becomes NaN.
///
/// # Panics
/// Lengths differ.
pub fn layer_norm(isa: Isa, x: &[f32], residual: Option<&[f32]>, norm: Norm<'_>, out: &mut [f32]) {
    let width = norm.gamma.len();
    assert!(x.len() == out.len() && norm.beta.len() == width, "x, out and β do not fit γ");
    assert!(width > 0 && x.len().is_multiple_of(width), "x is not whole rows of {width}");
    out.copy_from_slice(x);
    if let Some(residual) = residual {
        assert!(residual.len() == x.len(), "the residual is not as long as x");
        add(isa, out, residual);
    }
    normalize_rows(isa, out, norm);
}

for_each_isa! {
    /// `out[i] += x[i]`.
    pub fn add(isa: Isa, out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out += x;
        }
    }
}

fn normalize_rows(isa: Isa, rows: &mut [f32], norm: Norm<'_>) {
    let count = norm.gamma.len() as f32;
    for row in rows.chunks_exact_mut(norm.gamma.len()) {
        let mean = sum(isa, row) / count;
        let variance = squares_around(isa, row, mean) / count;
        let inverse = 1.0 / (variance + norm.epsilon).sqrt();
        shift_and_scale(isa, row, mean, inverse, norm);
    }
}

for_each_isa! {
    fn shift_and_scale(isa: Isa, row: &mut [f32], mean: f32, inverse: f32, norm: Norm<'_>) {
        for ((value, gamma), beta) in row.iter_mut().zip(norm.gamma).zip(norm.beta) {
            *value = ((*value - mean) * inverse).mul_add(*gamma, *beta);
        }
    }
}
