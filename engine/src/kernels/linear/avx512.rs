//! The tiles in AVX-512 with VNNI, 32 columns wide.
//!
//! `vpdpbusd` adds four products of an unsigned and a signed byte to each of 16 lanes. The weights are the unsigned
//! side, stored with their zero point; the input is the signed side, four bytes of a row broadcast to all lanes. A tile
//! of 5 × 32 keeps 10 integer sums, 10 float sums, 2 vectors of weights and what is in flight in the 32 registers.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GT_OQ, _CMP_LT_OQ, _mm512_add_ps, _mm512_and_si512, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_mov_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_srli_epi16,
    _mm512_storeu_ps, _mm512_storeu_si512,
};

use crate::kernels::{
    elementary::{PHI_END, PHI_FACTOR, PHI_P},
    isa::{Isa, Level},
    linear::{
        packed::{BLOCK, Bits, BlockPanel, BlockRows},
        panels::RowsTile,
        raw::{Blocks, Rows, for_rows},
    },
};

const LANES: usize = 32;
/// Lanes of one register.
const HALF: usize = 16;
/// Bytes of one step: 4 `k` of 32 columns.
const STEP: usize = 128;

/// Rows of a tile of blocks.
pub(in crate::kernels) const BLOCK_ROWS: usize = 5;
/// Rows of a tile of floats or words.
pub(in crate::kernels) const PLAIN_ROWS: usize = 12;

/// See [`super::tile::blocks`].
pub(in crate::kernels) fn blocks(
    isa: Isa,
    panel: &BlockPanel<'_>,
    input: &BlockRows<'_, i8>,
    out: &mut [f32],
    stride: usize,
) {
    assert!(isa.level() == Level::Avx512Vnni);
    let (all, rows) = Blocks::new(LANES, panel, input, out, stride);
    for first in (0..rows).step_by(BLOCK_ROWS) {
        let (at, count) = (all.from(first), rows - first);
        #[expect(unsafe_code, reason = "follows pointers in vector registers")]
        // SAFETY: the level proves the instructions, and from `first` on there are `count` rows, or more than a tile's.
        unsafe {
            match panel.bits {
                Bits::Eight => for_rows!(count, [1, 2, 3, 4; 5], R => block_tile::<R, false>(at)),
                Bits::Four => for_rows!(count, [1, 2, 3, 4; 5], R => block_tile::<R, true>(at)),
            }
        }
    }
}

/// # Safety
/// AVX-512 F, BW and VNNI; `R` rows behind the pointers of `at`, the panel in 4 bits when `FOUR`, else in 8.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn block_tile<const R: usize, const FOUR: bool>(at: Blocks<'_, i8>) {
    let low = _mm512_set1_epi8(15);
    // SAFETY: there are 32 biases, and R rows of residuals if any.
    let mut totals = unsafe { started::<R>(&at) };
    let (mut weights, mut codes, stride) = (at.weights, at.codes, at.row());
    for block in 0..at.blocks {
        // SAFETY: `block` is below `blocks`, so that each row has a start, a scale and `runs` times 32 codes there, and
        // the panel has `runs` times 8 steps (half the bytes in 4 bits) and 32 scales.
        unsafe {
            let mut sums = [[_mm512_set1_epi32(0); 2]; R];
            for (row, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm512_set1_epi32(*at.starts.add(row * at.blocks + block)); 2];
            }
            for _ in 0..at.runs {
                if FOUR {
                    for pair in 0..4 {
                        let bytes = weights_at(weights.add(pair * STEP));
                        let early = bytes.map(|bytes| _mm512_and_si512(bytes, low));
                        let late =
                            bytes.map(|bytes| _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low));
                        step::<R>(&mut sums, early, codes.add(pair * 8), stride);
                        step::<R>(&mut sums, late, codes.add(pair * 8 + 4), stride);
                    }
                    weights = weights.add(4 * STEP);
                } else {
                    // Spelt out: eight rounds of a loop cost a twentieth of the time.
                    step::<R>(&mut sums, weights_at(weights), codes, stride);
                    step::<R>(&mut sums, weights_at(weights.add(STEP)), codes.add(4), stride);
                    step::<R>(&mut sums, weights_at(weights.add(2 * STEP)), codes.add(8), stride);
                    step::<R>(&mut sums, weights_at(weights.add(3 * STEP)), codes.add(12), stride);
                    step::<R>(&mut sums, weights_at(weights.add(4 * STEP)), codes.add(16), stride);
                    step::<R>(&mut sums, weights_at(weights.add(5 * STEP)), codes.add(20), stride);
                    step::<R>(&mut sums, weights_at(weights.add(6 * STEP)), codes.add(24), stride);
                    step::<R>(&mut sums, weights_at(weights.add(7 * STEP)), codes.add(28), stride);
                    weights = weights.add(8 * STEP);
                }
                codes = codes.add(BLOCK);
            }
            let column_scales = [
                _mm512_loadu_ps(at.weight_scales.add(block * LANES)),
                _mm512_loadu_ps(at.weight_scales.add(block * LANES + HALF)),
            ];
            for row in 0..R {
                let row_scale = _mm512_set1_ps(*at.scales.add(row * at.blocks + block));
                for half in 0..2 {
                    let scale = _mm512_mul_ps(row_scale, column_scales[half]);
                    let sum = _mm512_cvtepi32_ps(sums[row][half]);
                    totals[row][half] = _mm512_fmadd_ps(sum, scale, totals[row][half]);
                }
            }
        }
    }
    if at.bend {
        for total in totals.as_flattened_mut() {
            *total = gelu(*total);
        }
    }
    // SAFETY: `out` has R rows of 32.
    unsafe { store_floats(&totals, at.out, at.stride) };
}

