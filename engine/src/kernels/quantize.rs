//! Rows of f32 to integers: in blocks with a scale each, or whole tensors with one scale and a zero point.

use crate::kernels::{
    elementary::ROUND,
    isa::{Isa, Level, for_each_isa},
    linear::packed::BLOCK,
};

/// Numbers whose largest magnitude is below this count as zero; its reciprocal times 2047 is still finite.
const LEAST: f32 = 1e-30;

/// Rows in blocks along k: `x ≈ scale · q`, `scale = max |x| / 127`, `q` = x · (127 / max |x|) rounded to the
/// nearest integer, ties to even. A block below 1e-30 is zero; a block with a number that is not finite has scale NaN.
#[derive(Clone, Debug, Default)]
pub struct BlockCodes {
    /// `q` as bytes, `[row][k]`; written for [`Width::Byte`].
    pub bytes: Vec<i8>,
    /// `q` as words, `[row][k]`; written for [`Width::Word`].
    pub words: Vec<i16>,
    /// `[row][k / block]`.
    pub scales: Vec<f32>,
    /// Minus the weights' zero point times the sum of the block's `q`, `[row][k / block]`: where integer sums start, so that weights may be stored unsigned.
    pub starts: Vec<i32>,
}

/// How wide a kernel wants the integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte each.
    Byte,
    /// Two bytes each.
    Word,
}

impl BlockCodes {
    /// Quantizes `x` in blocks of `block`, a multiple of 32, for weights with this zero point. What was here is
    /// overwritten; what lies beyond the blocks of `x` means nothing.
    ///
    /// # Panics
    /// `x` ends within a block, or a block is not whole runs of 32.
    pub fn fill(&mut self, isa: Isa, width: Width, block: usize, zero_point: i32, x: &[f32]) {
        assert!(block > 0 && block.is_multiple_of(BLOCK), "a block of {block}");
        assert!(x.len().is_multiple_of(block), "{} numbers are not whole blocks", x.len());
        let blocks = x.len() / block;
        if self.scales.len() < blocks {
            self.scales.resize(blocks, 0.0);
            self.starts.resize(blocks, 0);
        }
        self.grow(width, x.len());
        let (scales, starts) = (&mut self.scales[..blocks], &mut self.starts[..blocks]);
        match width {
            #[cfg(target_arch = "x86_64")]
            Width::Byte if isa.level() == Level::Avx512Vnni => {
                avx512::blocks(isa, x, zero_point, &mut self.bytes[..x.len()], scales, starts);
            }
            Width::Byte => {
                to_bytes(isa, x, zero_point, &mut self.bytes[..x.len()], scales, starts);
            }
            Width::Word => {
                to_words(isa, x, zero_point, &mut self.words[..x.len()], scales, starts);
            }
        }
    }

    /// Makes room for `count` codes of one width.
    pub(in crate::kernels) fn grow(&mut self, width: Width, count: usize) {
        match width {
            Width::Byte if self.bytes.len() < count => self.bytes.resize(count, 0),
            Width::Word if self.words.len() < count => self.words.resize(count, 0),
            Width::Byte | Width::Word => {}
        }
    }
}

for_each_isa! {
    fn to_bytes(
        isa: Isa,
        x: &[f32],
        zero_point: i32,
        codes: &mut [i8],
        scales: &mut [f32],
        starts: &mut [i32],
    ) {
        #[expect(clippy::cast_possible_truncation, reason = "within ±127")]
        blocks(x, zero_point, codes, scales, starts, |code| code as i8);
    }
}

for_each_isa! {
    fn to_words(
        isa: Isa,
        x: &[f32],
        zero_point: i32,
        codes: &mut [i16],
        scales: &mut [f32],
        starts: &mut [i32],
    ) {
        #[expect(clippy::cast_possible_truncation, reason = "within ±127")]
        blocks(x, zero_point, codes, scales, starts, |code| code as i16);
    }
}

/// Largest code of a block.
const MOST: f32 = 127.0;

/// One block after another, as many as there are scales.
#[inline(always)]
fn blocks<T>(
    x: &[f32],
    zero_point: i32,
    codes: &mut [T],
    scales: &mut [f32],
    starts: &mut [i32],
    narrow: impl Fn(i32) -> T + Copy,
) {
    // Of a length that is known, so that the loops over a block have no rests.
    match x.len() / scales.len().max(1) {
        32 => blocks_of::<32, T>(x, zero_point, codes, scales, starts, narrow),
        64 => blocks_of::<64, T>(x, zero_point, codes, scales, starts, narrow),
        128 => blocks_of::<128, T>(x, zero_point, codes, scales, starts, narrow),
        256 => blocks_of::<256, T>(x, zero_point, codes, scales, starts, narrow),
        _ => {}
    }
}

