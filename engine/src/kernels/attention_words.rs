//! Attention in integers of 16 bits: queries, keys and values of 12 bits with one scale a head and sequence, weights of
//! 12 bits too. Products are exact; what rounding costs is a twentieth of what the 8 bits of a linear do.
//!
//! What it computes, to the bit, in every form: `q`, `k` and `v` of a head become `round(x · (2047 / max |x|))` over
//! the sequence. A score is the sum of products; it weighs `round(4095 · 2^(factor · (score - largest of the row)))`,
//! where `factor` is the two scales times that of the scores times log₂ e. A result is the sum of weights times values,
//! [`KEYS`] keys at a time, over the sum of the weights.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::kernels::attention_words_avx512 as avx512;
use crate::kernels::{
    attention::{Attention, Qkv, divide_rows},
    attention_codes::{Head, POWER_LOW, POWER_P, Scores, Steps},
    elementary::{ROUND, polynomial},
    isa::{Isa, Level, for_each_isa},
    linear::{
        panels::{self, Strided},
        tile::{self, TILE_MAX},
    },
    quantize,
    scratch::Scratch,
};

/// Widest head: sums of more products of 12 bits might not leave room for their differences.
pub(in crate::kernels) const HEAD_MAX: usize = 128;
/// Keys whose weighted values are summed as integers: 256 · 4095 · 2047 is just below 2³¹.
const KEYS: usize = 256;
/// Largest code of a query, a key and a value.
const MOST: f32 = 2047.0;
/// The rows `first..` of `sequence`, as many as `out` has.
pub(in crate::kernels) fn sequence(
    attention: Attention,
    scratch: &mut Scratch,
    qkv: Qkv<'_>,
    sequence: Range<usize>,
    first: usize,
    out: &mut [f32],
) {
    let Attention { isa, heads, head_dim, scale, .. } = attention;
    let (lanes, step) = (panels::lanes(isa), panels::tile_rows(isa));
    let (length, width) = (sequence.len(), heads * head_dim);
    let (padded, rows) = (length.next_multiple_of(lanes), out.len() / width);
    let (dims, panel_dims) = (head_dim.next_multiple_of(2), head_dim.next_multiple_of(lanes));
    scratch.queries.grow::<i16>((rows + length) * dims);
    scratch.keys.grow::<i16>(padded * dims);
    scratch.values.grow::<i16>(padded * panel_dims);
    scratch.scores.grow::<i32>(padded * step);
    scratch.weights.grow::<i16>(padded * step);
    let codes = &mut scratch.queries.as_mut_slice::<i16>()[..(rows + length) * dims];
    let (queries, key_codes) = codes.split_at_mut(rows * dims);
    let keys = &mut scratch.keys.as_mut_slice::<i16>()[..padded * dims];
    let values = &mut scratch.values.as_mut_slice::<i16>()[..padded * panel_dims];
    for head in 0..heads {
        let column = head * head_dim;
        // Queries too have the scale of the whole sequence, also where another thread computes some of its rows.
        let [query, key, value] = [qkv.queries, qkv.keys, qkv.values]
            .map(|rows| Head::of(isa, rows.from(sequence.start, column), length, head_dim));
        if ![query, key, value].iter().all(|part| part.steps.scale.is_finite()) {
            for row in out.chunks_exact_mut(width) {
                row[column..column + head_dim].fill(f32::NAN);
            }
            continue;
        }
        let own = Head { rows: qkv.queries.from(first, column), count: rows, ..query };
        lay_queries(isa, &own, queries);
        lay_queries(isa, &key, key_codes);
        lay_keys(key_codes, dims, lanes, keys);
        lay_values(isa, &value, lanes, values);
        let products = f64::from(query.steps.scale) * f64::from(key.steps.scale);
        let factor = products * f64::from(scale) * std::f64::consts::LOG2_E;
        #[expect(clippy::cast_possible_truncation, reason = "bounded to what f32 holds")]
        let factor = factor.min(f64::from(f32::MAX)) as f32;
        let packed = Packed { keys, values, length, head_dim, factor, scale: value.steps.scale };
        let scores = scratch.scores.as_mut_slice::<i32>();
        let weights = scratch.weights.as_mut_slice::<i16>();
        packed.rows(isa, queries, scores, weights, &mut out[column..], width);
    }
}

impl<'a> Head<'a> {
    fn of(isa: Isa, rows: Strided<'a>, count: usize, width: usize) -> Self {
        let most = match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => avx512::magnitude(isa, rows, count, width),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => magnitude(isa, rows, count, width),
            Level::Portable => magnitude(isa, rows, count, width),
        };
        let (scale, factor) = quantize::scale_of(most, MOST);
        Self { rows, count, width, steps: Steps { factor, scale } }
    }
}

