//! Rows of f32 to integers: in blocks of 32 with a scale each, or whole tensors with one scale and a zero point.

use crate::kernels::{
    elementary::ROUND,
    isa::{Isa, for_each_isa},
    linear::packed::BLOCK,
};

/// Blocks whose largest magnitude is below this count as zero; its reciprocal times 127 is still finite.
const LEAST: f32 = 1e-30;

/// Rows in blocks of 32 along k: `x ≈ scale · q`, `scale = max |x| / 127`, `q` = x · (127 / max |x|) rounded to the
/// nearest integer, ties to even. A block below 1e-30 is zero; a block with a number that is not finite has scale NaN.
#[derive(Clone, Debug, Default)]
pub struct BlockCodes {
    /// `q` as bytes, `[row][k]`; written for [`Width::Byte`].
    pub bytes: Vec<i8>,
    /// `q` as words, `[row][k]`; written for [`Width::Word`].
    pub words: Vec<i16>,
    /// `[row][k/32]`.
    pub scales: Vec<f32>,
    /// Minus the weights' zero point times the sum of the block's `q`, `[row][k/32]`: where integer sums start, so that weights may be stored unsigned.
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
    /// Quantizes `x`, whole blocks, for weights with this zero point. What was here is overwritten; what lies beyond
    /// the blocks of `x` means nothing.
    ///
    /// # Panics
    /// `x` ends within a block.
    pub fn fill(&mut self, isa: Isa, width: Width, zero_point: i32, x: &[f32]) {
        assert!(x.len().is_multiple_of(BLOCK), "{} numbers are not whole blocks", x.len());
        let blocks = x.len() / BLOCK;
        if self.scales.len() < blocks {
            self.scales.resize(blocks, 0.0);
            self.starts.resize(blocks, 0);
        }
        self.grow(width, x.len());
        let (scales, starts) = (&mut self.scales[..blocks], &mut self.starts[..blocks]);
        match width {
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
        let (x, codes) = (x.as_chunks::<BLOCK>().0, codes.as_chunks_mut::<BLOCK>().0);
        for (((x, codes), scale), start) in x.iter().zip(codes).zip(scales).zip(starts) {
            #[expect(clippy::cast_possible_truncation, reason = "within ±127")]
            let found = block(x, codes, |code| code as i8);
            *scale = found.scale;
            *start = -zero_point * found.sum;
        }
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
        let (x, codes) = (x.as_chunks::<BLOCK>().0, codes.as_chunks_mut::<BLOCK>().0);
        for (((x, codes), scale), start) in x.iter().zip(codes).zip(scales).zip(starts) {
            #[expect(clippy::cast_possible_truncation, reason = "within ±127")]
            let found = block(x, codes, |code| code as i16);
            *scale = found.scale;
            *start = -zero_point * found.sum;
        }
    }
}

struct Block {
    scale: f32,
    sum: i32,
}

#[inline(always)]
fn block<T>(x: &[f32; BLOCK], codes: &mut [T; BLOCK], narrow: impl Fn(i32) -> T) -> Block {
    // As integers, magnitudes are ordered with infinity and then NaN above all numbers.
    let mut most = 0_u32;
    for value in x {
        most = most.max(value.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(most);
    let (scale, factor) = if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < LEAST {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    };
    let mut sum = 0;
    for (value, code) in x.iter().zip(codes) {
        // Where `factor` is 0 a product may be NaN; its low bits are then cut to what a code may hold.
        let rounded =
            (value * factor + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
        let bounded = rounded.clamp(-127, 127);
        sum += bounded;
        *code = narrow(bounded);
    }
    Block { scale, sum }
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
