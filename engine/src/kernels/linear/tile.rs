//! The innermost products: a few rows times one panel, checked here and computed by the form of the machine.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::kernels::linear::{avx2, avx512};
use crate::kernels::{
    isa::{Isa, Level},
    linear::{
        packed::{BlockPanel, BlockRows, Order},
        panels::{self, RowsTile, Strided},
        portable,
    },
    quantize::{BlockCodes, Width},
};

/// Numbers in the largest tile of any form.
pub(in crate::kernels) const TILE_MAX: usize = 12 * 32;

/// Rows of a tile of integers with one scale, in every form.
pub(in crate::kernels) const ROWS: usize = 6;

/// Rows of a tile of blocks: as many as the registers hold with all that a block needs. Calls are best cut into
/// multiples of it.
pub(in crate::kernels) const fn block_rows(isa: Isa) -> usize {
    match isa.level() {
        Level::Portable => 6,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::ROWS,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => avx512::BLOCK_ROWS,
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
/// `f32(Σ q·w) · (scale of the input · scale of the weight)`, for these rows of `input`; then GELU if the panel says so.
/// Rows of `out` are `stride` apart.
pub(in crate::kernels) fn blocks(
    isa: Isa,
    panel: &BlockPanel<'_>,
    input: &BlockCodes,
    rows: Range<usize>,
    out: &mut [f32],
    stride: usize,
) {
    let (blocks, k) = (panel.blocks, panel.blocks * panel.block);
    let scales = &input.scales[rows.start * blocks..rows.end * blocks];
    let starts = &input.starts[rows.start * blocks..rows.end * blocks];
    let codes = rows.start * k..rows.end * k;
    match isa.level() {
        Level::Portable => {
            let codes = &input.words[codes];
            portable::blocks(panel, &BlockRows { codes, scales, starts }, out, stride);
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            let codes = &input.words[codes];
            avx2::blocks(isa, panel, &BlockRows { codes, scales, starts }, out, stride);
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => {
            let codes = &input.bytes[codes];
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
    let Strided { data: input, stride } = input;
    let tile = RowsTile { panel, k, rows, input, stride, out_stride };
    assert!((1..=panels::tile_rows(isa)).contains(&rows));
    match isa.level() {
        Level::Portable => portable::floats(tile, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::floats(isa, tile, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => avx512::floats(isa, tile, out),
    }
}

/// `out[r][lane] = Σₖ input[r][k] · panel[k][lane]` of words, exact modulo 2³², for an even k: panels lie
/// `[k / 2][lane][2]`. Rows of `input` are as far apart as it says, those of `out` are `out_stride` apart.
pub(in crate::kernels) fn words(
    isa: Isa,
    panel: &[i16],
    (input, stride): (&[i16], usize),
    rows: usize,
    out: &mut [i32],
    out_stride: usize,
) {
    let k = panel.len() / panels::lanes(isa);
    let tile = RowsTile { panel, k, rows, input, stride, out_stride };
    assert!((1..=panels::tile_rows(isa)).contains(&rows) && k.is_multiple_of(2));
    match isa.level() {
        Level::Portable => portable::words(tile, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::words(isa, tile, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => avx512::words(isa, tile, out),
    }
}