fn magnitude(isa: Isa, rows: Strided<'_>, count: usize, width: usize) -> u32 {
    let mut most = 0;
    for row in 0..count {
        row_magnitude(isa, &rows.data[row * rows.stride..][..width], &mut most);
    }
    most
}

for_each_isa! {
    /// As integers, magnitudes are ordered with infinity and then NaN above all numbers.
    fn row_magnitude(isa: Isa, row: &[f32], most: &mut u32) {
        let mut found = *most;
        for value in row {
            found = found.max(value.to_bits() & 0x7fff_ffff);
        }
        *most = found;
    }
}

#[inline(always)]
fn code(value: f32, factor: f32) -> i16 {
    let rounded = (value * factor + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
    #[expect(clippy::cast_possible_truncation, reason = "within ±2047")]
    let code = rounded as i16;
    code
}

impl Head<'_> {
    /// The codes of one row, zeros beyond the head and beyond the last row.
    #[inline(always)]
    fn codes(&self, row: usize, codes: &mut [i16; HEAD_MAX]) {
        if row >= self.count {
            codes.fill(0);
            return;
        }
        let row = &self.rows.data[row * self.rows.stride..][..self.width];
        for (code, value) in codes.iter_mut().zip(row) {
            *code = self::code(*value, self.steps.factor);
        }
    }
}

fn lay_queries(isa: Isa, head: &Head<'_>, out: &mut [i16]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => avx512::lay_queries(isa, head, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => queries(isa, head, out),
        Level::Portable => queries(isa, head, out),
    }
}

for_each_isa! {
    /// `[row][head_dim]`, of an even width.
    fn queries(isa: Isa, head: &Head<'_>, out: &mut [i16]) {
        let mut codes = [0; HEAD_MAX];
        for (row, out) in out.chunks_exact_mut(head.width.next_multiple_of(2)).enumerate() {
            head.codes(row, &mut codes);
            out.copy_from_slice(&codes[..out.len()]);
        }
    }
}

/// From `codes`, laid as those of queries, to `[panel][pair of head_dim][key][2]`, zeros beyond the last key.
fn lay_keys(codes: &[i16], dims: usize, lanes: usize, out: &mut [i16]) {
    for (out, codes) in out.chunks_exact_mut(lanes * dims).zip(codes.chunks(lanes * dims)) {
        let pairs = out.as_chunks_mut::<2>().0;
        if codes.len() < lanes * dims {
            pairs.fill([0; 2]);
        }
        for (lane, codes) in codes.chunks_exact(dims).enumerate() {
            for (at, pair) in codes.as_chunks::<2>().0.iter().enumerate() {
                pairs[at * lanes + lane] = *pair;
            }
        }
    }
}

fn lay_values(isa: Isa, head: &Head<'_>, lanes: usize, out: &mut [i16]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => avx512::lay_values(isa, head, lanes, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => values(isa, head, lanes, out),
        Level::Portable => values(isa, head, lanes, out),
    }
}

for_each_isa! {
    /// `[panel][pair of keys][head_dim][2]`.
    fn values(isa: Isa, head: &Head<'_>, lanes: usize, out: &mut [i16]) {
        let (mut even, mut odd) = ([0; HEAD_MAX], [0; HEAD_MAX]);
        let panels = head.width.div_ceil(lanes);
        let pairs = out.len() / (panels * lanes * 2);
        for at in 0..pairs {
            head.codes(2 * at, &mut even);
            head.codes(2 * at + 1, &mut odd);
            for panel in 0..panels {
                let out = &mut out[(panel * pairs + at) * lanes * 2..][..lanes * 2];
                let (even, odd) = (&even[panel * lanes..][..lanes], &odd[panel * lanes..][..lanes]);
                for ((out, even), odd) in out.as_chunks_mut::<2>().0.iter_mut().zip(even).zip(odd) {
                    *out = [*even, *odd];
                }
            }
        }
    }
}

/// One head of one sequence.
struct Packed<'a> {
    keys: &'a [i16],
    values: &'a [i16],
    length: usize,
    head_dim: usize,
    /// Of the difference of two scores.
    factor: f32,
    /// Of the values.
    scale: f32,
}

