//! What the vector forms follow: pointers to the operands of a tile, made in one place, where lengths are checked.

use std::marker::PhantomData;

use crate::kernels::linear::{
    packed::{BLOCK, BlockPanel, BlockRows},
    panels::RowsTile,
};

/// Rows times one panel of blocks. Behind its pointers lies what [`Blocks::new`] checked, for as long as it lives.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a, T> {
    /// Blocks along k.
    pub(super) blocks: usize,
    /// Runs of 32 in a block.
    pub(super) runs: usize,
    /// A panel of `blocks · runs · 32` codes a column.
    pub(super) weights: *const u8,
    /// `[blocks][lanes]`.
    pub(super) weight_scales: *const f32,
    /// One a lane.
    pub(super) bias: *const f32,
    /// `[rows][blocks · runs · 32]`.
    pub(super) codes: *const T,
    /// `[rows][blocks]`.
    pub(super) scales: *const f32,
    /// `[rows][blocks]`.
    pub(super) starts: *const i32,
    /// Null, or rows of lanes that are `stride` apart.
    pub(super) residual: *const f32,
    /// Whether GELU follows.
    pub(super) bend: bool,
    /// Rows of lanes that are `stride` apart.
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    operands: PhantomData<&'a mut [f32]>,
}

impl<'a, T> Blocks<'a, T> {
    /// All rows of `input` times `panel`, which is `lanes` wide; and how many rows that are.
    ///
    /// # Panics
    /// Lengths do not fit each other.
    pub(super) fn new(
        lanes: usize,
        panel: &'a BlockPanel<'_>,
        input: &'a BlockRows<'_, T>,
        out: &'a mut [f32],
        stride: usize,
    ) -> (Self, usize) {
        let (blocks, runs) = (panel.blocks, panel.block / BLOCK);
        let k = blocks * runs * BLOCK;
        assert!(k > 0 && k == blocks * panel.block, "{blocks} blocks of {}", panel.block);
        let rows = input.codes.len() / k;
        assert!(rows > 0 && input.codes.len() == rows * k, "no whole rows");
        assert!(input.scales.len() == rows * blocks && input.starts.len() == rows * blocks);
        assert!(panel.scales.len() == blocks * lanes && panel.bias.len() == lanes);
        assert!(panel.codes.len() == panel.bits.bytes(k * lanes));
        let reach = (rows - 1) * stride + lanes;
        assert!(stride >= lanes && out.len() >= reach);
        assert!(panel.residual.is_none_or(|residual| residual.len() >= reach));
        let all = Self {
            blocks,
            runs,
            weights: panel.codes.as_ptr(),
            weight_scales: panel.scales.as_ptr(),
            bias: panel.bias.as_ptr(),
            codes: input.codes.as_ptr(),
            scales: input.scales.as_ptr(),
            starts: input.starts.as_ptr(),
            residual: panel.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            bend: panel.bend,
            out: out.as_mut_ptr(),
            stride,
            operands: PhantomData,
        };
        (all, rows)
    }

    /// Codes from a row to the next.
    pub(super) const fn row(&self) -> usize {
        self.blocks * self.runs * BLOCK
    }

    /// The same from row `first` on, which must be there.
    pub(super) fn from(self, first: usize) -> Self {
        let residual = if self.residual.is_null() {
            self.residual
        } else {
            self.residual.wrapping_add(first * self.stride)
        };
        Self {
            codes: self.codes.wrapping_add(first * self.row()),
            scales: self.scales.wrapping_add(first * self.blocks),
            starts: self.starts.wrapping_add(first * self.blocks),
            residual,
            out: self.out.wrapping_add(first * self.stride),
            ..self
        }
    }
}

/// Rows times one panel.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T, O> {
    /// `k` numbers a lane.
    pub(super) panel: *const T,
    pub(super) k: usize,
    /// Rows of `k` that are `stride` apart.
    pub(super) x: *const T,
    pub(super) stride: usize,
    /// Rows of lanes that are `out_stride` apart.
    pub(super) out: *mut O,
    pub(super) out_stride: usize,
    operands: PhantomData<&'a mut [O]>,
}

impl<'a, T, O> Rows<'a, T, O> {
    /// The rows of `tile`, at least one, times its panel, which is `lanes` wide.
    ///
    /// # Panics
    /// Lengths do not fit each other.
    pub(super) fn new(lanes: usize, tile: RowsTile<'a, T>, out: &'a mut [O]) -> Self {
        let RowsTile { panel, k, rows, input, stride, out_stride } = tile;
        assert!(rows > 0 && panel.len() == k * lanes && out_stride >= lanes);
        assert!(input.len() >= (rows - 1) * stride + k);
        assert!(out.len() >= (rows - 1) * out_stride + lanes);
        Self {
            panel: panel.as_ptr(),
            k,
            x: input.as_ptr(),
            stride,
            out: out.as_mut_ptr(),
            out_stride,
            operands: PhantomData,
        }
    }
}

/// Evaluates `$call` with `$name`, a constant, for as many rows as there are, or for the last count when there are more.
macro_rules! for_rows {
    ($rows:expr, [$($count:literal),* ; $last:literal], $name:ident => $call:expr) => {
        match $rows {
            $($count => {
                const $name: usize = $count;
                $call
            })*
            _ => {
                const $name: usize = $last;
                $call
            }
        }
    };
}
pub(super) use for_rows;
