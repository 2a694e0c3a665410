//! Softmax, layer normalisation, pooling and tables of embeddings.

use engine::kernels::{
    embedding::{BlockTable, NoSuchRow},
    isa::Isa,
    layer_norm::{Norm, layer_norm},
    linear::packed::Bits,
    pooling::{self, Row},
    softmax::softmax,
};
use proptest::prelude::*;

use crate::numbers::{Numbers, Stored, bits};

/// Runs `work` in every form and returns the first result, once all are the same bits.
fn same_in_all_forms(work: impl Fn(Isa) -> Vec<f32>) -> Vec<f32> {
    let results: Vec<Vec<f32>> = Isa::available().into_iter().map(work).collect();
    for other in &results {
        assert_eq!(bits(other), bits(&results[0]));
    }
    results.into_iter().next().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn softmax_is_right_at_any_scale(seed: u64, rows in 0..4_usize, width in 1..80_usize) {
        let x = Numbers::of(seed).wild_floats(rows * width);
        let got = same_in_all_forms(|isa| {
            let mut values = x.clone();
            softmax(isa, &mut values, width);
            values
        });
        for (x, got) in x.chunks_exact(width).zip(got.chunks_exact(width)) {
            let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f64> = x.iter().map(|x| f64::from(x - most).exp()).collect();
            let total: f64 = powers.iter().sum();
            for (power, got) in powers.iter().zip(got) {
                prop_assert!((power / total - f64::from(*got)).abs() <= 1e-6 * (power / total) + 1e-37);
            }
        }
    }

    #[test]
    fn a_normalised_row_has_mean_beta_and_deviation_gamma(
        seed: u64, rows in 0..4_usize, width in 1..400_usize, with_residual: bool,
    ) {
        let mut numbers = Numbers::of(seed);
        let (x, residual) = (numbers.floats(rows * width, 5.0), numbers.floats(rows * width, 5.0));
        let (gamma, beta) = (numbers.floats(width, 2.0), numbers.floats(width, 2.0));
        let norm = Norm { gamma: &gamma, beta: &beta, epsilon: 1e-5 };
        let residual = with_residual.then_some(&residual[..]);
        let got = same_in_all_forms(|isa| {
            let mut out = vec![f32::NAN; rows * width];
            layer_norm(isa, &x, residual, norm, &mut out);
            out
        });
        for row in 0..rows {
            let at = |column: usize| {
                let index = row * width + column;
                f64::from(x[index]) + residual.map_or(0.0, |residual| f64::from(residual[index]))
            };
            let mean = (0..width).map(at).sum::<f64>() / width as f64;
            let variance = (0..width).map(|c| (at(c) - mean).powi(2)).sum::<f64>() / width as f64;
            for column in 0..width {
                let unit = (at(column) - mean) / (variance + 1e-5).sqrt();
                let value = unit * f64::from(gamma[column]) + f64::from(beta[column]);
                let off = (f64::from(got[row * width + column]) - value).abs();
                // One column has variance 0, where rounding of the input is all that is left.
                prop_assert!(off <= 3e-5 * (1.0 + value.abs()) + if width < 3 { 2e-3 } else { 0.0 }, "{off}");
            }
        }
    }

    #[test]
    fn a_table_gives_back_its_rows(seed: u64, blocks in 1..5_usize, four: bool) {
        let mut numbers = Numbers::of(seed);
        let stored = Stored::of(&mut numbers, if four { Bits::Four } else { Bits::Eight }, 9, blocks * 32);
        let ids: Vec<u32> = (0..7).map(|_| numbers.below(9) as u32).collect();
        let got = same_in_all_forms(|isa| {
            let table = BlockTable::new(isa, stored.bits, 9, stored.k, stored.codes.clone(), stored.scales.clone()).unwrap();
            let mut out = vec![f32::NAN; 7 * stored.k];
            table.gather(&ids, &mut out).unwrap();
            out
        });
        for (id, row) in ids.iter().zip(got.chunks_exact(stored.k)) {
            for (at, got) in row.iter().enumerate() {
                let value = stored.code(*id as usize, at) as f32 * stored.scale(*id as usize, at);
                prop_assert_eq!(*got, value);
            }
        }
    }

    #[test]
    fn pooling_stays_within_its_sequence(seed: u64, width in 1..40_usize, lengths in proptest::collection::vec(0..9_u32, 1..5)) {
        let mut segments = vec![0];
        segments.extend(lengths.iter().scan(0, |end, length| { *end += length; Some(*end) }));
        let total = *segments.last().unwrap() as usize;
        let states = Numbers::of(seed).floats(total * width, 1.0);
        let means = same_in_all_forms(|isa| {
            let mut out = vec![f32::NAN; lengths.len() * width];
            pooling::mean(isa, &states, width, &segments, &mut out);
            out
        });
        let picked = |row| {
            let mut out = vec![f32::NAN; lengths.len() * width];
            pooling::pick(&states, width, row, &segments, &mut out);
            out
        };
        let (first, last) = (picked(Row::First), picked(Row::Last));
        for (s, pair) in segments.windows(2).enumerate() {
            for column in 0..width {
                let at = |row: u32| states[row as usize * width + column];
                let index = s * width + column;
                if pair[0] == pair[1] {
                    prop_assert_eq!((means[index], first[index], last[index]), (0.0, 0.0, 0.0));
                    continue;
                }
                let mean = (pair[0]..pair[1]).map(|row| f64::from(at(row))).sum::<f64>() / f64::from(pair[1] - pair[0]);
                prop_assert!((f64::from(means[index]) - mean).abs() <= 1e-6);
                prop_assert_eq!((first[index], last[index]), (at(pair[0]), at(pair[1] - 1)));
            }
        }
        let unit = same_in_all_forms(|isa| {
            let mut rows = means.clone();
            pooling::normalize(isa, &mut rows, width);
            rows
        });
        for (row, before) in unit.chunks_exact(width).zip(means.chunks_exact(width)) {
            let square: f64 = row.iter().map(|value| f64::from(*value).powi(2)).sum();
            let zero = before.iter().all(|value| *value == 0.0);
            let length = if zero { 0.0 } else { 1.0 };
            prop_assert!((square - length).abs() <= 1e-5, "squares sum to {square}");
        }
    }
}

