//! The tiles in AVX2, 16 columns wide.
//!
//! `vpmaddwd` multiplies words and adds neighbours, so that nothing can overflow or saturate: weights are widened from
//! bytes as they are loaded, once for all rows of the tile, and the input is quantized to words. A tile of 6 × 16 keeps
//! its 12 integer sums in registers; float sums, needed once in 32 products, stay in the result's memory.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi16, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_madd_epi16,
    _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_storeu_si256,
};

use crate::kernels::{
    isa::{Isa, Level},
    linear::{
        packed::{BLOCK, Bits, BlockPanel, BlockRows},
        panels::FloatTile,
    },
};

const LANES: usize = 16;
/// Lanes of one register.
const HALF: usize = 8;
/// Bytes of one step: 2 `k` of 16 columns.
const STEP: usize = 32;

/// Pointers into the rows' share of a tile. The tile functions below are the only ones to follow them.
struct Rows {
    codes: *const i16,
    /// Codes from a row to the next.
    stride: usize,
    scales: *const f32,
    starts: *const i32,
    blocks: usize,
    bias: *const f32,
    /// Null, or rows as far apart as those of `out`.
    residual: *const f32,
    out: *mut f32,
    out_stride: usize,
}

/// See [`super::tile::blocks`], which has checked the lengths against each other.
pub(in crate::kernels) fn blocks(
    isa: Isa,
    panel: &BlockPanel<'_>,
    input: &BlockRows<'_, i16>,
    out: &mut [f32],
    out_stride: usize,
) {
    let k = panel.blocks * BLOCK;
    let rows = input.codes.len() / k;
    assert!(has_avx2(isa) && (1..=6).contains(&rows) && input.codes.len() == rows * k);
    assert!(input.scales.len() == rows * panel.blocks && input.starts.len() == input.scales.len());
    assert!(panel.scales.len() == panel.blocks * LANES && panel.bias.len() == LANES);
    assert!(panel.codes.len() == panel.bits.bytes(k * LANES));
    let reach = (rows - 1) * out_stride + LANES;
    assert!(out.len() >= reach && panel.residual.is_none_or(|residual| residual.len() >= reach));
    let at = Rows {
        codes: input.codes.as_ptr(),
        stride: k,
        scales: input.scales.as_ptr(),
        starts: input.starts.as_ptr(),
        blocks: panel.blocks,
        bias: panel.bias.as_ptr(),
        residual: panel.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
        out: out.as_mut_ptr(),
        out_stride,
    };
    let (weights, weight_scales) = (panel.codes.as_ptr(), panel.scales.as_ptr());
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and the lengths above are those that the tile reads and writes.
    unsafe {
        match (panel.bits, rows) {
            (Bits::Eight, 1) => block_tile::<1, false>(&at, weights, weight_scales),
            (Bits::Eight, 2) => block_tile::<2, false>(&at, weights, weight_scales),
            (Bits::Eight, 3) => block_tile::<3, false>(&at, weights, weight_scales),
            (Bits::Eight, 4) => block_tile::<4, false>(&at, weights, weight_scales),
            (Bits::Eight, 5) => block_tile::<5, false>(&at, weights, weight_scales),
            (Bits::Eight, _) => block_tile::<6, false>(&at, weights, weight_scales),
            (Bits::Four, 1) => block_tile::<1, true>(&at, weights, weight_scales),
            (Bits::Four, 2) => block_tile::<2, true>(&at, weights, weight_scales),
            (Bits::Four, 3) => block_tile::<3, true>(&at, weights, weight_scales),
            (Bits::Four, 4) => block_tile::<4, true>(&at, weights, weight_scales),
            (Bits::Four, 5) => block_tile::<5, true>(&at, weights, weight_scales),
            (Bits::Four, _) => block_tile::<6, true>(&at, weights, weight_scales),
        }
    }
}

fn has_avx2(isa: Isa) -> bool {
    isa.level() == Level::Avx2
}

