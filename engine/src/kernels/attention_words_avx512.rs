//! [`crate::kernels::attention_words`] in AVX-512: what the compiler makes of its loops takes several times as long.

use std::arch::x86_64::{
    __m512, __m512i, _mm256_mask_storeu_epi16, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps,
    _mm512_cvtps_epi32, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mask_max_epi32,
    _mm512_maskz_cvtps_epi32, _mm512_maskz_loadu_ps, _mm512_max_epi32, _mm512_max_epu32,
    _mm512_max_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_packs_epi32, _mm512_permutexvar_epi64,
    _mm512_reduce_add_epi32, _mm512_reduce_max_epi32, _mm512_reduce_max_epu32, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setr_epi64, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_storeu_si512, _mm512_sub_epi32, _mm512_sub_ps,
};

use crate::kernels::{
    attention_codes::{Head, POWER_LOW, POWER_P, Scores},
    elementary::ROUND,
    isa::{Isa, Level},
    linear::panels::Strided,
};

const LANES: usize = 16;
/// Numbers that become one register of words.
const PAIR: usize = 32;

/// The first `left` of 16 lanes.
const fn first(left: usize) -> u16 {
    if left >= LANES { u16::MAX } else { (1 << left) - 1 }
}

/// See [`super::attention_words`].
pub(super) fn magnitude(isa: Isa, rows: Strided<'_>, count: usize, width: usize) -> u32 {
    assert!(isa.level() == Level::Avx512Vnni);
    assert!(count == 0 || rows.data.len() >= (count - 1) * rows.stride + width);
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and there are `count` rows.
    unsafe {
        magnitude_of(rows, count, width)
    }
}

/// # Safety
/// AVX-512; `count` rows of `width`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn magnitude_of(rows: Strided<'_>, count: usize, width: usize) -> u32 {
    let bits = _mm512_set1_epi32(0x7fff_ffff);
    let (mut even, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    // SAFETY: the mask ends with the row, and is empty beyond it.
    let magnitudes = |row: usize, at: usize| unsafe {
        let from = rows.data.as_ptr().wrapping_add(row * rows.stride + at);
        let x = _mm512_maskz_loadu_ps(first(width.saturating_sub(at)), from);
        _mm512_and_si512(_mm512_castps_si512(x), bits)
    };
    for at in (0..width).step_by(2 * LANES) {
        for row in 0..count {
            even = _mm512_max_epu32(even, magnitudes(row, at));
            odd = _mm512_max_epu32(odd, magnitudes(row, at + LANES));
        }
    }
    _mm512_reduce_max_epu32(_mm512_max_epu32(even, odd))
}

/// The codes `at..at + 16` of a row of `head`, zeros beyond its width and its rows.
///
/// # Safety
/// AVX-512; as many rows as `head` says.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn codes(head: &Head<'_>, row: usize, at: usize) -> __m512i {
    if row >= head.count || at >= head.width {
        return _mm512_setzero_si512();
    }
    // SAFETY: the row is there, and the mask ends with it.
    let x = unsafe {
        let from = head.rows.data.as_ptr().add(row * head.rows.stride + at);
        _mm512_maskz_loadu_ps(first(head.width - at), from)
    };
    _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(head.steps.factor)))
}

fn check(isa: Isa, head: &Head<'_>) {
    assert!(isa.level() == Level::Avx512Vnni);
    let Head { rows, count, width, .. } = head;
    assert!(*count == 0 || rows.data.len() >= (count - 1) * rows.stride + width);
}

/// See [`super::attention_words`].
pub(super) fn lay_queries(isa: Isa, head: &Head<'_>, out: &mut [i16]) {
    check(isa, head);
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and there are as many rows as the head says.
    unsafe {
        queries(head, out);
    }
}

/// # Safety
/// AVX-512; as many rows as `head` says.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn queries(head: &Head<'_>, out: &mut [i16]) {
    for (row, out) in out.chunks_exact_mut(head.width.next_multiple_of(2)).enumerate() {
        for at in (0..out.len()).step_by(LANES) {
            // SAFETY: the caller's promise, and the mask ends with the row.
            unsafe {
                let words = _mm512_cvtepi32_epi16(codes(head, row, at));
                let left = first(out.len() - at);
                _mm256_mask_storeu_epi16(out.as_mut_ptr().add(at), left, words);
            }
        }
    }
}

/// See [`super::attention_words`].
pub(super) fn lay_values(isa: Isa, head: &Head<'_>, lanes: usize, out: &mut [i16]) {
    check(isa, head);
    let panels = head.width.div_ceil(lanes);
    let pairs = out.len() / (panels * lanes * 2);
    assert!(out.len() == panels * pairs * lanes * 2 && lanes.is_multiple_of(LANES));
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, there are as many rows as the head says, and `out` is whole panels.
    unsafe {
        values(head, lanes, panels, pairs, out);
    }
}

/// # Safety
/// AVX-512; as many rows as `head` says; `out` is `panels` panels of `pairs` pairs of `lanes`, a multiple of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn values(head: &Head<'_>, lanes: usize, panels: usize, pairs: usize, out: &mut [i16]) {
    let low = _mm512_set1_epi32(0xffff);
    for at in 0..pairs {
        for panel in 0..panels {
            for lane in (0..lanes).step_by(LANES) {
                // SAFETY: the caller's promise; pair `at` of each panel has `lanes` pairs of words.
                unsafe {
                    let even = codes(head, 2 * at, panel * lanes + lane);
                    let odd = codes(head, 2 * at + 1, panel * lanes + lane);
                    let both =
                        _mm512_or_si512(_mm512_and_si512(even, low), _mm512_slli_epi32::<16>(odd));
                    let to = out.as_mut_ptr().add(((panel * pairs + at) * lanes + lane) * 2);
                    _mm512_storeu_si512(to.cast(), both);
                }
            }
        }
    }
}

