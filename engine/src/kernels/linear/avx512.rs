//! The tiles in AVX-512 with VNNI, 32 columns wide.
//!
//! `vpdpbusd` adds four products of an unsigned and a signed byte to each of 16 lanes. The weights are the unsigned
//! side, stored with their zero point; the input is the signed side, four bytes of a row broadcast to all lanes. A tile
//! of 5 × 32 keeps 10 integer sums, 10 float sums, 2 vectors of weights and what is in flight in the 32 registers.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_srli_epi16, _mm512_storeu_ps,
    _mm512_storeu_si512,
};

use crate::kernels::{
    isa::{Isa, Level},
    linear::{
        packed::{BLOCK, Bits, BlockPanel, BlockRows},
        panels::FloatTile,
    },
};

const LANES: usize = 32;
/// Lanes of one register.
const HALF: usize = 16;
/// Bytes of one step: 4 `k` of 32 columns.
const STEP: usize = 128;

/// Pointers into the rows' share of a tile. The tile functions below are the only ones to follow them.
struct Rows {
    codes: *const i8,
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
    input: &BlockRows<'_, i8>,
    out: &mut [f32],
    out_stride: usize,
) {
    let k = panel.blocks * BLOCK;
    let rows = input.codes.len() / k;
    assert!(
        isa.level() == Level::Avx512Vnni
            && (1..=6).contains(&rows)
            && input.codes.len() == rows * k
    );
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
            (Bits::Eight, _) => block_tile::<5, false>(&at, weights, weight_scales),
            (Bits::Four, 1) => block_tile::<1, true>(&at, weights, weight_scales),
            (Bits::Four, 2) => block_tile::<2, true>(&at, weights, weight_scales),
            (Bits::Four, 3) => block_tile::<3, true>(&at, weights, weight_scales),
            (Bits::Four, 4) => block_tile::<4, true>(&at, weights, weight_scales),
            (Bits::Four, _) => block_tile::<5, true>(&at, weights, weight_scales),
        }
    }
}

/// # Safety
/// AVX-512 F, BW and VNNI; `R` rows behind each pointer of `at`, a panel behind `weights` and its scales.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn block_tile<const R: usize, const FOUR: bool>(
    at: &Rows,
    weights: *const u8,
    weight_scales: *const f32,
) {
    let low = _mm512_set1_epi8(15);
    // SAFETY: there are 32 biases, and R rows of residuals if any.
    let mut totals = unsafe { started::<R>(at) };
    let mut weights = weights;
    for block in 0..at.blocks {
        // SAFETY: `block` is below `blocks`, so that each row has a start, a scale and 32 codes there, and the panel
        // has 8 steps (half the bytes in 4 bits) and 32 scales.
        unsafe {
            let mut sums = [[_mm512_set1_epi32(0); 2]; R];
            for (row, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm512_set1_epi32(*at.starts.add(row * at.blocks + block)); 2];
            }
            let codes = at.codes.add(block * BLOCK);
            if FOUR {
                for pair in 0..4 {
                    let bytes = weights_at(weights);
                    weights = weights.add(STEP);
                    let early = bytes.map(|bytes| _mm512_and_si512(bytes, low));
                    let late =
                        bytes.map(|bytes| _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low));
                    step::<R>(&mut sums, early, codes.add(pair * 8), at.stride);
                    step::<R>(&mut sums, late, codes.add(pair * 8 + 4), at.stride);
                }
            } else {
                // Spelt out: eight rounds of a loop cost a twentieth of the time, and tiles of 6 rows would spill.
                step::<R>(&mut sums, weights_at(weights), codes, at.stride);
                step::<R>(&mut sums, weights_at(weights.add(STEP)), codes.add(4), at.stride);
                step::<R>(&mut sums, weights_at(weights.add(2 * STEP)), codes.add(8), at.stride);
                step::<R>(&mut sums, weights_at(weights.add(3 * STEP)), codes.add(12), at.stride);
                step::<R>(&mut sums, weights_at(weights.add(4 * STEP)), codes.add(16), at.stride);
                step::<R>(&mut sums, weights_at(weights.add(5 * STEP)), codes.add(20), at.stride);
                step::<R>(&mut sums, weights_at(weights.add(6 * STEP)), codes.add(24), at.stride);
                step::<R>(&mut sums, weights_at(weights.add(7 * STEP)), codes.add(28), at.stride);
                weights = weights.add(8 * STEP);
            }
            let column_scales = [
                _mm512_loadu_ps(weight_scales.add(block * LANES)),
                _mm512_loadu_ps(weight_scales.add(block * LANES + HALF)),
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
    // SAFETY: `out` has R rows of 32.
    unsafe { store_floats(&totals, at.out, at.out_stride) };
}

/// What the sums of a tile start at.
///
/// # Safety
/// AVX-512 F; 32 biases, and `R` rows of residuals unless null.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn started<const R: usize>(at: &Rows) -> [[__m512; 2]; R] {
    // SAFETY: the caller's promise.
    let bias = unsafe { [_mm512_loadu_ps(at.bias), _mm512_loadu_ps(at.bias.add(HALF))] };
    let mut totals = [bias; R];
    if !at.residual.is_null() {
        for (row, totals) in totals.iter_mut().enumerate() {
            // SAFETY: row `row` of 32 numbers lies there.
            unsafe {
                let residual = at.residual.add(row * at.out_stride);
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
    assert!(
        isa.level() == Level::Avx512Vnni && (1..=12).contains(&rows) && panel.len() == k * LANES
    );
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
            6 => float_tile::<6>(at),
            7 => float_tile::<7>(at),
            8 => float_tile::<8>(at),
            9 => float_tile::<9>(at),
            10 => float_tile::<10>(at),
            11 => float_tile::<11>(at),
            _ => float_tile::<12>(at),
        }
    }
}

/// # Safety
/// AVX-512 F; `k × 32` numbers behind `panel`, `R` rows of `k` that are `stride` apart behind `x`, `R` rows of 32 that
/// are `out_stride` apart behind `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn float_tile<const R: usize>(at: Floats) {
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
