//! The tiles without special instructions, 16 columns wide. They define what the other forms compute.

use crate::kernels::{
    elementary,
    linear::{
        packed::{Bits, BlockPanel, BlockRows},
        panels::RowsTile,
    },
};

const LANES: usize = 16;
/// `k` of a step.
const GROUP: usize = 2;

pub(in crate::kernels) fn blocks(
    panel: &BlockPanel<'_>,
    input: &BlockRows<'_, i16>,
    out: &mut [f32],
    stride: usize,
) {
    let k = panel.blocks * panel.block;
    let block_bytes = panel.bits.bytes(panel.block * LANES);
    for (row, codes) in input.codes.chunks_exact(k).enumerate() {
        let mut totals = [0.0_f32; LANES];
        totals.copy_from_slice(panel.bias);
        if let Some(residual) = panel.residual {
            for (total, residual) in totals.iter_mut().zip(&residual[row * stride..]) {
                *total += residual;
            }
        }
        for (block, codes) in codes.chunks_exact(panel.block).enumerate() {
            let weights = &panel.codes[block * block_bytes..][..block_bytes];
            let mut sums = [input.starts[row * panel.blocks + block]; LANES];
            match panel.bits {
                Bits::Eight => eight(weights, codes, &mut sums),
                Bits::Four => four(weights, codes, &mut sums),
            }
            let row_scale = input.scales[row * panel.blocks + block];
            let scales = &panel.scales[block * LANES..][..LANES];
            for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(scales) {
                #[expect(clippy::cast_precision_loss, reason = "sums of a block are below 2^24")]
                let sum = sum as f32;
                *total = sum.mul_add(row_scale * scale, *total);
            }
        }
        if panel.bend {
            totals = totals.map(elementary::gelu);
        }
        out[row * stride..][..LANES].copy_from_slice(&totals);
    }
}

/// Adds products of bytes: `sums[lane] += Σ codes[k] · weights[k][lane]`.
fn eight(weights: &[u8], codes: &[i16], sums: &mut [i32; LANES]) {
    for (weights, codes) in weights.chunks_exact(LANES * GROUP).zip(codes.as_chunks::<GROUP>().0) {
        for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<GROUP>().0) {
            let pair = i32::from(codes[0]) * i32::from(weights[0])
                + i32::from(codes[1]) * i32::from(weights[1]);
            *sum = sum.wrapping_add(pair);
        }
    }
}

fn four(weights: &[u8], codes: &[i16], sums: &mut [i32; LANES]) {
    for (weights, codes) in weights.chunks_exact(LANES * GROUP).zip(codes.as_chunks::<4>().0) {
        for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<GROUP>().0) {
            *sum += i32::from(codes[0]) * i32::from(weights[0] & 15)
                + i32::from(codes[1]) * i32::from(weights[1] & 15)
                + i32::from(codes[2]) * i32::from(weights[0] >> 4)
                + i32::from(codes[3]) * i32::from(weights[1] >> 4);
        }
    }
}

pub(in crate::kernels) fn sums(panel: &[u8], codes: &[i16], out: &mut [i32]) {
    let k = panel.len() / LANES;
    for (out, codes) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(codes.chunks_exact(k)) {
        *out = [0; LANES];
        eight(panel, codes, out);
    }
}

pub(in crate::kernels) fn floats(tile: RowsTile<'_, f32>, out: &mut [f32]) {
    let panel = tile.panel.as_chunks::<LANES>().0;
    for row in 0..tile.rows {
        let input = &tile.input[row * tile.stride..];
        let mut totals = [0.0_f32; LANES];
        for (weights, x) in panel.iter().zip(input) {
            for (total, weight) in totals.iter_mut().zip(weights) {
                *total = x.mul_add(*weight, *total);
            }
        }
        out[row * tile.out_stride..][..LANES].copy_from_slice(&totals);
    }
}

pub(in crate::kernels) fn words(tile: RowsTile<'_, i16>, out: &mut [i32]) {
    for row in 0..tile.rows {
        let input = &tile.input[row * tile.stride..][..tile.k];
        let mut totals = [0_i32; LANES];
        let pairs = input.as_chunks::<2>().0;
        for (weights, pair) in tile.panel.chunks_exact(LANES * 2).zip(pairs) {
            for (total, weights) in totals.iter_mut().zip(weights.as_chunks::<2>().0) {
                let sum = i32::from(pair[0]) * i32::from(weights[0])
                    + i32::from(pair[1]) * i32::from(weights[1]);
                *total = total.wrapping_add(sum);
            }
        }
        out[row * tile.out_stride..][..LANES].copy_from_slice(&totals);
    }
}
