//! The innermost products: a few rows times one panel, checked here and computed by the form of the machine.

#[cfg(target_arch = "x86_64")]
use crate::kernels::linear::{avx2, avx512};
use crate::kernels::{
    isa::{Isa, Level},
    linear::{
        packed::{BLOCK, BlockPanel, BlockRows, Order},
        panels::{self, FloatTile, Strided},
        portable,
    },
    quantize::{BlockCodes, Width},
};

/// Numbers in the largest tile of any form.
pub(in crate::kernels) const TILE_MAX: usize = 12 * 32;

/// Rows of a tile of integers with one scale, in every form.
pub(in crate::kernels) const ROWS: usize = 6;

/// Rows of a tile of blocks: as many as the registers hold with all that a block needs.
pub(in crate::kernels) const fn block_rows(isa: Isa) -> usize {
    match isa.level() {
        Level::Portable => 6,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 6,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => 5,
    }
}

/// How wide the form of `isa` wants quantized input.
pub(in crate::kernels) const fn width(isa: Isa) -> Width {
    match isa.level() {
        Level::Portable => Width::Word,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Width::Word,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => Width::Byte,
    }
}

/// `out[r][lane] = bias (+ residual)`, and then added to it, block after block and fused:
/// `f32(Σ q·w) · (scale of the input · scale of the weight)`, for rows `first..first + rows` of `input`. Rows of `out`
/// are `stride` apart.
pub(in crate::kernels) fn blocks(
    isa: Isa,
    panel: &BlockPanel<'_>,
    input: &BlockCodes,
    first: usize,
    rows: usize,
    out: &mut [f32],
    stride: usize,
) {
    let order = Order::of(isa);
    let (blocks, k) = (panel.blocks, panel.blocks * BLOCK);
    let reach = (rows - 1) * stride + order.lanes;
    assert!((1..=block_rows(isa)).contains(&rows) && stride >= order.lanes && out.len() >= reach);
    assert!(panel.bias.len() == order.lanes);
    assert!(panel.residual.is_none_or(|residual| residual.len() >= reach));
    assert!(panel.codes.len() == order.panel_bytes(panel.bits, k));
    assert!(panel.scales.len() == blocks * order.lanes);
    let scales = &input.scales[first * blocks..(first + rows) * blocks];
    let starts = &input.starts[first * blocks..(first + rows) * blocks];
    match isa.level() {
        Level::Portable => {
            let codes = &input.words[first * k..(first + rows) * k];
            portable::blocks(panel, &BlockRows { codes, scales, starts }, out, stride);
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            let codes = &input.words[first * k..(first + rows) * k];
            avx2::blocks(isa, panel, &BlockRows { codes, scales, starts }, out, stride);
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => {
            let codes = &input.bytes[first * k..(first + rows) * k];
            avx512::blocks(isa, panel, &BlockRows { codes, scales, starts }, out, stride);
        }
    }
}

/// `out[r][lane] = Σₖ input[r][k] · panel[k][lane]` over whole panels of integers, exact modulo 2³².
///
/// Row `r` of the input is row `first + r` of `k` codes, `k` the length of the panel's columns.
pub(in crate::kernels) fn sums(
    isa: Isa,
    panel: &[u8],
    input: &BlockCodes,
    first: usize,
    rows: usize,
    out: &mut [i32],
) {
    let lanes = Order::of(isa).lanes;
    let k = panel.len() / lanes;
    assert!((1..=ROWS).contains(&rows) && out.len() == rows * lanes);
    let range = first * k..(first + rows) * k;
    match isa.level() {
        Level::Portable => portable::sums(panel, &input.words[range], out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::sums(isa, panel, &input.words[range], out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => avx512::sums(isa, panel, &input.bytes[range], out),
    }
}

/// `out[r][lane] = Σₖ input[r][k] · panel[k][lane]`, fused, in order of k; rows of `out` are `out_stride` apart.
pub(in crate::kernels) fn floats(
    isa: Isa,
    panel: &[f32],
    input: Strided<'_>,
    rows: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    let lanes = panels::lanes(isa);
    let k = panel.len() / lanes;
    let tile = FloatTile { panel, k, rows, input, out_stride };
    assert!((1..=panels::tile_rows(isa)).contains(&rows) && panel.len() == k * lanes);
    assert!(input.data.len() >= (rows - 1) * input.stride + k);
    assert!(out_stride >= lanes && out.len() >= (rows - 1) * out_stride + lanes);
    match isa.level() {
        Level::Portable => portable::floats(tile, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::floats(isa, tile, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => avx512::floats(isa, tile, out),
    }
}
