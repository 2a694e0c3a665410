//! The int8 of ONNX: integers with one scale and zero point a tensor, or a column of the weights.
//!
//! `MatMulInteger` is [`AffineLinear::products`]; `DynamicQuantizeLinear` + `MatMulInteger` + scale + bias, and
//! `QuantizeLinear` + `DequantizeLinear` around a product, are [`AffineLinear::run`]; `QLinearMatMul` is the former
//! and [`crate::kernels::quantize::requantize`].
//!
//! Inside, the input is signed and the weights are unsigned, each moved by 128 where it is not, zero points with it:
//! `Σ(a-za)(w-zw) = Σa·w - zw·Σa - za·Σw + k·za·zw`.

use crate::kernels::{
    aligned::Aligned,
    isa::{Isa, for_each_isa},
    linear::{
        epilogue::{self, Epilogue, Place},
        packed::{Bits, Order, WeightsError, finite, length, sides},
        tile::{self, ROWS, TILE_MAX},
    },
    quantize::{self, Affine, BlockCodes, Width},
    scratch::{self, Scratch},
    threads::Threads,
};

/// Columns are padded to a multiple of this with products that are zero.
const K_STEP: usize = 4;
/// Rows that are quantized and multiplied before the next.
const SLAB: usize = ROWS * 20;

/// Integers of 8 bits.
#[derive(Clone, Copy, Debug)]
pub enum Codes<'a> {
    /// -128 to 127.
    Signed(&'a [i8]),
    /// 0 to 255.
    Unsigned(&'a [u8]),
}

impl Codes<'_> {
    /// How many.
    pub const fn len(self) -> usize {
        match self {
            Self::Signed(codes) => codes.len(),
            Self::Unsigned(codes) => codes.len(),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    fn at(self, index: usize) -> i32 {
        match self {
            Self::Signed(codes) => i32::from(codes[index]),
            Self::Unsigned(codes) => i32::from(codes[index]),
        }
    }

    /// What is added to make them unsigned.
    const fn lift(self) -> i32 {
        match self {
            Self::Signed(_) => 128,
            Self::Unsigned(_) => 0,
        }
    }

    fn slice(self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::Signed(codes) => Self::Signed(&codes[range]),
            Self::Unsigned(codes) => Self::Unsigned(&codes[range]),
        }
    }
}

/// Weights as ONNX stores them.
#[derive(Clone, Copy, Debug)]
pub struct AffineWeights<'a> {
    /// Length of an input row.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
    /// `codes[k][n]`.
    pub codes: Codes<'a>,
    /// One, or one a column; within the range of the codes.
    pub zero_points: &'a [i32],
    /// One, or one a column.
    pub scales: &'a [f32],
    /// One a column, or none.
    pub bias: Option<&'a [f32]>,
}

/// Where the scale of the input comes from.
#[derive(Clone, Copy, Debug)]
pub enum InputScale {
    /// From the input itself, as `DynamicQuantizeLinear`.
    Dynamic,
    /// From the file.
    Static(Affine),
}

/// A matrix of weights that is packed for one form.
#[derive(Clone, Debug)]
pub struct AffineLinear {
    isa: Isa,
    order: Order,
    n: usize,
    k: usize,
    codes: Aligned,
    /// Of each column, for unsigned codes; padded to whole panels as all that follow.
    zero_points: Vec<i32>,
    /// Sum of the codes of each column.
    sums: Vec<i32>,
    scales: Vec<f32>,
    bias: Vec<f32>,
}

impl AffineLinear {
    /// Packs `weights` for `isa`.
    ///
    /// # Errors
    /// The shape, a length, a scale or a bias is wrong.
    pub fn new(isa: Isa, weights: AffineWeights<'_>) -> Result<Self, WeightsError> {
        let AffineWeights { k, n, codes, zero_points, scales, bias } = weights;
        length(k, n, "codes", sides(k, n)?, codes.len())?;
        if zero_points.len() != 1 {
            length(k, n, "zero points", n, zero_points.len())?;
        }
        if scales.len() != 1 {
            length(k, n, "scales", n, scales.len())?;
        }
        finite("scale", scales)?;
        if let Some(bias) = bias {
            length(k, n, "biases", n, bias.len())?;
            finite("bias", bias)?;
        }
        let (order, padded_k) = (Order::of(isa), k.next_multiple_of(K_STEP));
        let lifted = |column: usize, at: usize| codes.at(at * n + column) + codes.lift();
        let packed =
            order.pack(
                Bits::Eight,
                n,
                padded_k,
                |column, at| {
                    if at < k { lifted(column, at) as u8 } else { 0 }
                },
            );
        let padded = n.next_multiple_of(order.lanes);
        let per_column = |at: usize, count: usize| if count == 1 { 0 } else { at };
        let mut columns = Self {
            isa,
            order,
            n,
            k,
            codes: packed,
            zero_points: vec![0; padded],
            sums: vec![0; padded],
            scales: vec![0.0; padded],
            bias: order.padded(bias.unwrap_or(&vec![0.0; n])),
        };
        for column in 0..n {
            let zero_point = zero_points[per_column(column, zero_points.len())];
            columns.zero_points[column] = zero_point + codes.lift();
            columns.sums[column] =
                (0..k).fold(0_i32, |sum, at| sum.wrapping_add(lifted(column, at)));
            columns.scales[column] = scales[per_column(column, scales.len())];
        }
        Ok(columns)
    }

