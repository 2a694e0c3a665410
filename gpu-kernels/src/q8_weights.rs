//! The house's weight format: Q8_0 blocks of 32 along `k`.
//!
//! A matrix of `k` rows and `n` columns is held column by column. Each column is `k / 32` blocks,
//! and each block is 32 signed bytes and one f32 scale: `weight = scale · q`. Scales stand apart
//! from the bytes, so that a kernel loads both aligned.

use std::fmt;

/// Weights that share one scale.
pub const BLOCK: usize = 32;

/// Why weights are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// A side is zero.
    #[error("weights of {k} × {n}: a side of 0 has nothing to multiply")]
    Empty {
        /// Rows.
        k: usize,
        /// Columns.
        n: usize,
    },
    /// `k` does not fill its last block.
    #[error("weights of {k} × {n}: k must be a multiple of {BLOCK}; pad it with zeros")]
    Ragged {
        /// Rows.
        k: usize,
        /// Columns.
        n: usize,
    },
    /// A slice is not as long as the shape says.
    #[error("weights of {k} × {n} need {needed} {what}, got {got}")]
    Length {
        /// Rows.
        k: usize,
        /// Columns.
        n: usize,
        /// Which slice.
        what: &'static str,
        /// How many there should be.
        needed: usize,
        /// How many there are.
        got: usize,
    },
    /// The product of the sides is beyond what can be addressed.
    #[error("weights of {k} × {n} are more than this machine can address")]
    TooLarge {
        /// Rows.
        k: usize,
        /// Columns.
        n: usize,
    },
    /// A value is infinite or not a number.
    #[error("{what} {index} is not a finite number")]
    NotFinite {
        /// Which slice.
        what: &'static str,
        /// Where in it.
        index: usize,
    },
}

/// A checked matrix of Q8 blocks.
#[derive(Clone, PartialEq)]
pub struct Q8Weights {
    k: usize,
    n: usize,
    scales: Vec<f32>,
    quants: Vec<i8>,
}

impl fmt::Debug for Q8Weights {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Q8Weights({} × {})", self.k, self.n)
    }
}

impl Q8Weights {
    /// From stored blocks: `scales[n][k / 32]` and `quants[n][k]`.
    ///
    /// # Errors
    /// [`WeightsError`] when the shape, a length or a scale is wrong.
    pub fn new(
        k: usize,
        n: usize,
        scales: Vec<f32>,
        quants: Vec<i8>,
    ) -> Result<Self, WeightsError> {
        let weights = count(k, n)?;
        length(k, n, "scales", weights / BLOCK, scales.len())?;
        length(k, n, "quants", weights, quants.len())?;
        finite("scale", &scales)?;
        Ok(Self { k, n, scales, quants })
    }

    /// Rounds `weights[k][n]`, row-major f32, to blocks: scale = largest magnitude / 127, nearest
    /// integer. The error of a weight is at most half its scale.
    ///
    /// # Errors
    /// [`WeightsError`] when the shape, the length or a weight is wrong.
    pub fn quantized(k: usize, n: usize, weights: &[f32]) -> Result<Self, WeightsError> {
        length(k, n, "weights", count(k, n)?, weights.len())?;
        finite("weight", weights)?;
        let mut scales = Vec::with_capacity(weights.len() / BLOCK);
        let mut quants = Vec::with_capacity(weights.len());
        for column in 0..n {
            for block in 0..k / BLOCK {
                let values: [f32; BLOCK] =
                    std::array::from_fn(|i| weights[(block * BLOCK + i) * n + column]);
                let scale = values.iter().fold(0f32, |most, value| most.max(value.abs())) / 127.0;
                scales.push(scale);
                quants.extend(values.map(|value| rounded(value, scale)));
            }
        }
        Ok(Self { k, n, scales, quants })
    }

    /// Rows: the length of one input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns: the length of one output.
    pub fn n(&self) -> usize {
        self.n
    }

    /// `scales[n][k / 32]`.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// `quants[n][k]`.
    pub fn quants(&self) -> &[i8] {
        &self.quants
    }
}

fn rounded(value: f32, scale: f32) -> i8 {
    // A scale that underflowed to 0 stands for weights that are 0 to every purpose.
    if scale == 0.0 {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the range of i8 before")]
    let quant = (value / scale).round().clamp(-127.0, 127.0) as i8;
    quant
}

fn count(k: usize, n: usize) -> Result<usize, WeightsError> {
    if k == 0 || n == 0 {
        return Err(WeightsError::Empty { k, n });
    }
    if !k.is_multiple_of(BLOCK) {
        return Err(WeightsError::Ragged { k, n });
    }
    k.checked_mul(n).ok_or(WeightsError::TooLarge { k, n })
}

fn length(
    k: usize,
    n: usize,
    what: &'static str,
    needed: usize,
    got: usize,
) -> Result<(), WeightsError> {
    if needed == got { Ok(()) } else { Err(WeightsError::Length { k, n, what, needed, got }) }
}

fn finite(what: &'static str, values: &[f32]) -> Result<(), WeightsError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(WeightsError::NotFinite { what, index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_moves_by_half_its_scale_at_most() {
        let (k, n) = (96, 5);
        let weights: Vec<f32> =
            (0..k * n).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 37.0 - 13.0).collect();
        let blocks = Q8Weights::quantized(k, n, &weights).unwrap();
        for row in 0..k {
            for column in 0..n {
                let scale = blocks.scales()[column * (k / BLOCK) + row / BLOCK];
                let back = scale * f32::from(blocks.quants()[column * k + row]);
                let moved = (back - weights[row * n + column]).abs();
                assert!(moved <= 0.501 * scale, "row {row}, column {column}: moved {moved}");
            }
        }
    }

    #[test]
    fn zeros_and_the_smallest_numbers_stay_finite() {
        for value in [0.0, f32::MIN_POSITIVE, 1e-45, -1e-45, f32::MAX, f32::MIN] {
            let blocks = Q8Weights::quantized(32, 1, &[value; 32]).unwrap();
            assert!(blocks.scales()[0].is_finite(), "{value}: scale {}", blocks.scales()[0]);
        }
    }

    #[test]
    fn bad_weights_are_refused_by_name() {
        let refused = |k, n, scales: usize, quants: usize| {
            Q8Weights::new(k, n, vec![1.0; scales], vec![1; quants]).unwrap_err()
        };
        assert_eq!(refused(0, 4, 0, 0), WeightsError::Empty { k: 0, n: 4 });
        assert_eq!(refused(32, 0, 0, 0), WeightsError::Empty { k: 32, n: 0 });
        assert_eq!(refused(33, 1, 2, 33), WeightsError::Ragged { k: 33, n: 1 });
        let huge = usize::MAX - 31;
        assert_eq!(refused(huge, 2, 1, 1), WeightsError::TooLarge { k: huge, n: 2 });
        assert_eq!(
            refused(32, 2, 1, 64),
            WeightsError::Length { k: 32, n: 2, what: "scales", needed: 2, got: 1 }
        );
        assert_eq!(
            refused(32, 2, 2, 63),
            WeightsError::Length { k: 32, n: 2, what: "quants", needed: 64, got: 63 }
        );
        assert_eq!(
            Q8Weights::new(32, 1, vec![f32::NAN], vec![1; 32]),
            Err(WeightsError::NotFinite { what: "scale", index: 0 })
        );
        let mut weights = vec![1.0; 32];
        weights[7] = f32::INFINITY;
        assert_eq!(
            Q8Weights::quantized(32, 1, &weights),
            Err(WeightsError::NotFinite { what: "weight", index: 7 })
        );
    }
}
