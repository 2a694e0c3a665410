//! Weights in blocks along a row, each block with one scale: the house format at rest.
//!
//! A weight is `scale · (code − zero)`, with `zero` 128 for 8 bits and 8 for 4 bits. Codes lie as the ONNX operators
//! `MatMulNBits` and `GatherBlockQuantized` take them: row by row, one byte a code, or two codes a byte, the first in
//! the low half. ggml's Q4_0 and Q8_0 blocks say the same with the halves in another order, so they convert without loss.

use half::f16;

/// Weights in a block of a table, of 4 bits and of ggml; the least in any block.
pub const BLOCK: usize = 32;
/// Weights in a block of a linear of 8 bits, where rows are whole such blocks. Larger blocks are quicker to compute, since
/// each needs its sum scaled; of 64, MiniLM keeps a mean cosine of 0.9994 to its floats, of 128 it loses the third nine.
pub const LINEAR_BLOCK: usize = 64;
/// Bytes of a Q4_0 block: a half-precision scale, then weight `n` in the low and `n + 16` in the high half of byte `n`.
pub const Q4_0_BYTES: usize = 2 + BLOCK / 2;
/// Bytes of a Q8_0 block: a half-precision scale, then 32 signed bytes.
pub const Q8_0_BYTES: usize = 2 + BLOCK;

/// Bits of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// 0 to 15.
    Four,
    /// 0 to 255.
    Eight,
}

/// A matrix in blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks {
    bits: Bits,
    size: usize,
    rows: usize,
    cols: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

/// Why bytes are not such a matrix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlocksError {
    /// Rows that are no whole blocks, or other bytes than the shape needs.
    #[error("matrix of {rows} × {cols} needs {expected} bytes of blocks, {found} are there")]
    Length {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// What the shape needs; 0 when no number of whole blocks makes a row.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// A scale that is infinite or not a number.
    #[error("scale of block {block} is not a finite number")]
    Scale {
        /// Counted from 0.
        block: usize,
    },
}

impl Bits {
    /// How many.
    pub const fn count(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The code that stands for nought.
    pub const fn zero(self) -> u8 {
        match self {
            Self::Four => 8,
            Self::Eight => 128,
        }
    }
}

impl Blocks {
    /// The nearest matrix in blocks of `size` to the floats `values`, row-major; `cols` must be a multiple of `size`, and
    /// that of [`BLOCK`].
    ///
    /// 8 bits: the scale is the largest magnitude / 127. 4 bits: of several scales on either side of the largest
    /// weight, the one with the least squared error.
    pub fn from_f32(bits: Bits, size: usize, (rows, cols): (usize, usize), values: &[f32]) -> Self {
        assert!(
            size.is_multiple_of(BLOCK) && cols.is_multiple_of(size) && values.len() == rows * cols,
            "callers check the shape"
        );
        let mut codes = Vec::with_capacity(values.len() * bits.count() / 8);
        let mut scales = Vec::with_capacity(values.len() / size);
        for block in values.chunks_exact(size) {
            let scale = match bits {
                Bits::Eight => magnitude(block) / 127.0,
                Bits::Four => best_scale_of_4_bits(block),
            };
            let block: Vec<u8> = block.iter().map(|value| code(bits, *value, scale)).collect();
            push_codes(bits, &block, &mut codes);
            scales.push(scale);
        }
        Self { bits, size, rows, cols, codes, scales }
    }

    /// The same weights as the Q4_0 blocks in `bytes`.
    pub fn from_q4_0((rows, cols): (usize, usize), bytes: &[u8]) -> Result<Self, BlocksError> {
        Self::from_ggml(Bits::Four, (rows, cols), bytes, Q4_0_BYTES, |data, codes| {
            let at = |place: usize| match place {
                ..16 => data.get(place).map_or(0, |byte| byte & 15),
                _ => data.get(place - 16).map_or(0, |byte| byte >> 4),
            };
            push_codes(Bits::Four, &std::array::from_fn::<u8, BLOCK, _>(at), codes);
        })
    }

    /// The same weights as the Q8_0 blocks in `bytes`.
    pub fn from_q8_0((rows, cols): (usize, usize), bytes: &[u8]) -> Result<Self, BlocksError> {
        Self::from_ggml(Bits::Eight, (rows, cols), bytes, Q8_0_BYTES, |data, codes| {
            codes.extend(data.iter().map(|byte| byte ^ 0x80));
        })
    }