    /// Columns of the result.
    pub const fn n(&self) -> usize {
        self.n
    }

    /// Length of an input row.
    pub const fn k(&self) -> usize {
        self.k
    }

    /// Bytes of memory held.
    pub const fn bytes(&self) -> usize {
        self.codes.bytes() + self.bias.len() * 4 * size_of::<f32>()
    }

    /// `out[m][n] = Σₖ (input - zero_point) · (weight - its zero point)`, exact modulo 2³².
    ///
    /// # Panics
    /// `input` and `out` do not have the same number of whole rows.
    pub fn products(&self, input: Codes<'_>, zero_point: i32, threads: &Threads, out: &mut [i32]) {
        self.check(input.len(), out.len());
        threads.split(out, self.n, ROWS, input.len() * self.n, &|range, out: &mut [i32]| {
            let input = input.slice(range.start * self.k..range.end * self.k);
            scratch::with(|scratch| {
                self.rows(scratch, input, zero_point, &mut |tile, place| {
                    let lanes = self.order.lanes;
                    let width = lanes.min(self.n - place.column);
                    for (row, tile) in tile.chunks_exact(lanes).enumerate() {
                        let from = (place.row + row) * self.n + place.column;
                        out[from..from + width].copy_from_slice(&tile[..width]);
                    }
                });
            });
        });
    }

    /// `out[m][n] = epilogue(f32(products) · (scale of the input · scale of the weights) + bias)`, of `x` quantized to
    /// u8 by [`quantize::to_u8`]. An input with a number that is not finite gives NaN everywhere when its scale is
    /// dynamic.
    ///
    /// # Panics
    /// `x`, `out` or a residual do not have the same number of whole rows.
    pub fn run(
        &self,
        x: &[f32],
        scale: InputScale,
        epilogue: Epilogue<'_>,
        threads: &Threads,
        out: &mut [f32],
    ) {
        self.check(x.len(), out.len());
        epilogue.check(out.len());
        let affine = match scale {
            InputScale::Dynamic => quantize::affine_of(self.isa, x),
            InputScale::Static(affine) => affine,
        };
        threads.split(out, self.n, ROWS, x.len() * self.n, &|range, out: &mut [f32]| {
            let x = &x[range.start * self.k..range.end * self.k];
            self.float_rows(x, affine, epilogue.rows(&range, self.n), out);
        });
    }

    fn check(&self, input: usize, out: usize) {
        let rows = input / self.k;
        assert!(input == rows * self.k, "input of {input} is not whole rows of {}", self.k);
        assert!(out == rows * self.n, "result of {out} is not {rows} × {}", self.n);
    }

    fn float_rows(&self, x: &[f32], affine: Affine, epilogue: Epilogue<'_>, out: &mut [f32]) {
        scratch::with(|scratch| {
            let mut bytes = std::mem::take(&mut scratch.bytes);
            if bytes.len() < x.len() {
                bytes.resize(x.len(), 0);
            }
            let codes = &mut bytes[..x.len()];
            quantize::to_u8(self.isa, x, affine, codes);
            let lanes = self.order.lanes;
            let mut space = [0.0; TILE_MAX];
            let zero_point = i32::from(affine.zero_point);
            self.rows(scratch, Codes::Unsigned(codes), zero_point, &mut |sums, place| {
                let tile = &mut space[..sums.len()];
                scale_tile(
                    self.isa,
                    sums,
                    affine.scale,
                    &self.scales[place.column..][..lanes],
                    tile,
                );
                let bias = &self.bias[place.column..][..lanes];
                epilogue::store(self.isa, tile, bias, epilogue, place, out);
            });
            scratch.bytes = bytes;
        });
    }