#[test]
fn numbers_that_are_not_finite_show() {
    for isa in Isa::available() {
        let mut row = [1.0, f32::NEG_INFINITY, 1.0];
        softmax(isa, &mut row, 3);
        assert_eq!(row, [0.5, 0.0, 0.5]);
        for poison in [f32::NAN, f32::INFINITY] {
            let mut row = [0.0; 40];
            row[21] = poison;
            softmax(isa, &mut row, 40);
            assert!(row.iter().all(|value| value.is_nan()), "softmax of {poison}");
            let mut out = [0.0; 40];
            let mut row = [0.5; 40];
            row[3] = poison;
            let norm = Norm { gamma: &[1.0; 40], beta: &[0.0; 40], epsilon: 1e-12 };
            layer_norm(isa, &row, None, norm, &mut out);
            assert!(out.iter().all(|value| value.is_nan()), "layer norm of {poison}");
        }
        let mut row = [f32::NEG_INFINITY; 3];
        softmax(isa, &mut row, 3);
        assert!(row.iter().all(|value| value.is_nan()));
    }
}

#[test]
fn an_id_beyond_the_table_is_refused() {
    let table =
        BlockTable::new(Isa::best(), Bits::Eight, 2, 32, vec![0; 64], vec![1.0; 2]).unwrap();
    let mut out = [0.0; 96];
    let refused = table.gather(&[1, 0, 2], &mut out).unwrap_err();
    assert_eq!(refused, NoSuchRow { position: 2, id: 2, rows: 2 });
    assert!(BlockTable::new(Isa::best(), Bits::Four, 2, 32, vec![0; 33], vec![1.0; 2]).is_err());
}
