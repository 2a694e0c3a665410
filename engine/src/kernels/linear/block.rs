//! `out = epilogue(x · Wᵀ + bias)` with weights of 8 or 4 bits in blocks, and x quantized the same way.
//!
//! What it computes, to the bit, in every form: each row of x is cut into blocks along k, as long as those of the
//! weights, and quantized ([`BlockCodes`]); the products of a block are summed exactly, as integers; then
//! `acc = fma(f32(sum), scale_x · scale_w, acc)` block after block, from `acc = bias` or `bias + residual` on; then GELU.

use crate::kernels::{
    aligned::Aligned,
    isa::Isa,
    linear::{
        epilogue::Epilogue,
        packed::{Bits, BlockPanel, Order, WeightsError, finite, length},
        tile::{self, TILE_MAX},
    },
    quantize::BlockCodes,
    scratch,
    threads::Threads,
};

/// Most rows that are quantized and multiplied before the next: their codes stay in the second cache, and all weights
/// are read once for them.
const SLAB: usize = 240;

/// A matrix of weights that is packed for one form.
#[derive(Clone, Debug)]
pub struct BlockLinear {
    isa: Isa,
    order: Order,
    bits: Bits,
    block: usize,
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
    /// Numbers along k that share a scale, of weights and input: 32, 64, 128 or 256.
    pub block: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of an input row, a multiple of `block`.
    pub k: usize,
    /// `codes[n][k]` with zero point 128, or two a byte with zero point 8, the even one low.
    pub codes: &'a [u8],
    /// `scales[n][k / block]`.
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
        let BlockWeights { bits, block, n, k, codes, scales, bias } = weights;
        bits.check((n, k), block, codes, scales)?;
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
            block,
            n,
            k,
            codes: packed,
            scales: order.pack_scales(n, k / block, scales),
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
        threads.split(
            out,
            self.n,
            tile::block_rows(self.isa),
            products,
            &|range, out: &mut [f32]| {
                let x = &x[range.start * self.k..range.end * self.k];
                self.rows(x, epilogue.rows(&range, self.n), out);
            },
        );
    }

    fn rows(&self, x: &[f32], epilogue: Epilogue<'_>, out: &mut [f32]) {
        scratch::with(|scratch| {
            // Slabs of about the same size: all weights would be read for a few rows that are left over.
            let rows = x.len() / self.k;
            let slab_rows = rows.div_ceil(rows.div_ceil(SLAB).max(1));
            let slab_rows = slab_rows.next_multiple_of(tile::block_rows(self.isa)).max(1);
            let slabs = x.chunks(slab_rows * self.k).zip(out.chunks_mut(slab_rows * self.n));
            for (slab, (x, out)) in slabs.enumerate() {
                let rows = x.len() / self.k;
                let codes = &mut scratch.codes;
                let width = tile::width(self.isa);
                codes.fill(self.isa, width, self.block, self.bits.zero_point(), x);
                let first = slab * slab_rows;
                self.slab(codes, rows, epilogue.rows(&(first..first + rows), self.n), out);
            }
        });
    }

    fn slab(&self, input: &BlockCodes, rows: usize, epilogue: Epilogue<'_>, out: &mut [f32]) {
        let (lanes, block, blocks) = (self.order.lanes, self.block, self.k / self.block);
        let panel_bytes = self.order.panel_bytes(self.bits, self.k);
        let panels = self.codes.as_slice::<u8>().chunks_exact(panel_bytes);
        let panels = panels.zip(self.scales.as_slice::<f32>().chunks_exact(blocks * lanes));
        let bits = self.bits;
        for ((at, (codes, scales)), bias) in panels.enumerate().zip(self.bias.chunks_exact(lanes)) {
            let bend = matches!(epilogue, Epilogue::Gelu);
            let panel =
                BlockPanel { bits, block, blocks, codes, scales, bias, residual: None, bend };
            let column = at * lanes;
            if column + lanes <= self.n {
                self.whole(&panel, input, rows, column, epilogue, out);
            } else {
                self.partial(&panel, input, rows, column, epilogue, out);
            }
        }
    }

    /// A panel that lies within the result.
    fn whole(
        &self,
        panel: &BlockPanel<'_>,
        input: &BlockCodes,
        rows: usize,
        column: usize,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        let residual = epilogue.residual().map(|all| &all[column..]);
        let panel = &BlockPanel { residual, ..*panel };
        tile::blocks(self.isa, panel, input, 0..rows, &mut out[column..], self.n);
    }

    /// A panel whose last columns are padding: it is computed apart, some rows at a time, and cut.
    fn partial(
        &self,
        panel: &BlockPanel<'_>,
        input: &BlockCodes,
        rows: usize,
        column: usize,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        let (lanes, width) = (self.order.lanes, self.n - column);
        let (mut space, mut residuals) = ([0.0; TILE_MAX], [0.0; TILE_MAX]);
        let step = 2 * tile::block_rows(self.isa);
        for first in (0..rows).step_by(step) {
            let some = first..rows.min(first + step);
            let part =
                |row: usize| (first + row) * self.n + column..(first + row) * self.n + self.n;
            let residual = epilogue.residual().map(|all| {
                for (row, kept) in residuals.chunks_exact_mut(lanes).take(some.len()).enumerate() {
                    kept[..width].copy_from_slice(&all[part(row)]);
                }
                &residuals[..]
            });
            let panel = &BlockPanel { residual, ..*panel };
            let count = some.len();
            tile::blocks(self.isa, panel, input, some, &mut space, lanes);
            for (row, tile) in space.chunks_exact(lanes).take(count).enumerate() {
                out[part(row)].copy_from_slice(&tile[..width]);
            }
        }
    }
}