/// [`crate::kernels::elementary::gelu`] to the bit; where an operand is NaN, the second one comes out of a minimum or maximum.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
fn gelu(x: __m512) -> __m512 {
    let (low, high) = (_mm512_set1_ps(-PHI_END), _mm512_set1_ps(PHI_END));
    let bounded = _mm512_min_ps(high, _mm512_max_ps(low, x));
    let square = _mm512_mul_ps(bounded, bounded);
    let at = _mm512_fmadd_ps(square, _mm512_set1_ps(PHI_FACTOR), _mm512_set1_ps(-1.0));
    let [lower @ .., last] = PHI_P;
    let mut value = _mm512_set1_ps(last);
    for coefficient in lower.into_iter().rev() {
        value = _mm512_fmadd_ps(value, at, _mm512_set1_ps(coefficient));
    }
    let erf = _mm512_mul_ps(bounded, value);
    let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, high);
    let erf = _mm512_mask_mov_ps(erf, above, _mm512_set1_ps(1.0));
    let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, low);
    let erf = _mm512_mask_mov_ps(erf, below, _mm512_set1_ps(-1.0));
    let half = _mm512_mul_ps(_mm512_set1_ps(0.5), x);
    _mm512_fmadd_ps(half, erf, half)
}

/// What the sums of a tile start at.
///
/// # Safety
/// AVX-512 F; 32 biases, and `R` rows of residuals unless null.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn started<const R: usize>(at: &Blocks<'_, i8>) -> [[__m512; 2]; R] {
    // SAFETY: the caller's promise.
    let bias = unsafe { [_mm512_loadu_ps(at.bias), _mm512_loadu_ps(at.bias.add(HALF))] };
    let mut totals = [bias; R];
    if !at.residual.is_null() {
        for (row, totals) in totals.iter_mut().enumerate() {
            // SAFETY: row `row` of 32 numbers lies there.
            unsafe {
                let residual = at.residual.add(row * at.stride);
                totals[0] = _mm512_add_ps(totals[0], _mm512_loadu_ps(residual));
                totals[1] = _mm512_add_ps(totals[1], _mm512_loadu_ps(residual.add(HALF)));
            }
        }
    }
    totals
}

/// Adds the products of 4 `k`.
///
/// # Safety
/// AVX-512 F and VNNI; 4 codes of each of `R` rows behind `codes`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn step<const R: usize>(
    sums: &mut [[__m512i; 2]; R],
    weights: [__m512i; 2],
    codes: *const i8,
    stride: usize,
) {
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: 4 codes of row `row` lie there.
        let four = unsafe { codes.add(row * stride).cast::<i32>().read_unaligned() };
        let input = _mm512_set1_epi32(four);
        sums[0] = _mm512_dpbusd_epi32(sums[0], weights[0], input);
        sums[1] = _mm512_dpbusd_epi32(sums[1], weights[1], input);
    }
}

/// The weights of one step.
///
/// # Safety
/// AVX-512 F; 128 bytes behind `bytes`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "loads vector registers")]
unsafe fn weights_at(bytes: *const u8) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm512_loadu_si512(bytes.cast()), _mm512_loadu_si512(bytes.add(64).cast())] }
}

/// See [`super::tile::sums`], which has checked the lengths against each other.
pub(in crate::kernels) fn sums(isa: Isa, panel: &[u8], codes: &[i8], out: &mut [i32]) {
    let rows = out.len() / LANES;
    assert!(
        isa.level() == Level::Avx512Vnni && (1..=6).contains(&rows) && out.len() == rows * LANES
    );
    let steps = panel.len() / STEP;
    assert!(panel.len() == steps * STEP && codes.len() == rows * steps * 4);
    let (weights, input, out) = (panel.as_ptr(), codes.as_ptr(), out.as_mut_ptr());
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and the lengths above are those that the tile reads and writes.
    unsafe {
        for_rows!(rows, [1, 2, 3, 4, 5; 6], R => sum_tile::<R>(weights, input, steps, out));
    }
}

