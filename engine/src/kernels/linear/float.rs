//! `out = epilogue(x · Wᵀ + bias)` in f32: products are fused and summed in order of k, in every form.

use crate::kernels::{
    aligned::Aligned,
    isa::Isa,
    linear::{
        epilogue::{self, Epilogue, Place},
        packed::{WeightsError, finite, length, sides},
        panels::{self, Strided},
        tile::{self, TILE_MAX},
    },
    threads::Threads,
};

/// A matrix of f32 weights that is packed for one form.
#[derive(Clone, Debug)]
pub struct FloatLinear {
    isa: Isa,
    n: usize,
    k: usize,
    panels: Aligned,
    bias: Vec<f32>,
}

impl FloatLinear {
    /// Packs `weights[k][n]`, as ONNX's `MatMul` holds them.
    ///
    /// # Errors
    /// The shape or a length is wrong, or a number is not finite.
    pub fn new(
        isa: Isa,
        k: usize,
        n: usize,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, WeightsError> {
        length(k, n, "weights", sides(k, n)?, weights.len())?;
        finite("weight", weights)?;
        if let Some(bias) = bias {
            length(k, n, "biases", n, bias.len())?;
            finite("bias", bias)?;
        }
        let lanes = panels::lanes(isa);
        let padded = n.next_multiple_of(lanes);
        let mut packed = Aligned::zeros::<f32>(padded * k);
        let source = Strided { data: weights, stride: n };
        panels::pack_rows(lanes, source, k, n, &mut packed.as_mut_slice()[..padded * k]);
        let mut bias = bias.map_or_else(Vec::new, <[f32]>::to_vec);
        bias.resize(padded, 0.0);
        Ok(Self { isa, n, k, panels: packed, bias })
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
        self.panels.bytes() + self.bias.len() * size_of::<f32>()
    }

    /// `out[m][n] = epilogue(x[m][k] · Wᵀ + bias)` for as many rows as `x` has.
    ///
    /// # Panics
    /// `x`, `out` or a residual do not have the same number of whole rows.
    pub fn run(&self, x: &[f32], epilogue: Epilogue<'_>, threads: &Threads, out: &mut [f32]) {
        let rows = x.len() / self.k;
        assert!(x.len() == rows * self.k, "input of {} is not whole rows of {}", x.len(), self.k);
        assert!(out.len() == rows * self.n, "result of {} is not {rows} × {}", out.len(), self.n);
        epilogue.check(out.len());
        let step = panels::tile_rows(self.isa);
        threads.split(out, self.n, step, x.len() * self.n, &|range, out: &mut [f32]| {
            let x = &x[range.start * self.k..range.end * self.k];
            self.rows(x, epilogue.rows(&range, self.n), out);
        });
    }

    fn rows(&self, x: &[f32], epilogue: Epilogue<'_>, out: &mut [f32]) {
        let (lanes, step) = (panels::lanes(self.isa), panels::tile_rows(self.isa));
        let rows = x.len() / self.k;
        let input = Strided { data: x, stride: self.k };
        let panels = self.panels.as_slice::<f32>().chunks_exact(self.k * lanes);
        let mut space = [0.0; TILE_MAX];
        for ((at, panel), bias) in panels.enumerate().zip(self.bias.chunks_exact(lanes)) {
            for row in (0..rows).step_by(step) {
                let count = step.min(rows - row);
                let tile = &mut space[..count * lanes];
                tile::floats(self.isa, panel, input.from(row, 0), count, tile, lanes);
                let place = Place { row, column: at * lanes, n: self.n };
                epilogue::store(self.isa, tile, bias, epilogue, place, out);
            }
        }
    }
}
