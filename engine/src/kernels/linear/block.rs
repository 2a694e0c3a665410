//! `out = epilogue(x · Wᵀ + bias)` with weights of 8 or 4 bits in blocks of 32, and x quantized the same way.
//!
//! What it computes, to the bit, in every form: each row of x is cut into blocks of 32 along k and quantized
//! ([`BlockCodes`]); the products of a block are summed exactly, as integers; then
//! `acc = fma(f32(sum), scale_x · scale_w, acc)` block after block, from `acc = bias` or `bias + residual` on; then GELU.

use crate::kernels::{
    aligned::Aligned,
    elementary,
    gelu::gelu,
    isa::{Isa, for_each_isa},
    linear::{
        epilogue::Epilogue,
        packed::{BLOCK, Bits, BlockPanel, Order, WeightsError, finite, length},
        tile::{self, TILE_MAX},
    },
    quantize::BlockCodes,
    scratch,
    threads::Threads,
};

/// Rows that are quantized and multiplied before the next: their codes stay in the second cache.
/// A multiple of the rows of a tile in every form.
const SLAB: usize = 120;

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
        let panel_bytes = self.order.panel_bytes(self.bits, self.k);
        let panels = self.codes.as_slice::<u8>().chunks_exact(panel_bytes);
        let panels = panels.zip(self.scales.as_slice::<f32>().chunks_exact(blocks * lanes));
        let step = tile::block_rows(self.isa);
        for ((at, (codes, scales)), bias) in panels.enumerate().zip(self.bias.chunks_exact(lanes)) {
            let panel = BlockPanel { bits: self.bits, blocks, codes, scales, bias, residual: None };
            let column = at * lanes;
            for row in (0..rows).step_by(step) {
                let tile = Tile { row, rows: step.min(rows - row), column };
                if column + lanes <= self.n {
                    self.whole(&panel, input, tile, epilogue, out);
                } else {
                    self.partial(&panel, input, tile, epilogue, out);
                }
            }
        }
    }

    /// A tile that lies within the result.
    fn whole(
        &self,
        panel: &BlockPanel<'_>,
        input: &BlockCodes,
        tile: Tile,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        let from = tile.row * self.n + tile.column;
        let residual = epilogue.residual().map(|all| &all[from..]);
        let panel = &BlockPanel { residual, ..*panel };
        let out = &mut out[from..];
        tile::blocks(self.isa, panel, input, tile.row, tile.rows, out, self.n);
        if matches!(epilogue, Epilogue::Gelu) {
            gelu_rows(self.isa, &mut out[..(tile.rows - 1) * self.n + self.order.lanes], self.n);
        }
    }

    /// A tile whose last columns are padding: it is computed apart and cut.
    fn partial(
        &self,
        panel: &BlockPanel<'_>,
        input: &BlockCodes,
        tile: Tile,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        let (lanes, width) = (self.order.lanes, self.n - tile.column);
        let (mut space, mut residuals) = ([0.0; TILE_MAX], [0.0; TILE_MAX]);
        let part = |row: usize| (tile.row + row) * self.n + tile.column;
        let residual = epilogue.residual().map(|all| {
            for (row, residual) in residuals.chunks_exact_mut(lanes).take(tile.rows).enumerate() {
                residual[..width].copy_from_slice(&all[part(row)..part(row) + width]);
            }
            &residuals[..]
        });
        let panel = &BlockPanel { residual, ..*panel };
        tile::blocks(self.isa, panel, input, tile.row, tile.rows, &mut space, lanes);
        if matches!(epilogue, Epilogue::Gelu) {
            gelu(self.isa, &mut space[..tile.rows * lanes]);
        }
        for (row, tile) in space.chunks_exact(lanes).take(tile.rows).enumerate() {
            out[part(row)..part(row) + width].copy_from_slice(&tile[..width]);
        }
    }
}

/// Where a tile lies in the result.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    rows: usize,
    column: usize,
}

for_each_isa! {
    /// GELU of the first columns of each row, as many as the last row has.
    fn gelu_rows(isa: Isa, rows: &mut [f32], stride: usize) {
        let width = rows.len() % stride;
        let width = if width == 0 { stride } else { width };
        for row in rows.chunks_mut(stride) {
            for value in &mut row[..width] {
                *value = elementary::gelu(*value);
            }
        }
    }
}
