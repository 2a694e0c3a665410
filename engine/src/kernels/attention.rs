//! What attention is computed from, and its form in floats; [`super::attention_ragged`] computes it.

use crate::kernels::{
    isa::{Isa, for_each_isa},
    linear::{
        panels::{self, Strided},
        tile::{self, TILE_MAX},
    },
    scratch::Scratch,
    softmax::exponentials,
};

/// What does not change from call to call.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// The form to compute in.
    pub isa: Isa,
    /// Heads; head `h` has the columns `h · head_dim..` of queries, keys, values and result.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor of the scores, above 0; 1/√head_dim in BERT.
    pub scale: f32,
    /// What is multiplied.
    pub products: Products,
}

/// What attention multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// The numbers as they are.
    Floats,
    /// Integers of 12 bits, see [`super::attention_words`]; heads wider than 128 stay floats.
    Words,
}

/// Rows of all tokens. The three may be parts of the rows of one matrix.
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a> {
    /// Queries.
    pub queries: Strided<'a>,
    /// Keys.
    pub keys: Strided<'a>,
    /// Values.
    pub values: Strided<'a>,
}

impl Attention {
    /// The rows `first..` of `sequence`, as many as `out` has.
    pub(in crate::kernels) fn sequence(
        self,
        scratch: &mut Scratch,
        qkv: Qkv<'_>,
        sequence: std::ops::Range<usize>,
        first: usize,
        out: &mut [f32],
    ) {
        let lanes = panels::lanes(self.isa);
        let (length, width) = (sequence.len(), self.heads * self.head_dim);
        let padded = length.next_multiple_of(lanes);
        let padded_dim = self.head_dim.next_multiple_of(lanes);
        scratch.keys.grow::<f32>(padded * self.head_dim);
        scratch.values.grow::<f32>(padded_dim * length);
        scratch.scores.grow::<f32>(padded * panels::tile_rows(self.isa));
        let keys = &mut scratch.keys.as_mut_slice::<f32>()[..padded * self.head_dim];
        let values = &mut scratch.values.as_mut_slice::<f32>()[..padded_dim * length];
        let scores = scratch.scores.as_mut_slice::<f32>();
        for head in 0..self.heads {
            let column = head * self.head_dim;
            let head_keys = qkv.keys.from(sequence.start, column);
            panels::pack_columns(lanes, head_keys, length, self.head_dim, keys);
            let head_values = qkv.values.from(sequence.start, column);
            panels::pack_rows(lanes, head_values, length, self.head_dim, values);
            let queries = qkv.queries.from(first, column);
            let head = Head { attention: self, keys, values, length };
            head.rows(queries, out.len() / width, scores, &mut out[column..], width);
        }
    }
}

/// One head of one sequence.
struct Head<'a> {
    attention: Attention,
    /// Panels of keys, `[panel][head_dim][key]`.
    keys: &'a [f32],
    /// Panels of values, `[panel][key][head_dim]`.
    values: &'a [f32],
    length: usize,
}

impl Head<'_> {
    fn rows(
        &self,
        queries: Strided<'_>,
        rows: usize,
        scores: &mut [f32],
        out: &mut [f32],
        stride: usize,
    ) {
        let Attention { isa, head_dim, scale, .. } = self.attention;
        let (lanes, step) = (panels::lanes(isa), panels::tile_rows(isa));
        let padded = self.length.next_multiple_of(lanes);
        let mut space = [0.0; TILE_MAX];
        let mut sums = [0.0; 16];
        for row in (0..rows).step_by(step) {
            let count = step.min(rows - row);
            for (at, panel) in self.keys.chunks_exact(head_dim * lanes).enumerate() {
                let scores = &mut scores[at * lanes..];
                tile::floats(isa, panel, queries.from(row, 0), count, scores, padded);
            }
            let scores = &mut scores[..count * padded];
            for row in scores.chunks_exact_mut(padded) {
                row[self.length..].fill(f32::NEG_INFINITY);
            }
            exponentials(isa, scores, padded, scale, &mut sums[..count]);
            let weights = Strided { data: scores, stride: padded };
            for (at, panel) in self.values.chunks_exact(self.length * lanes).enumerate() {
                let tile = &mut space[..count * lanes];
                tile::floats(isa, panel, weights, count, tile, lanes);
                let width = lanes.min(head_dim - at * lanes);
                let out = &mut out[row * stride + at * lanes..];
                divide_rows(isa, tile, lanes, width, &sums, out, stride);
            }
        }
    }
}

for_each_isa! {
    /// The first `width` columns of each row of `tile`, over the sum of the row.
    pub(in crate::kernels) fn divide_rows(
        isa: Isa,
        tile: &[f32],
        lanes: usize,
        width: usize,
        sums: &[f32],
        out: &mut [f32],
        stride: usize,
    ) {
        for ((row, tile), sum) in tile.chunks_exact(lanes).enumerate().zip(sums) {
            let inverse = 1.0 / sum;
            for (out, value) in out[row * stride..][..width].iter_mut().zip(tile) {
                *out = value * inverse;
            }
        }
    }
}