/// # Safety
/// AVX-512 F and VNNI; `steps` steps behind `weights`, `R` rows of `4 · steps` codes, `R × 32` numbers behind `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn sum_tile<const R: usize>(
    weights: *const u8,
    codes: *const i8,
    steps: usize,
    out: *mut i32,
) {
    let mut sums = [[_mm512_set1_epi32(0); 2]; R];
    for at in 0..steps {
        // SAFETY: `at` is below `steps`.
        unsafe {
            let bytes = weights_at(weights.add(at * STEP));
            step::<R>(&mut sums, bytes, codes.add(at * 4), steps * 4);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: row `row` of 32 numbers lies there.
        unsafe {
            _mm512_storeu_si512(out.add(row * LANES).cast(), sums[0]);
            _mm512_storeu_si512(out.add(row * LANES + HALF).cast(), sums[1]);
        }
    }
}

/// See [`super::tile::floats`].
pub(in crate::kernels) fn floats(isa: Isa, tile: RowsTile<'_, f32>, out: &mut [f32]) {
    assert!(isa.level() == Level::Avx512Vnni && tile.rows <= PLAIN_ROWS);
    let (rows, at) = (tile.rows, Rows::new(LANES, tile, out));
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and `at` has as many rows as the tile.
    unsafe {
        for_rows!(rows, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11; 12], R => float_tile::<R>(at));
    }
}

/// # Safety
/// AVX-512 F; `R` rows behind the pointers of `at`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn float_tile<const R: usize>(at: Rows<'_, f32, f32>) {
    let mut totals = [[_mm512_setzero_ps(); 2]; R];
    for step in 0..at.k {
        // SAFETY: `step` is below `k`.
        unsafe {
            let weights = [
                _mm512_loadu_ps(at.panel.add(step * LANES)),
                _mm512_loadu_ps(at.panel.add(step * LANES + HALF)),
            ];
            for (row, totals) in totals.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*at.x.add(row * at.stride + step));
                totals[0] = _mm512_fmadd_ps(value, weights[0], totals[0]);
                totals[1] = _mm512_fmadd_ps(value, weights[1], totals[1]);
            }
        }
    }
    // SAFETY: `out` has R such rows.
    unsafe { store_floats(&totals, at.out, at.out_stride) };
}

/// See [`super::tile::words`].
pub(in crate::kernels) fn words(isa: Isa, tile: RowsTile<'_, i16>, out: &mut [i32]) {
    assert!(isa.level() == Level::Avx512Vnni && tile.rows <= PLAIN_ROWS);
    let (rows, at) = (tile.rows, Rows::new(LANES, tile, out));
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and `at` has as many rows as the tile.
    unsafe {
        for_rows!(rows, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11; 12], R => word_tile::<R>(at));
    }
}

/// # Safety
/// AVX-512 F and VNNI; `R` rows behind the pointers of `at`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn word_tile<const R: usize>(at: Rows<'_, i16, i32>) {
    let mut totals = [[_mm512_set1_epi32(0); 2]; R];
    for step in 0..at.k / 2 {
        // SAFETY: `2 · step + 1` is below `k`.
        unsafe {
            let weights = weights_at(at.panel.add(step * LANES * 2).cast());
            for (row, totals) in totals.iter_mut().enumerate() {
                let pair = at.x.add(row * at.stride + step * 2).cast::<i32>().read_unaligned();
                let input = _mm512_set1_epi32(pair);
                totals[0] = _mm512_dpwssd_epi32(totals[0], weights[0], input);
                totals[1] = _mm512_dpwssd_epi32(totals[1], weights[1], input);
            }
        }
    }
    for (row, totals) in totals.iter().enumerate() {
        // SAFETY: row `row` of 32 numbers lies there.
        unsafe {
            let out = at.out.add(row * at.out_stride);
            _mm512_storeu_si512(out.cast(), totals[0]);
            _mm512_storeu_si512(out.add(HALF).cast(), totals[1]);
        }
    }
}

/// # Safety
/// AVX-512 F; `R` rows of 32 numbers, `stride` apart, behind `out`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "stores vector registers")]
unsafe fn store_floats<const R: usize>(totals: &[[__m512; 2]; R], out: *mut f32, stride: usize) {
    for (row, totals) in totals.iter().enumerate() {
        // SAFETY: row `row` of 32 numbers lies there.
        unsafe {
            _mm512_storeu_ps(out.add(row * stride), totals[0]);
            _mm512_storeu_ps(out.add(row * stride + HALF), totals[1]);
        }
    }
}