/// # Safety
/// AVX2 and FMA; `R` rows behind each pointer of `at`, a panel behind `weights` and its scales.
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn block_tile<const R: usize, const FOUR: bool>(
    at: &Rows,
    weights: *const u8,
    weight_scales: *const f32,
) {
    // SAFETY: there are 16 biases, and R rows of residuals if any, and of `out`.
    unsafe { start::<R>(at) };
    let low = _mm256_set1_epi16(15);
    let mut weights = weights;
    for block in 0..at.blocks {
        // SAFETY: `block` is below `blocks`, so that each row has a start, a scale and 32 codes there, and the panel
        // has 16 steps (half the bytes in 4 bits) and 16 scales.
        unsafe {
            let mut sums = [[_mm256_set1_epi32(0); 2]; R];
            for (row, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm256_set1_epi32(*at.starts.add(row * at.blocks + block)); 2];
            }
            let codes = at.codes.add(block * BLOCK);
            if FOUR {
                for pair in 0..8 {
                    let words = [widened(weights), widened(weights.add(STEP / 2))];
                    weights = weights.add(STEP);
                    let early = words.map(|words| _mm256_and_si256(words, low));
                    let late = words.map(|words| _mm256_srli_epi16::<4>(words));
                    step::<R>(&mut sums, early, codes.add(pair * 4), at.stride);
                    step::<R>(&mut sums, late, codes.add(pair * 4 + 2), at.stride);
                }
            } else {
                for at_step in 0..16 {
                    let words = [widened(weights), widened(weights.add(STEP / 2))];
                    weights = weights.add(STEP);
                    step::<R>(&mut sums, words, codes.add(at_step * 2), at.stride);
                }
            }
            let column_scales = [
                _mm256_loadu_ps(weight_scales.add(block * LANES)),
                _mm256_loadu_ps(weight_scales.add(block * LANES + HALF)),
            ];
            for (row, sums) in sums.iter().enumerate() {
                let row_scale = _mm256_set1_ps(*at.scales.add(row * at.blocks + block));
                for half in 0..2 {
                    let total = at.out.add(row * at.out_stride + half * HALF);
                    let scale = _mm256_mul_ps(row_scale, column_scales[half]);
                    let sum = _mm256_cvtepi32_ps(sums[half]);
                    _mm256_storeu_ps(total, _mm256_fmadd_ps(sum, scale, _mm256_loadu_ps(total)));
                }
            }
        }
    }
}

/// Writes what the sums of a tile start at.
///
/// # Safety
/// AVX2; 16 biases, `R` rows of residuals unless null, and `R` rows of `out`.
#[inline]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn start<const R: usize>(at: &Rows) {
    for row in 0..R {
        for half in [0, HALF] {
            // SAFETY: row `row` of 16 numbers lies in each.
            unsafe {
                let mut total = _mm256_loadu_ps(at.bias.add(half));
                if !at.residual.is_null() {
                    let residual = at.residual.add(row * at.out_stride + half);
                    total = _mm256_add_ps(total, _mm256_loadu_ps(residual));
                }
                _mm256_storeu_ps(at.out.add(row * at.out_stride + half), total);
            }
        }
    }
}

/// Adds the products of 2 `k`.
///
/// # Safety
/// AVX2; 2 codes of each of `R` rows behind `codes`.
#[inline]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn step<const R: usize>(
    sums: &mut [[__m256i; 2]; R],
    weights: [__m256i; 2],
    codes: *const i16,
    stride: usize,
) {
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: 2 codes of row `row` lie there.
        let two = unsafe { codes.add(row * stride).cast::<i32>().read_unaligned() };
        let input = _mm256_set1_epi32(two);
        sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(weights[0], input));
        sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(weights[1], input));
    }
}

/// # Safety
/// AVX2; 16 bytes behind `bytes`.
#[inline]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "loads a vector register")]
unsafe fn widened(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.cast()) })
}

/// See [`super::tile::sums`], which has checked the lengths against each other.
pub(in crate::kernels) fn sums(isa: Isa, panel: &[u8], codes: &[i16], out: &mut [i32]) {
    let rows = out.len() / LANES;
    assert!(has_avx2(isa) && (1..=6).contains(&rows) && out.len() == rows * LANES);
    let steps = panel.len() / STEP;
    assert!(panel.len() == steps * STEP && codes.len() == rows * steps * 2);
    let (weights, input, out) = (panel.as_ptr(), codes.as_ptr(), out.as_mut_ptr());
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and the lengths above are those that the tile reads and writes.
    unsafe {
        match rows {
            1 => sum_tile::<1>(weights, input, steps, out),
            2 => sum_tile::<2>(weights, input, steps, out),
            3 => sum_tile::<3>(weights, input, steps, out),
            4 => sum_tile::<4>(weights, input, steps, out),
            5 => sum_tile::<5>(weights, input, steps, out),
            _ => sum_tile::<6>(weights, input, steps, out),
        }
    }
}

