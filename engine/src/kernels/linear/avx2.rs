//! The tiles in AVX2, 16 columns wide.
//!
//! `vpmaddwd` multiplies words and adds neighbours, so that nothing can overflow or saturate: weights are widened from
//! bytes as they are loaded, once for all rows of the tile, and the input is quantized to words. A tile of 6 × 16 keeps
//! its 12 integer sums in registers; float sums, needed once in 32 products, stay in the result's memory.

use std::arch::x86_64::{
    __m256, __m256i, _CMP_GT_OQ, _CMP_LT_OQ, _mm_loadu_si128, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_blendv_ps, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi16,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_ps,
    _mm256_min_ps, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_storeu_si256,
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

const LANES: usize = 16;
/// Lanes of one register.
const HALF: usize = 8;
/// Bytes of one step: 2 `k` of 16 columns.
const STEP: usize = 32;

/// Rows of a tile.
pub(in crate::kernels) const ROWS: usize = 6;

/// See [`super::tile::blocks`].
pub(in crate::kernels) fn blocks(
    isa: Isa,
    panel: &BlockPanel<'_>,
    input: &BlockRows<'_, i16>,
    out: &mut [f32],
    stride: usize,
) {
    assert!(has_avx2(isa));
    let (all, rows) = Blocks::new(LANES, panel, input, out, stride);
    for first in (0..rows).step_by(ROWS) {
        let (at, count) = (all.from(first), rows - first);
        #[expect(unsafe_code, reason = "follows pointers in vector registers")]
        // SAFETY: the level proves the instructions, and from `first` on there are `count` rows, or more than a tile's.
        unsafe {
            match panel.bits {
                Bits::Eight => {
                    for_rows!(count, [1, 2, 3, 4, 5; 6], R => block_tile::<R, false>(at))
                }
                Bits::Four => for_rows!(count, [1, 2, 3, 4, 5; 6], R => block_tile::<R, true>(at)),
            }
        }
    }
}

fn has_avx2(isa: Isa) -> bool {
    isa.level() == Level::Avx2
}

/// # Safety
/// AVX2 and FMA; `R` rows behind the pointers of `at`, the panel in 4 bits when `FOUR`, else in 8.
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn block_tile<const R: usize, const FOUR: bool>(at: Blocks<'_, i16>) {
    // SAFETY: there are 16 biases, and R rows of residuals if any, and of `out`.
    unsafe { start::<R>(&at) };
    let low = _mm256_set1_epi16(15);
    let (mut weights, mut codes, stride) = (at.weights, at.codes, at.row());
    for block in 0..at.blocks {
        // SAFETY: `block` is below `blocks`, so that each row has a start, a scale and `runs` times 32 codes there, and
        // the panel has `runs` times 16 steps (half the bytes in 4 bits) and 16 scales.
        unsafe {
            let mut sums = [[_mm256_set1_epi32(0); 2]; R];
            for (row, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm256_set1_epi32(*at.starts.add(row * at.blocks + block)); 2];
            }
            for _ in 0..at.runs {
                if FOUR {
                    for pair in 0..8 {
                        let words = [widened(weights), widened(weights.add(STEP / 2))];
                        weights = weights.add(STEP);
                        let early = words.map(|words| _mm256_and_si256(words, low));
                        let late = words.map(|words| _mm256_srli_epi16::<4>(words));
                        step::<R>(&mut sums, early, codes.add(pair * 4), stride);
                        step::<R>(&mut sums, late, codes.add(pair * 4 + 2), stride);
                    }
                } else {
                    for at_step in 0..16 {
                        let words = [widened(weights), widened(weights.add(STEP / 2))];
                        weights = weights.add(STEP);
                        step::<R>(&mut sums, words, codes.add(at_step * 2), stride);
                    }
                }
                codes = codes.add(BLOCK);
            }
            let column_scales = [
                _mm256_loadu_ps(at.weight_scales.add(block * LANES)),
                _mm256_loadu_ps(at.weight_scales.add(block * LANES + HALF)),
            ];
            for (row, sums) in sums.iter().enumerate() {
                let row_scale = _mm256_set1_ps(*at.scales.add(row * at.blocks + block));
                for half in 0..2 {
                    let total = at.out.add(row * at.stride + half * HALF);
                    let scale = _mm256_mul_ps(row_scale, column_scales[half]);
                    let sum = _mm256_cvtepi32_ps(sums[half]);
                    _mm256_storeu_ps(total, _mm256_fmadd_ps(sum, scale, _mm256_loadu_ps(total)));
                }
            }
        }
    }
    if at.bend {
        for row in 0..R {
            for half in [0, HALF] {
                // SAFETY: row `row` of 16 numbers lies there.
                unsafe {
                    let total = at.out.add(row * at.stride + half);
                    _mm256_storeu_ps(total, gelu(_mm256_loadu_ps(total)));
                }
            }
        }
    }
}

