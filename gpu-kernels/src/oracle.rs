//! The kernels' results computed plainly in f64, and how far a kernel may be from them.

use crate::q8_weights::{BLOCK, Q8Weights};

/// One expected number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// The sum.
    pub value: f64,
    /// The sum of the magnitudes of its terms: what rounding errors are measured by.
    pub magnitude: f64,
    /// How many terms were summed.
    pub terms: usize,
}

impl Expected {
    /// How far an f32 sum in any order may be from `value`.
    ///
    /// The bound is γₖ = k·u / (1 − k·u) over the magnitude (Higham, "Accuracy and Stability of
    /// Numerical Algorithms", §3.1), with u = 2⁻²³ since Vulkan does not promise rounding to
    /// nearest, and three more roundings per term: of scale·q, of the product, of the bias. Numbers
    /// below the smallest normal one may be flushed to zero.
    pub fn tolerance(&self) -> f64 {
        let steps = self.terms as f64 + 3.0;
        let unit = f64::from(f32::EPSILON) * steps;
        let gamma = unit / (1.0 - unit);
        gamma * self.magnitude + 2.0 * steps * f64::from(f32::MIN_POSITIVE)
    }

    /// Whether `got` is within [`Expected::tolerance`].
    pub fn allows(&self, got: f32) -> bool {
        (f64::from(got) - self.value).abs() <= self.tolerance()
    }
}

/// `out[m, n] = Σₖ input[m, k] · scale[k/32, n] · q[k, n] + bias[n]`, row-major.
///
/// `input` holds whole rows of `weights.k()`, `bias` is `weights.n()` long; the rest of a ragged
/// last row is ignored.
pub fn linear_q8(input: &[f32], weights: &Q8Weights, bias: Option<&[f32]>) -> Vec<Expected> {
    let (k, n) = (weights.k(), weights.n());
    let mut out = Vec::with_capacity(input.len() / k * n);
    for row in input.chunks_exact(k) {
        for column in 0..n {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[column]));
            let mut sum = Expected { value: bias, magnitude: bias.abs(), terms: k };
            for (at, value) in row.iter().enumerate() {
                let scale = weights.scales()[column * (k / BLOCK) + at / BLOCK];
                let quant = weights.quants()[column * k + at];
                let term = f64::from(*value) * f64::from(scale) * f64::from(quant);
                sum.value += term;
                sum.magnitude += term.abs();
            }
            out.push(sum);
        }
    }
    out
}

/// Norm of the differences over norm of the expected values: one figure for a whole matrix.
pub fn relative_error(got: &[f32], expected: &[Expected]) -> f64 {
    let (mut off, mut norm) = (0.0, 0.0);
    for (got, expected) in got.iter().zip(expected) {
        off += (f64::from(*got) - expected.value).powi(2);
        norm += expected.value.powi(2);
    }
    if norm == 0.0 { off.sqrt() } else { (off / norm).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_done_by_hand() {
        // Column 0 is all 2·1, column 1 counts 0..32 with scale 0.5.
        let quants = [vec![2i8; 32], (0..32).collect()].concat();
        let weights = Q8Weights::new(32, 2, vec![1.0, 0.5], quants).unwrap();
        let input = [vec![1.0; 32], vec![-1.0; 32]].concat();
        let values: Vec<f64> =
            linear_q8(&input, &weights, Some(&[10.0, 0.0])).iter().map(|e| e.value).collect();
        assert_eq!(values, [74.0, 248.0, -54.0, -248.0]);
    }

    #[test]
    fn one_wrong_term_is_out_of_tolerance() {
        let expected = Expected { value: 100.0, magnitude: 100.0, terms: 384 };
        assert!(expected.allows(100.0) && expected.allows(100.001));
        assert!(!expected.allows(100.1), "tolerance is {}", expected.tolerance());
        assert!(!expected.allows(f32::NAN));
    }
}