/// # Safety
/// AVX2; `steps` steps behind `weights`, `R` rows of `2 · steps` codes, `R × 16` numbers behind `out`.
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn sum_tile<const R: usize>(
    weights: *const u8,
    codes: *const i16,
    steps: usize,
    out: *mut i32,
) {
    let mut sums = [[_mm256_set1_epi32(0); 2]; R];
    for at in 0..steps {
        // SAFETY: `at` is below `steps`.
        unsafe {
            let words =
                [widened(weights.add(at * STEP)), widened(weights.add(at * STEP + STEP / 2))];
            step::<R>(&mut sums, words, codes.add(at * 2), steps * 2);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: row `row` of 16 numbers lies there.
        unsafe {
            _mm256_storeu_si256(out.add(row * LANES).cast(), sums[0]);
            _mm256_storeu_si256(out.add(row * LANES + HALF).cast(), sums[1]);
        }
    }
}

/// Pointers into a tile of floats.
#[derive(Clone, Copy)]
struct Floats {
    panel: *const f32,
    k: usize,
    x: *const f32,
    /// Numbers from a row of `x` to the next.
    stride: usize,
    out: *mut f32,
    /// Numbers from a row of `out` to the next.
    out_stride: usize,
}

/// See [`super::tile::floats`], which has checked the lengths against each other.
pub(in crate::kernels) fn floats(isa: Isa, tile: FloatTile<'_>, out: &mut [f32]) {
    let FloatTile { panel, k, rows, input, out_stride } = tile;
    assert!(has_avx2(isa) && (1..=6).contains(&rows) && panel.len() == k * LANES);
    assert!(input.data.len() >= (rows - 1) * input.stride + k);
    assert!(out.len() >= (rows - 1) * out_stride + LANES);
    let at = Floats {
        panel: panel.as_ptr(),
        k,
        x: input.data.as_ptr(),
        stride: input.stride,
        out: out.as_mut_ptr(),
        out_stride,
    };
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and the lengths above are those that the tile reads and writes.
    unsafe {
        match rows {
            1 => float_tile::<1>(at),
            2 => float_tile::<2>(at),
            3 => float_tile::<3>(at),
            4 => float_tile::<4>(at),
            5 => float_tile::<5>(at),
            _ => float_tile::<6>(at),
        }
    }
}

/// # Safety
/// AVX2 and FMA; `k × 16` numbers behind `panel`, `R` rows of `k` that are `stride` apart behind `x`, `R` rows of 16 that
/// are `out_stride` apart behind `out`.
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn float_tile<const R: usize>(at: Floats) {
    let mut totals = [[_mm256_setzero_ps(); 2]; R];
    for step in 0..at.k {
        // SAFETY: `step` is below `k`.
        unsafe {
            let weights = [
                _mm256_loadu_ps(at.panel.add(step * LANES)),
                _mm256_loadu_ps(at.panel.add(step * LANES + HALF)),
            ];
            for (row, totals) in totals.iter_mut().enumerate() {
                let value = _mm256_set1_ps(*at.x.add(row * at.stride + step));
                totals[0] = _mm256_fmadd_ps(value, weights[0], totals[0]);
                totals[1] = _mm256_fmadd_ps(value, weights[1], totals[1]);
            }
        }
    }
    // SAFETY: `out` has R such rows.
    unsafe { store_floats(&totals, at.out, at.out_stride) };
}

/// # Safety
/// AVX2 and FMA; `R` rows of 16 numbers, `stride` apart, behind `out`.
#[inline]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "stores vector registers")]
unsafe fn store_floats<const R: usize>(totals: &[[__m256; 2]; R], out: *mut f32, stride: usize) {
    for (row, totals) in totals.iter().enumerate() {
        // SAFETY: row `row` of 16 numbers lies there.
        unsafe {
            _mm256_storeu_ps(out.add(row * stride), totals[0]);
            _mm256_storeu_ps(out.add(row * stride + HALF), totals[1]);
        }
    }
}