/// See [`super::attention_words`].
pub(super) fn weigh(isa: Isa, scores: &Scores<'_>, weights: &mut [i16], sums: &mut [f32]) {
    assert!(isa.level() == Level::Avx512Vnni);
    let Scores { data, length, padded, .. } = *scores;
    assert!(length <= padded && padded.is_multiple_of(PAIR));
    assert!(data.len() >= sums.len() * padded && weights.len() >= sums.len() * padded);
    #[expect(unsafe_code, reason = "follows pointers in vector registers")]
    // SAFETY: the level proves the instructions, and there are as many whole rows of each as there are sums.
    unsafe {
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = weigh_row(scores, row * padded, weights.as_mut_ptr().add(row * padded));
        }
    }
}

/// # Safety
/// AVX-512; `padded` scores, a multiple of 32, from `from` on, and room for as many weights.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
#[expect(unsafe_code, reason = "follows pointers in vector registers")]
unsafe fn weigh_row(scores: &Scores<'_>, from: usize, weights: *mut i16) -> f32 {
    let Scores { data, length, factor, .. } = *scores;
    // SAFETY: 32 scores lie there for each `at` that is a multiple of 32 below `length`.
    let pair = |at: usize| unsafe {
        let row = data.as_ptr().add(from + at);
        [_mm512_loadu_si512(row.cast()), _mm512_loadu_si512(row.add(LANES).cast())]
    };
    let whole = length / PAIR * PAIR;
    let rest = [first(length - whole), first((length - whole).saturating_sub(LANES))];
    let mut most = [_mm512_set1_epi32(i32::MIN); 2];
    for at in (0..whole).step_by(PAIR) {
        let [even, odd] = pair(at);
        most = [_mm512_max_epi32(most[0], even), _mm512_max_epi32(most[1], odd)];
    }
    if whole < length {
        let [even, odd] = pair(whole);
        most = [
            _mm512_mask_max_epi32(most[0], rest[0], most[0], even),
            _mm512_mask_max_epi32(most[1], rest[1], most[1], odd),
        ];
    }
    let largest = _mm512_reduce_max_epi32(_mm512_max_epi32(most[0], most[1]));
    let weight = Weight { largest: _mm512_set1_epi32(largest), factor: _mm512_set1_ps(factor) };
    let mut sums = [_mm512_setzero_si512(); 2];
    for at in (0..whole).step_by(PAIR) {
        let [even, odd] = pair(at);
        let codes = [weight.codes(even, u16::MAX), weight.codes(odd, u16::MAX)];
        sums = [_mm512_add_epi32(sums[0], codes[0]), _mm512_add_epi32(sums[1], codes[1])];
        // SAFETY: there is room for 32 weights.
        unsafe { _mm512_storeu_si512(weights.add(at).cast(), words(codes)) };
    }
    if whole < length {
        let [even, odd] = pair(whole);
        let codes = [weight.codes(even, rest[0]), weight.codes(odd, rest[1])];
        sums = [_mm512_add_epi32(sums[0], codes[0]), _mm512_add_epi32(sums[1], codes[1])];
        // SAFETY: there is room for 32 weights.
        unsafe { _mm512_storeu_si512(weights.add(whole).cast(), words(codes)) };
    }
    #[expect(clippy::cast_precision_loss, reason = "24 bits are more than the weights have")]
    let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1])) as f32;
    sum
}

/// What makes weights of scores.
#[derive(Clone, Copy)]
struct Weight {
    largest: __m512i,
    factor: __m512,
}

impl Weight {
    /// The weights of 16 scores, 0 outside the mask.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    fn codes(self, scores: __m512i, mask: u16) -> __m512i {
        let round = _mm512_set1_ps(ROUND);
        let difference = _mm512_cvtepi32_ps(_mm512_sub_epi32(scores, self.largest));
        let exponent =
            _mm512_max_ps(_mm512_mul_ps(difference, self.factor), _mm512_set1_ps(POWER_LOW));
        let shifted = _mm512_add_ps(exponent, round);
        let part = _mm512_sub_ps(exponent, _mm512_sub_ps(shifted, round));
        let [p0, p1, p2, p3, p4] = POWER_P.map(|coefficient| _mm512_set1_ps(coefficient));
        let value = _mm512_fmadd_ps(_mm512_fmadd_ps(p4, part, p3), part, p2);
        let value = _mm512_fmadd_ps(_mm512_fmadd_ps(value, part, p1), part, p0);
        let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
        let scaled = _mm512_add_epi32(_mm512_castps_si512(value), power);
        _mm512_maskz_cvtps_epi32(mask, _mm512_castsi512_ps(scaled))
    }
}

/// Two registers of numbers that are words as one: packing goes by quarters, which are then put in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
fn words(codes: [__m512i; 2]) -> __m512i {
    let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    _mm512_permutexvar_epi64(order, _mm512_packs_epi32(codes[0], codes[1]))
}