impl Packed<'_> {
    fn rows(
        &self,
        isa: Isa,
        queries: &[i16],
        scores: &mut [i32],
        weights: &mut [i16],
        out: &mut [f32],
        stride: usize,
    ) {
        let (lanes, step) = (panels::lanes(isa), panels::tile_rows(isa));
        let padded = self.length.next_multiple_of(lanes);
        let dims = self.head_dim.next_multiple_of(2);
        let (mut sums, mut totals, mut space) = ([0.0; 16], [0.0; TILE_MAX], [0; TILE_MAX]);
        for (at, queries) in queries.chunks(step * dims).enumerate() {
            let count = queries.len() / dims;
            for (panel, keys) in self.keys.chunks_exact(dims * lanes).enumerate() {
                let scores = &mut scores[panel * lanes..];
                tile::words(isa, keys, (queries, dims), count, scores, padded);
            }
            let (scores, weights) = (&mut scores[..count * padded], &mut weights[..count * padded]);
            let sums = &mut sums[..count];
            let scores = Scores { data: scores, length: self.length, padded, factor: self.factor };
            weigh(isa, &scores, weights, sums);
            for sum in &mut *sums {
                *sum /= self.scale;
            }
            for (panel, values) in self.values.chunks_exact(padded * lanes).enumerate() {
                weighted(isa, weights, padded, values, &mut totals, &mut space);
                let width = lanes.min(self.head_dim - panel * lanes);
                let out = &mut out[at * step * stride + panel * lanes..];
                divide_rows(isa, &totals[..count * lanes], lanes, width, sums, out, stride);
            }
        }
    }
}

/// The sums of `values`, one panel of them, weighted by each row of `weights`; `space` means nothing.
fn weighted(
    isa: Isa,
    weights: &[i16],
    padded: usize,
    values: &[i16],
    totals: &mut [f32; TILE_MAX],
    space: &mut [i32; TILE_MAX],
) {
    let lanes = panels::lanes(isa);
    let count = weights.len() / padded;
    let (totals, space) = (&mut totals[..count * lanes], &mut space[..count * lanes]);
    for (at, values) in values.chunks(KEYS * lanes).enumerate() {
        tile::words(isa, values, (&weights[at * KEYS..], padded), count, space, lanes);
        if at == 0 {
            totals.fill(0.0);
        }
        add(isa, space, totals);
    }
}

for_each_isa! {
    fn add(isa: Isa, sums: &[i32], totals: &mut [f32]) {
        for (total, sum) in totals.iter_mut().zip(sums) {
            #[expect(clippy::cast_precision_loss, reason = "24 bits are more than the operands have")]
            let sum = *sum as f32;
            *total += sum;
        }
    }
}

/// Weights of the first scores of each row, zeros after them; and the sum of each row.
fn weigh(isa: Isa, scores: &Scores<'_>, weights: &mut [i16], sums: &mut [f32]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => avx512::weigh(isa, scores, weights, sums),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => weigh_rows(isa, scores, weights, sums),
        Level::Portable => weigh_rows(isa, scores, weights, sums),
    }
}

for_each_isa! {
    fn weigh_rows(isa: Isa, scores: &Scores<'_>, weights: &mut [i16], sums: &mut [f32]) {
        let rows = scores.data.chunks_exact(scores.padded);
        let rows = rows.zip(weights.chunks_exact_mut(scores.padded));
        for ((row, weights), sum) in rows.zip(sums) {
            let row = &row[..scores.length];
            let mut most = i32::MIN;
            for score in row {
                most = most.max(*score);
            }
            let mut total = 0;
            for (score, out) in row.iter().zip(&mut *weights) {
                let weight = weight(score - most, scores.factor);
                total += weight;
                #[expect(clippy::cast_possible_truncation, reason = "at most 4095")]
                let weight = weight as i16;
                *out = weight;
            }
            weights[scores.length..].fill(0);
            #[expect(clippy::cast_precision_loss, reason = "24 bits are more than the weights have")]
            let total = total as f32;
            *sum = total;
        }
    }
}

/// round(4095 · 2^(difference · factor)) for a difference that is not above 0.
#[inline(always)]
fn weight(difference: i32, factor: f32) -> i32 {
    #[expect(clippy::cast_precision_loss, reason = "24 bits are more than the scores have")]
    let exponent = difference as f32 * factor;
    let exponent = if exponent > POWER_LOW { exponent } else { POWER_LOW };
    let shifted = exponent + ROUND;
    let part = polynomial(&POWER_P, exponent - (shifted - ROUND));
    let value = f32::from_bits(part.to_bits().wrapping_add(shifted.to_bits() << 23));
    (value + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).cast_signed()
}