    /// Calls `finish` with each tile of products and the place of it in the result.
    fn rows(
        &self,
        scratch: &mut Scratch,
        input: Codes<'_>,
        zero_point: i32,
        finish: &mut impl FnMut(&[i32], Place),
    ) {
        let lanes = self.order.lanes;
        let padded_k = self.k.next_multiple_of(K_STEP);
        let panel_bytes = self.order.panel_bytes(Bits::Eight, padded_k);
        let signed_zero = zero_point + input.lift() - 128;
        let mut space = [0; TILE_MAX];
        for first in (0..input.len() / self.k).step_by(SLAB) {
            let end = (first + SLAB).min(input.len() / self.k);
            let slab = input.slice(first * self.k..end * self.k);
            lay_rows(self.isa, slab, self.k, &mut scratch.codes, &mut scratch.sums);
            let panels = self.codes.as_slice::<u8>().chunks_exact(panel_bytes);
            for (at, panel) in panels.enumerate() {
                let column = at * lanes;
                let zero_points = &self.zero_points[column..column + lanes];
                let column_sums = &self.sums[column..column + lanes];
                for row in (0..end - first).step_by(ROWS) {
                    let count = ROWS.min(end - first - row);
                    let tile = &mut space[..count * lanes];
                    tile::sums(self.isa, panel, &scratch.codes, row, count, tile);
                    let rows = Rows {
                        sums: &scratch.sums[row..row + count],
                        zero_point: signed_zero,
                        k: self.k as i32,
                    };
                    take_zero_points(self.isa, tile, rows, zero_points, column_sums);
                    finish(tile, Place { row: first + row, column, n: self.n });
                }
            }
        }
    }
}

/// Lays rows of `k` as the tiles want them: signed, padded with zeros; and sums each.
fn lay_rows(isa: Isa, input: Codes<'_>, k: usize, codes: &mut BlockCodes, sums: &mut Vec<i32>) {
    let (rows, padded_k) = (input.len() / k, k.next_multiple_of(K_STEP));
    sums.clear();
    codes.grow(tile::width(isa), rows * padded_k);
    for row in 0..rows {
        let input = input.slice(row * k..(row + 1) * k);
        let range = row * padded_k..(row + 1) * padded_k;
        let sum = match tile::width(isa) {
            Width::Byte => lay(input, &mut codes.bytes[range], |code| code),
            Width::Word => lay(input, &mut codes.words[range], i16::from),
        };
        sums.push(sum);
    }
}

fn lay<T: Default>(input: Codes<'_>, out: &mut [T], widen: impl Fn(i8) -> T) -> i32 {
    let (out, rest) = out.split_at_mut(input.len());
    rest.fill_with(T::default);
    let mut sum = 0_i32;
    let mut put = |out: &mut T, code: i8| {
        sum = sum.wrapping_add(i32::from(code));
        *out = widen(code);
    };
    match input {
        Codes::Signed(codes) => codes.iter().zip(out).for_each(|(code, out)| put(out, *code)),
        Codes::Unsigned(codes) => {
            codes.iter().zip(out).for_each(|(code, out)| put(out, (code ^ 128).cast_signed()));
        }
    }
    sum
}

#[derive(Clone, Copy)]
struct Rows<'a> {
    /// Sum of the codes of each.
    sums: &'a [i32],
    zero_point: i32,
    k: i32,
}

for_each_isa! {
    fn take_zero_points(
        isa: Isa,
        tile: &mut [i32],
        rows: Rows<'_>,
        zero_points: &[i32],
        column_sums: &[i32],
    ) {
        for (tile, row_sum) in tile.chunks_exact_mut(zero_points.len()).zip(rows.sums) {
            // (w's zero) · (k · a's zero - Σa) - (a's zero) · Σw.
            let factor = rows.k.wrapping_mul(rows.zero_point).wrapping_sub(*row_sum);
            for ((value, zero_point), sum) in tile.iter_mut().zip(zero_points).zip(column_sums) {
                *value = value
                    .wrapping_add(factor.wrapping_mul(*zero_point))
                    .wrapping_sub(rows.zero_point.wrapping_mul(*sum));
            }
        }
    }
}

for_each_isa! {
    fn scale_tile(isa: Isa, sums: &[i32], row_scale: f32, scales: &[f32], out: &mut [f32]) {
        let rows = sums.chunks_exact(scales.len()).zip(out.chunks_exact_mut(scales.len()));
        for (sums, out) in rows {
            for ((sum, out), scale) in sums.iter().zip(out).zip(scales) {
                #[expect(clippy::cast_precision_loss, reason = "as ONNX casts it")]
                let sum = *sum as f32;
                *out = sum * (row_scale * scale);
            }
        }
    }
}
