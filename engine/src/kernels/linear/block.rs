//! `out = epilogue(x · Wᵀ + bias)` with weights of 8 or 4 bits in blocks of 32, and x quantized the same way.
//!
//! What it computes, to the bit, in every form: each row of x is cut into blocks of 32 along k and quantized
//! ([`BlockCodes`]); the products of a block are summed exactly, as integers; then
//! `acc = fma(f32(sum), scale_x · scale_w, acc)` block after block, then `+ bias`, then the epilogue.

use crate::kernels::{
    aligned::Aligned,
    isa::Isa,
    linear::{
        epilogue::{self, Epilogue, Place},
        packed::{BLOCK, Bits, BlockPanel, Order, WeightsError, finite, length},
        tile::{self, ROWS, TILE_MAX},
    },
    quantize::BlockCodes,
    scratch,
    threads::Threads,
};

/// Rows that are quantized and multiplied before the next: their codes stay in the second cache.
const SLAB: usize = ROWS * 20;

/// A matrix of weights that is packed for one form.
#[derive(Clone, Debug)]
pub struct BlockLinear {
    isa: Isa,
    order: Order,
    bits: Bits,
    n: usize,
    k: usize,
    codes: Aligned,
    scales: Aligned,
    bias: Vec<f32>,
}

/// Weights as they are stored, row by row of the result's columns.
#[derive(Clone, Copy, Debug)]
pub struct BlockWeights<'a> {
    /// Size of a weight.
    pub bits: Bits,
    /// Columns of the result.
    pub n: usize,
    /// Length of an input row, a multiple of 32.
    pub k: usize,
    /// `codes[n][k]` with zero point 128, or two a byte with zero point 8, the even one low.
    pub codes: &'a [u8],
    /// `scales[n][k / 32]`.
    pub scales: &'a [f32],
    /// One a column, or none.
    pub bias: Option<&'a [f32]>,
}

impl BlockLinear {
    /// Packs `weights` for `isa`. Weights of 4 bits stay of 4 bits.
    ///
    /// # Errors
    /// The shape, a length, a scale or a bias is wrong.
    pub fn new(isa: Isa, weights: BlockWeights<'_>) -> Result<Self, WeightsError> {
        let BlockWeights { bits, n, k, codes, scales, bias } = weights;
        bits.check(n, k, codes, scales)?;
        if let Some(bias) = bias {
            length(n, k, "biases", n, bias.len())?;
            finite("bias", bias)?;
        }
        let order = Order::of(isa);
        let packed = match bits {
            Bits::Eight => order.pack(bits, n, k, |column, at| codes[column * k + at]),
            Bits::Four => order
                .pack(bits, n, k, |column, at| codes[(column * k + at) / 2] >> (at % 2 * 4) & 15),
        };
        let bias = bias.map_or_else(|| vec![0.0; n], <[f32]>::to_vec);
        Ok(Self {
            isa,
            order,
            bits,
            n,
            k,
            codes: packed,
            scales: order.pack_scales(n, k / BLOCK, scales),
            bias: order.padded(&bias),
        })
    }

    /// Columns of the result.
    pub const fn n(&self) -> usize {
        self.n
    }

    /// Length of an input row.
    pub const fn k(&self) -> usize {
        self.k
    }

    /// Size of a weight.
    pub const fn bits(&self) -> Bits {
        self.bits
    }

    /// Bytes of memory held.
    pub const fn bytes(&self) -> usize {
        self.codes.bytes() + self.scales.bytes() + self.bias.len() * size_of::<f32>()
    }

    /// `out[m][n] = epilogue(x[m][k] · Wᵀ + bias)` for as many rows as `x` has. A row with a number that is not finite
    /// becomes NaN.
    ///
    /// # Panics
    /// `x`, `out` or a residual do not have the same number of whole rows.
    pub fn run(&self, x: &[f32], epilogue: Epilogue<'_>, threads: &Threads, out: &mut [f32]) {
        let rows = x.len() / self.k;
        assert!(x.len() == rows * self.k, "input of {} is not whole rows of {}", x.len(), self.k);
        assert!(out.len() == rows * self.n, "result of {} is not {rows} × {}", out.len(), self.n);
        epilogue.check(out.len());
        let products = x.len() * self.n;
        threads.split(out, self.n, ROWS, products, &|range, out: &mut [f32]| {
            let x = &x[range.start * self.k..range.end * self.k];
            self.rows(x, epilogue.rows(&range, self.n), out);
        });
    }

    fn rows(&self, x: &[f32], epilogue: Epilogue<'_>, out: &mut [f32]) {
        scratch::with(|scratch| {
            let slabs = x.chunks(SLAB * self.k).zip(out.chunks_mut(SLAB * self.n));
            for (slab, (x, out)) in slabs.enumerate() {
                let rows = x.len() / self.k;
                let codes = &mut scratch.codes;
                codes.fill(self.isa, tile::width(self.isa), self.bits.zero_point(), x);
                let first = slab * SLAB;
                self.slab(codes, rows, epilogue.rows(&(first..first + rows), self.n), out);
            }
        });
    }

    fn slab(&self, input: &BlockCodes, rows: usize, epilogue: Epilogue<'_>, out: &mut [f32]) {
        let (lanes, blocks) = (self.order.lanes, self.k / BLOCK);
        let panels =
            self.codes.as_slice::<u8>().chunks_exact(self.order.panel_bytes(self.bits, self.k));
        let panels = panels.zip(self.scales.as_slice::<f32>().chunks_exact(blocks * lanes));
        let mut space = [0.0; TILE_MAX];
        for ((at, (codes, scales)), bias) in panels.enumerate().zip(self.bias.chunks_exact(lanes)) {
            let panel = BlockPanel { bits: self.bits, blocks, codes, scales };
            for row in (0..rows).step_by(ROWS) {
                let count = ROWS.min(rows - row);
                let tile = &mut space[..count * lanes];
                tile::blocks(self.isa, panel, input, row, count, tile);
                let place = Place { row, column: at * lanes, n: self.n };
                epilogue::store(self.isa, tile, bias, epilogue, place, out);
            }
        }
    }
}