    fn from_ggml(
        bits: Bits,
        (rows, cols): (usize, usize),
        bytes: &[u8],
        block_bytes: usize,
        convert: impl Fn(&[u8], &mut Vec<u8>),
    ) -> Result<Self, BlocksError> {
        let whole = cols.is_multiple_of(BLOCK).then_some(cols / BLOCK * block_bytes);
        let expected = whole.and_then(|row| row.checked_mul(rows)).unwrap_or(0);
        if expected == 0 || expected != bytes.len() {
            return Err(BlocksError::Length { rows, cols, expected, found: bytes.len() });
        }
        let mut codes = Vec::with_capacity(rows * cols * bits.count() / 8);
        let mut scales = Vec::with_capacity(rows * cols / BLOCK);
        for (block, bytes) in bytes.chunks_exact(block_bytes).enumerate() {
            let Some((scale, data)) = bytes.split_first_chunk::<2>() else { continue };
            let scale = f16::from_le_bytes(*scale).to_f32();
            if !scale.is_finite() {
                return Err(BlocksError::Scale { block });
            }
            scales.push(scale);
            convert(data, &mut codes);
        }
        Ok(Self { bits, size: BLOCK, rows, cols, codes, scales })
    }

    /// Bits of a code.
    pub const fn bits(&self) -> Bits {
        self.bits
    }

    /// Weights in a block.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Bytes of the codes of a block.
    pub const fn size_bytes(&self) -> usize {
        self.size * self.bits.count() / 8
    }

    /// Rows and columns.
    pub const fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// All codes; see the module.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// `rows × cols / size` scales, row-major.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The weights of row `at`; nothing for a row that is not there.
    pub fn row(&self, at: usize) -> Vec<f32> {
        let in_row = self.cols / self.size;
        let blocks = at * in_row..(at + 1) * in_row;
        let mut row = Vec::with_capacity(self.cols);
        let zero = f32::from(self.bits.zero());
        let codes = self.codes.chunks_exact(self.size_bytes()).skip(blocks.start);
        for (scale, codes) in self.scales.get(blocks).unwrap_or_default().iter().zip(codes) {
            match self.bits {
                Bits::Eight => {
                    row.extend(codes.iter().map(|code| (f32::from(*code) - zero) * scale));
                }
                Bits::Four => row.extend(codes.iter().flat_map(|byte| {
                    [byte & 15, byte >> 4].map(|code| (f32::from(code) - zero) * scale)
                })),
            }
        }
        row
    }

    /// The rows `wanted`, in that order.
    pub fn select(&self, wanted: &[u32]) -> Self {
        let row_scales = self.cols / self.size;
        let row_bytes = row_scales * self.size_bytes();
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for at in wanted.iter().map(|at| *at as usize) {
            codes.extend_from_slice(&self.codes[at * row_bytes..(at + 1) * row_bytes]);
            scales.extend_from_slice(&self.scales[at * row_scales..(at + 1) * row_scales]);
        }
        Self { rows: wanted.len(), codes, scales, ..*self }
    }
}

fn magnitude(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |most: f32, value| most.max(value.abs()))
}

fn code(bits: Bits, value: f32, scale: f32) -> u8 {
    let zero = f32::from(bits.zero());
    let steps = if scale == 0.0 { 0.0 } else { (value / scale).round_ties_even() };
    // The clamp makes the cast exact.
    (steps + zero).clamp(0.0, 2.0 * zero - 1.0) as u8
}

fn push_codes(bits: Bits, block: &[u8], codes: &mut Vec<u8>) {
    match bits {
        Bits::Eight => codes.extend_from_slice(block),
        Bits::Four => {
            codes.extend(block.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4))
        }
    }
}