#[inline(always)]
fn blocks_of<const N: usize, T>(
    x: &[f32],
    zero_point: i32,
    codes: &mut [T],
    scales: &mut [f32],
    starts: &mut [i32],
    narrow: impl Fn(i32) -> T + Copy,
) {
    let blocks = x.as_chunks::<N>().0.iter().zip(codes.as_chunks_mut::<N>().0);
    for (((x, codes), scale), start) in blocks.zip(scales).zip(starts) {
        // As integers, magnitudes are ordered with infinity and then NaN above all numbers.
        let mut most = 0_u32;
        for value in x {
            most = most.max(value.to_bits() & 0x7fff_ffff);
        }
        let (found, factor) = scale_of(most, MOST);
        let mut sum = 0;
        for (value, code) in x.iter().zip(codes) {
            // Where `factor` is 0 a product may be NaN; its low bits are then cut to what a code may hold.
            let rounded = (value * factor + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
            let bounded = rounded.cast_signed().clamp(-127, 127);
            sum += bounded;
            *code = narrow(bounded);
        }
        *scale = found;
        *start = -zero_point * sum;
    }
}

/// The scale of numbers whose largest magnitude has the bits `largest` and becomes `most`, and what the numbers are
/// multiplied by; NaN and 0 when it is not finite, 0 and 0 when it is next to nothing.
#[inline(always)]
pub(in crate::kernels) fn scale_of(largest: u32, most: f32) -> (f32, f32) {
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < LEAST {
        (0.0, 0.0)
    } else {
        (largest / most, most / largest)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    //! Spelt out: what the compiler makes of the loops above takes eight times as long.

    use std::arch::x86_64::{
        __m512, __m512i, _mm_storeu_si128, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
        _mm512_cvtepi32_epi8, _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_loadu_ps,
        _mm512_max_epu32, _mm512_mul_ps, _mm512_packs_epi16, _mm512_packs_epi32,
        _mm512_permutexvar_epi32, _mm512_reduce_add_epi32, _mm512_reduce_max_epu32,
        _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
        _mm512_setzero_si512, _mm512_storeu_si512,
    };

    use super::{MOST, scale_of};
    use crate::kernels::isa::{Isa, Level};

    const LANES: usize = 16;

    /// See [`super::blocks`].
    pub(super) fn blocks(
        isa: Isa,
        x: &[f32],
        zero_point: i32,
        codes: &mut [i8],
        scales: &mut [f32],
        starts: &mut [i32],
    ) {
        assert!(isa.level() == Level::Avx512Vnni);
        #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        // SAFETY: the level proves the instructions.
        unsafe {
            all(x, zero_point, codes, scales, starts);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    fn all(x: &[f32], zero_point: i32, codes: &mut [i8], scales: &mut [f32], starts: &mut [i32]) {
        let block = x.len() / scales.len().max(1) / LANES;
        if block == 0 {
            return;
        }
        let (x, codes) = (x.as_chunks::<LANES>().0, codes.as_chunks_mut::<LANES>().0);
        let blocks = x.chunks_exact(block).zip(codes.chunks_exact_mut(block));
        let magnitude = _mm512_set1_epi32(0x7fff_ffff);
        let ones = _mm512_set1_epi8(1);
        // Packing goes by quarters of registers.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        for (((x, codes), scale), start) in blocks.zip(scales).zip(starts) {
            let mut most = _mm512_setzero_si512();
            for x in x {
                let bits = _mm512_castps_si512(load(x));
                most = _mm512_max_epu32(most, _mm512_and_si512(bits, magnitude));
            }
            let (found, factor) = scale_of(_mm512_reduce_max_epu32(most), MOST);
            let factors = _mm512_set1_ps(factor);
            // Of a block that is not finite the codes mean nothing, since its scale is NaN.
            let round = |x: &[f32; LANES]| _mm512_cvtps_epi32(_mm512_mul_ps(load(x), factors));
            let mut sums = _mm512_setzero_si512();
            let (fours, rest) = x.as_chunks::<4>();
            let (code_fours, code_rest) = codes.as_chunks_mut::<4>();
            for (x, codes) in fours.iter().zip(code_fours) {
                let [a, b, c, d] = [round(&x[0]), round(&x[1]), round(&x[2]), round(&x[3])];
                let halves = [_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)];
                let bytes =
                    _mm512_permutexvar_epi32(order, _mm512_packs_epi16(halves[0], halves[1]));
                sums = _mm512_dpbusd_epi32(sums, ones, bytes);
                store_four(bytes, codes);
            }
            for (x, codes) in rest.iter().zip(code_rest) {
                let rounded = round(x);
                sums = _mm512_add_epi32(sums, rounded);
                store(rounded, codes);
            }
            *scale = found;
            *start = zero_point.wrapping_mul(_mm512_reduce_add_epi32(sums)).wrapping_neg();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(x: &[f32; LANES]) -> __m512 {
        #[expect(unsafe_code, reason = "loads a vector register")]
        // SAFETY: there are 16 numbers.
        unsafe {
            _mm512_loadu_ps(x.as_ptr())
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store_four(codes: __m512i, out: &mut [[i8; LANES]; 4]) {
        #[expect(unsafe_code, reason = "stores a vector register")]
        // SAFETY: there are 64 codes.
        unsafe {
            _mm512_storeu_si512(out.as_mut_ptr().cast(), codes);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(codes: __m512i, out: &mut [i8; LANES]) {
        #[expect(unsafe_code, reason = "stores a vector register")]
        // SAFETY: there are 16 codes.
        unsafe {
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(codes));
        }
    }
}

/// How a tensor of f32 stands as integers of 8 bits: `x ≈ scale · (code - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Of one step; above 0 and finite, or NaN where the tensor has a number that is not finite.
    pub scale: f32,
    /// The code of 0.
    pub zero_point: u8,
}

/// The scale and zero point of ONNX's `DynamicQuantizeLinear`: the range of `x`, widened to hold 0, over 255 steps.
/// A tensor of zeros has scale 1, where ONNX leaves a division by zero.
pub fn affine_of(isa: Isa, x: &[f32]) -> Affine {
    let mut range = Range { least: 0.0, most: 0.0, finite: true };
    range_of(isa, x, &mut range);
    let span = range.most - range.least;
    if !range.finite || !span.is_finite() {
        return Affine { scale: f32::NAN, zero_point: 0 };
    }
    let scale = span / 255.0;
    if scale == 0.0 {
        return Affine { scale: 1.0, zero_point: 0 };
    }
    let zero_point = (-range.least / scale).round_ties_even().clamp(0.0, 255.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
    let zero_point = zero_point as u8;
    Affine { scale, zero_point }
}

struct Range {
    least: f32,
    most: f32,
    finite: bool,
}

for_each_isa! {
    fn range_of(isa: Isa, x: &[f32], range: &mut Range) {
        const LANES: usize = 16;
        let (chunks, rest) = x.as_chunks::<LANES>();
        let (mut least, mut most, mut bits) = ([0_f32; LANES], [0_f32; LANES], [0_u32; LANES]);
        for chunk in chunks {
            for lane in 0..LANES {
                let value = chunk[lane];
                least[lane] = if value < least[lane] { value } else { least[lane] };
                most[lane] = if value > most[lane] { value } else { most[lane] };
                bits[lane] = bits[lane].max(value.to_bits() & 0x7fff_ffff);
            }
        }
        for (lane, value) in rest.iter().enumerate() {
            least[lane] = if *value < least[lane] { *value } else { least[lane] };
            most[lane] = if *value > most[lane] { *value } else { most[lane] };
            bits[lane] = bits[lane].max(value.to_bits() & 0x7fff_ffff);
        }
        range.least = least.into_iter().fold(0.0, |a, b| if b < a { b } else { a });
        range.most = most.into_iter().fold(0.0, |a, b| if b > a { b } else { a });
        range.finite = bits.into_iter().all(|bits| f32::from_bits(bits).is_finite());
    }
}

for_each_isa! {
    /// ONNX's `QuantizeLinear` to u8: `codes[i] = saturate(round(x[i] / scale) + zero_point)`, ties to even. NaN gives the zero point.
    pub fn to_u8(isa: Isa, x: &[f32], affine: Affine, codes: &mut [u8]) {
        let zero_point = f32::from(affine.zero_point);
        let (low, high) = (-zero_point, 255.0 - zero_point);
        for (x, code) in x.iter().zip(codes) {
            let steps = x / affine.scale;
            let steps = if steps > low { steps } else { low };
            let steps = if steps < high { steps } else { high };
            let rounded = (steps + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
            #[expect(clippy::cast_possible_truncation, reason = "within 0..=255")]
            let stepped = rounded.wrapping_add(u32::from(affine.zero_point)) as u8;
            *code = stepped;
        }
    }
}

for_each_isa! {
    /// ONNX's `QuantizeLinear` of sums, as in `QLinearMatMul`, along rows as wide as `factors`:
    /// `codes[i] = saturate(round(sums[i] · factors[i mod n]) + zero_point)`, ties to even.
    pub fn requantize(isa: Isa, sums: &[i32], factors: &[f32], zero_point: u8, codes: &mut [u8]) {
        let zero = f32::from(zero_point);
        let (low, high) = (-zero, 255.0 - zero);
        let rows = sums.chunks_exact(factors.len()).zip(codes.chunks_exact_mut(factors.len()));
        for (sums, codes) in rows {
            for ((sum, code), factor) in sums.iter().zip(codes).zip(factors) {
                #[expect(clippy::cast_precision_loss, reason = "as ONNX asks")]
                let steps = *sum as f32 * factor;
                let steps = if steps > low { steps } else { low };
                let steps = if steps < high { steps } else { high };
                let rounded = (steps + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
                #[expect(clippy::cast_possible_truncation, reason = "within 0..=255")]
                let stepped = rounded.wrapping_add(u32::from(zero_point)) as u8;
                *code = stepped;
            }
        }
    }
}