/// [`crate::kernels::elementary::gelu`] to the bit; where an operand is NaN, the second one comes out of a minimum or
/// maximum.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn gelu(x: __m256) -> __m256 {
    let (low, high) = (_mm256_set1_ps(-PHI_END), _mm256_set1_ps(PHI_END));
    let bounded = _mm256_min_ps(high, _mm256_max_ps(low, x));
    let square = _mm256_mul_ps(bounded, bounded);
    let at = _mm256_fmadd_ps(square, _mm256_set1_ps(PHI_FACTOR), _mm256_set1_ps(-1.0));
    let [lower @ .., last] = PHI_P;
    let mut value = _mm256_set1_ps(last);
    for coefficient in lower.into_iter().rev() {
        value = _mm256_fmadd_ps(value, at, _mm256_set1_ps(coefficient));
    }
    let erf = _mm256_mul_ps(bounded, value);
    let above = _mm256_cmp_ps::<_CMP_GT_OQ>(x, high);
    let erf = _mm256_blendv_ps(erf, _mm256_set1_ps(1.0), above);
    let below = _mm256_cmp_ps::<_CMP_LT_OQ>(x, low);
    let erf = _mm256_blendv_ps(erf, _mm256_set1_ps(-1.0), below);
    let half = _mm256_mul_ps(_mm256_set1_ps(0.5), x);
    _mm256_fmadd_ps(half, erf, half)
}

/// Writes what the sums of a tile start at.
///
/// # Safety
/// AVX2; 16 biases, `R` rows of residuals unless null, and `R` rows of `out`.
#[inline]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn start<const R: usize>(at: &Blocks<'_, i16>) {
    for row in 0..R {
        for half in [0, HALF] {
            // SAFETY: row `row` of 16 numbers lies in each.
            unsafe {
                let mut total = _mm256_loadu_ps(at.bias.add(half));
                if !at.residual.is_null() {
                    let residual = at.residual.add(row * at.stride + half);
                    total = _mm256_add_ps(total, _mm256_loadu_ps(residual));
                }
                _mm256_storeu_ps(at.out.add(row * at.stride + half), total);
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
        for_rows!(rows, [1, 2, 3, 4, 5; 6], R => sum_tile::<R>(weights, input, steps, out));
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

/// See [`super::tile::floats`].
pub(in crate::kernels) fn floats(isa: Isa, tile: RowsTile<'_, f32>, out: &mut [f32]) {
    assert!(has_avx2(isa) && tile.rows <= ROWS);
    let (rows, at) = (tile.rows, Rows::new(LANES, tile, out));
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and `at` has as many rows as the tile.
    unsafe {
        for_rows!(rows, [1, 2, 3, 4, 5; 6], R => float_tile::<R>(at));
    }
}

/// # Safety
/// AVX2 and FMA; `R` rows behind the pointers of `at`.
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn float_tile<const R: usize>(at: Rows<'_, f32, f32>) {
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

/// See [`super::tile::words`].
pub(in crate::kernels) fn words(isa: Isa, tile: RowsTile<'_, i16>, out: &mut [i32]) {
    assert!(has_avx2(isa) && tile.rows <= ROWS);
    let (rows, at) = (tile.rows, Rows::new(LANES, tile, out));
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and `at` has as many rows as the tile.
    unsafe {
        for_rows!(rows, [1, 2, 3, 4, 5; 6], R => word_tile::<R>(at));
    }
}

/// # Safety
/// AVX2; `R` rows behind the pointers of `at`.
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn word_tile<const R: usize>(at: Rows<'_, i16, i32>) {
    let mut totals = [[_mm256_set1_epi32(0); 2]; R];
    for at_step in 0..at.k / 2 {
        // SAFETY: `2 · at_step + 1` is below `k`.
        unsafe {
            let panel = at.panel.add(at_step * LANES * 2);
            let weights =
                [_mm256_loadu_si256(panel.cast()), _mm256_loadu_si256(panel.add(LANES).cast())];
            step::<R>(&mut totals, weights, at.x.add(at_step * 2), at.stride);
        }
    }
    for (row, totals) in totals.iter().enumerate() {
        // SAFETY: row `row` of 16 numbers lies there.
        unsafe {
            let out = at.out.add(row * at.out_stride);
            _mm256_storeu_si256(out.cast(), totals[0]);
            _mm256_storeu_si256(out.add(HALF).cast(), totals[1]);
        }
    }
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