/// 4 bits reach from −8 to 7 steps, so the sign of the scale matters: the weight of largest magnitude sits at −8.
fn best_scale_of_4_bits(block: &[f32]) -> f32 {
    let furthest = block.iter().fold(
        0.0_f32,
        |most, value| {
            if value.abs() > most.abs() { *value } else { most }
        },
    );
    let error = |scale: f32| -> f32 {
        let differs = |value: &f32| {
            let back = (f32::from(code(Bits::Four, *value, scale)) - 8.0) * scale;
            (value - back) * (value - back)
        };
        block.iter().map(differs).sum()
    };
    let candidates = (0..=8).flat_map(|at| {
        let steps = 6.5 + 0.25 * at as f32;
        [-furthest / steps, furthest / steps]
    });
    let plain = -furthest / 8.0;
    candidates
        .fold((plain, error(plain)), |best, scale| match error(scale) {
            less if less < best.1 => (scale, less),
            _ => best,
        })
        .0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(blocks: &Blocks) -> Vec<f32> {
        (0..blocks.shape().0).flat_map(|at| blocks.row(at)).collect()
    }

    #[test]
    fn a_q4_0_block_keeps_every_weight() {
        let mut bytes = f16::from_f32(0.5).to_le_bytes().to_vec();
        bytes.extend((0..16).map(|at| at | (15 - at) << 4));
        let blocks = Blocks::from_q4_0((1, 32), &bytes).unwrap();
        let expected: Vec<f32> =
            (0..16).chain((0..16).rev()).map(|q| (q as f32 - 8.0) * 0.5).collect();
        assert_eq!(blocks.row(0), expected);
        assert_eq!(
            blocks.codes()[..2],
            [0x10, 0x32],
            "two codes a byte, the first in the low half"
        );
        assert!(blocks.row(1).is_empty());
    }

    #[test]
    fn a_q8_0_block_keeps_every_weight() {
        let mut bytes = f16::from_f32(-2.0).to_le_bytes().to_vec();
        bytes.extend((0..32).map(|at| (at * 8 - 128_i32) as i8 as u8));
        let blocks = Blocks::from_q8_0((1, 32), &bytes).unwrap();
        assert_eq!(
            blocks.row(0),
            (0..32).map(|at| (at * 8 - 128) as f32 * -2.0).collect::<Vec<_>>()
        );
    }

    #[test]
    fn blocks_that_do_not_fit_are_refused() {
        let length = |rows, cols, bytes: usize| Blocks::from_q4_0((rows, cols), &vec![0; bytes]);
        assert!(length(1, 32, 18).is_ok());
        for (rows, cols, bytes) in
            [(1, 32, 17), (2, 32, 18), (1, 33, 18), (0, 32, 0), (usize::MAX, 32, 18)]
        {
            assert!(
                matches!(length(rows, cols, bytes), Err(BlocksError::Length { .. })),
                "{rows} {cols} {bytes}"
            );
        }
        let infinite = [f16::INFINITY.to_le_bytes().as_slice(), &[0; 32]].concat();
        assert_eq!(Blocks::from_q8_0((1, 32), &infinite), Err(BlocksError::Scale { block: 0 }));
    }

    proptest! {
        #[test]
        fn no_weight_moves_further_than_half_a_step(values in proptest::collection::vec(-1e4_f32..1e4, 64)) {
            for size in [32, 64] {
                let blocks = Blocks::from_f32(Bits::Eight, size, (64 / size, size), &values);
                for (at, (before, after)) in values.iter().zip(all(&blocks)).enumerate() {
                    let step = blocks.scales()[at / size];
                    prop_assert!((before - after).abs() <= step * 0.501, "{before} became {after}, step {step}");
                }
            }
        }

        #[test]
        fn four_bits_err_no_more_than_ggml_rounding(values in proptest::collection::vec(-10_f32..10.0, 32)) {
            let block: [f32; 32] = values.clone().try_into().unwrap();
            let furthest = block.iter().fold(0.0_f32, |most, v| if v.abs() > most.abs() { *v } else { most });
            let plain = -furthest / 8.0;
            let square = |of: Vec<f32>| of.iter().zip(&block).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            let reference = block.iter().map(|v| (f32::from(code(Bits::Four, *v, plain)) - 8.0) * plain).collect();
            prop_assert!(square(all(&Blocks::from_f32(Bits::Four, 32, (1, 32), &values))) <= square(reference) * 1.000_01);
        }

        #[test]
        fn selected_rows_are_the_rows(
            values in proptest::collection::vec(-1_f32..1.0, 384),
            bits in prop_oneof![Just(Bits::Four), Just(Bits::Eight)],
            size in prop_oneof![Just(32_usize), Just(64), Just(128)],
        ) {
            let blocks = Blocks::from_f32(bits, size, (3, 128), &values);
            let selected = blocks.select(&[2, 0]);
            prop_assert_eq!(selected.shape(), (2, 128));
            prop_assert_eq!(blocks.scales().len(), 384 / size);
            prop_assert_eq!(all(&selected), [blocks.row(2), blocks.row(0)].concat());
        }
    }
}
