//! Block-quantized constants of a file, brought to the one layout that the kernels take.

use tract_onnx::pb::TensorProto;

use crate::graph::{
    fused::{BLOCK, Bits, Blocks},
    numbers::{self, Bytes},
};

/// Shape and packing of a quantized constant of `rows × width` numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) bits: Bits,
    /// Numbers that share a scale.
    pub(super) block: usize,
}

/// A quantized constant.
#[derive(Debug)]
pub(super) enum Quantized {
    /// In blocks that the kernels take.
    Blocks(Blocks),
    /// Otherwise, as plain numbers.
    Floats(Vec<f32>),
}

impl Bits {
    /// From the attribute `bits`.
    pub(super) const fn of(bits: i64) -> Option<Self> {
        match bits {
            8 => Some(Self::Eight),
            4 => Some(Self::Four),
            _ => None,
        }
    }

    /// What stands for zero when a file does not say.
    pub(super) const fn zero(self) -> u8 {
        match self {
            Self::Eight => 128,
            Self::Four => 8,
        }
    }

    /// Bytes of `count` codes.
    pub(super) const fn bytes(self, count: usize) -> usize {
        match self {
            Self::Eight => count,
            Self::Four => count.div_ceil(2),
        }
    }

    /// The code at `at` of a row.
    pub(super) fn code(self, row: &[u8], at: usize) -> Option<u8> {
        Some(match self {
            Self::Eight => *row.get(at)?,
            Self::Four => row.get(at / 2)? >> (4 * (at % 2)) & 15,
        })
    }
}

/// The constant of `layout` with these codes, scales `rows × ⌈width/block⌉` and, if given, zero points per block
/// packed as the codes are. Each row begins at a whole byte, its last block may be shorter than the others but takes
/// the room of a whole one when `padded`. Blocks come out as large as they are in the file, or as large a part of that
/// as rows are whole and `most` allows. `None` when a length does not fit.
pub(super) fn read(
    layout: Layout,
    most: usize,
    codes: &TensorProto,
    scales: &TensorProto,
    zeros: Option<&TensorProto>,
    padded: Padding,
) -> Option<Quantized> {
    let Layout { rows, width, bits, block } = layout;
    if rows == 0 || width == 0 || block == 0 {
        return None;
    }
    let blocks = width.div_ceil(block);
    let row_bytes = match padded {
        Padding::WholeBlocks => blocks.checked_mul(bits.bytes(block))?,
        Padding::No => bits.bytes(width),
    };
    let Bytes::Unsigned(codes) = numbers::bytes(codes)? else { return None };
    let scales = numbers::floats(scales)?;
    if codes.len() != rows.checked_mul(row_bytes)? || scales.len() != rows.checked_mul(blocks)? {
        return None;
    }
    if !scales.iter().all(|scale| scale.is_finite()) {
        return None;
    }
    let zeros = match zeros.map(numbers::bytes) {
        None => None,
        Some(Some(Bytes::Unsigned(zeros))) => {
            (zeros.len() == rows.checked_mul(bits.bytes(blocks))?).then_some(())?;
            Some(zeros)
        }
        Some(None | Some(Bytes::Signed(_))) => return None,
    };
    let zero_of = |row: usize, at: usize| match &zeros {
        None => Some(bits.zero()),
        Some(zeros) => {
            let bytes = bits.bytes(blocks);
            bits.code(zeros.get(row * bytes..(row + 1) * bytes)?, at)
        }
    };
    let centred = zeros.is_none()
        || (0..rows).all(|row| (0..blocks).all(|at| zero_of(row, at) == Some(bits.zero())));
    let to = size(width, block, most);
    let whole = to >= BLOCK;
    if whole && centred && row_bytes == bits.bytes(width) {
        let scales = spread(&scales, width, block, to);
        return Some(Quantized::Blocks(Blocks { bits, block: to, codes, scales }));
    }
    // A 4-bit code less its own zero point is between -15 and 15: 8 bits hold it, with the same scale.
    if whole && bits == Bits::Four {
        let mut wide = Vec::with_capacity(rows * width);
        for (row, line) in codes.chunks_exact(row_bytes).enumerate() {
            for at in 0..width {
                let (code, zero) = (bits.code(line, at)?, zero_of(row, at / block)?);
                wide.push(128 + code - zero);
            }
        }
        let scales = spread(&scales, width, block, to);
        return Some(Quantized::Blocks(Blocks {
            bits: Bits::Eight,
            block: to,
            codes: wide,
            scales,
        }));
    }
    let mut floats = Vec::with_capacity(rows * width);
    for (row, line) in codes.chunks_exact(row_bytes).enumerate() {
        for at in 0..width {
            let (code, zero) = (bits.code(line, at)?, zero_of(row, at / block)?);
            let scale = scales.get(row * blocks + at / block)?;
            floats.push((f32::from(code) - f32::from(zero)) * scale);
        }
    }
    Some(Quantized::Floats(floats))
}

/// Whether the last block of a row takes the room of a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// It does.
    WholeBlocks,
    /// It does not.
    No,
}

/// The largest power of two that divides rows and blocks, at most `most`.
fn size(width: usize, block: usize, most: usize) -> usize {
    1 << width.trailing_zeros().min(block.trailing_zeros()).min(most.trailing_zeros())
}

/// Scales of blocks of `to`, from those of blocks of `block`, a multiple of it.
fn spread(scales: &[f32], width: usize, block: usize, to: usize) -> Vec<f32> {
    let blocks = width.div_ceil(block).max(1);
    let mut spread = Vec::with_capacity(scales.len() / blocks * (width / to));
    for row in scales.chunks_exact(blocks) {
        spread.extend((0..width / to).filter_map(|at| row.get(at * to / block)));
    }
    spread
}
