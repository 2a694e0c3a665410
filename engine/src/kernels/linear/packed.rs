//! How integer weights lie in memory.
//!
//! Columns stand side by side in panels, as many as a tile is wide. Within a panel, steps of a few `k` follow each
//! other, and a step holds those `k` of every column: `[panel][step][column][k in step]`, one byte each. Weights of
//! 4 bits put two steps in the same bytes, the earlier one in the low half. Weights are unsigned; kernels take off the
//! zero point by starting sums at minus the zero point times the sum of the input.

use crate::kernels::{
    aligned::Aligned,
    isa::{Isa, Level},
};

/// The smallest number of weights that share one scale; all others are a power of two times it.
pub const BLOCK: usize = 32;
/// The largest: sums of products of larger blocks would not be exact in f32.
pub const BLOCK_MAX: usize = 256;

/// Size of one weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// A byte, zero point 128.
    Eight,
    /// Half a byte, zero point 8.
    Four,
}

/// One panel of weights in blocks, and what sums start at.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct BlockPanel<'a> {
    pub(in crate::kernels) bits: Bits,
    /// Numbers that share a scale, a multiple of 32.
    pub(in crate::kernels) block: usize,
    /// `k / block`.
    pub(in crate::kernels) blocks: usize,
    pub(in crate::kernels) codes: &'a [u8],
    pub(in crate::kernels) scales: &'a [f32],
    /// One a column.
    pub(in crate::kernels) bias: &'a [f32],
    /// From the tile's first number on, rows as far apart as those of the result.
    pub(in crate::kernels) residual: Option<&'a [f32]>,
    /// Whether GELU follows.
    pub(in crate::kernels) bend: bool,
}

/// Rows of input in blocks: codes, and a scale and a start of each block.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct BlockRows<'a, T> {
    pub(in crate::kernels) codes: &'a [T],
    pub(in crate::kernels) scales: &'a [f32],
    pub(in crate::kernels) starts: &'a [i32],
}

/// Why weights are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// A side is zero, or both together are beyond what can be addressed.
    #[error(
        "weights of {rows} rows of {width}: each side must be at least 1 and their product addressable"
    )]
    Sides {
        /// Rows.
        rows: usize,
        /// Numbers in a row.
        width: usize,
    },
    /// A block of another size, or a row that does not fill its last block.
    #[error(
        "weights with rows of {width} in blocks of {block}: blocks are of 32, 64, 128 or 256, and rows whole blocks; \
         pad them with zeros"
    )]
    Ragged {
        /// Numbers in a row.
        width: usize,
        /// Numbers in a block.
        block: usize,
    },
    /// A slice is not as long as the shape says.
    #[error("weights of {rows} rows of {width} need {needed} {what}, got {got}")]
    Length {
        /// Rows.
        rows: usize,
        /// Numbers in a row.
        width: usize,
        /// Which slice.
        what: &'static str,
        /// How many there should be.
        needed: usize,
        /// How many there are.
        got: usize,
    },
    /// A number is infinite or not a number.
    #[error("{what} number {index} of the weights is not finite")]
    NotFinite {
        /// Which slice.
        what: &'static str,
        /// Where in it.
        index: usize,
    },
}

impl Bits {
    /// The code of 0.
    pub const fn zero_point(self) -> i32 {
        match self {
            Self::Eight => 128,
            Self::Four => 8,
        }
    }

    /// Bytes that `count` weights take, for an even count.
    pub const fn bytes(self, count: usize) -> usize {
        match self {
            Self::Eight => count,
            Self::Four => count / 2,
        }
    }

    /// Checks the shape, lengths and scales of `rows` rows of `width` weights in blocks of `block`.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn check(
        self,
        (rows, width): (usize, usize),
        block: usize,
        codes: &[u8],
        scales: &[f32],
    ) -> Result<(), WeightsError> {
        let known = block.is_power_of_two() && (BLOCK..=BLOCK_MAX).contains(&block);
        if !known || !width.is_multiple_of(block) {
            return Err(WeightsError::Ragged { width, block });
        }
        let count = sides(rows, width)?;
        length(rows, width, "bytes of codes", self.bytes(count), codes.len())?;
        length(rows, width, "scales", count / block, scales.len())?;
        finite("scale", scales)
    }
}

/// The product of the sides.
///
/// # Errors
/// One is zero, or the product is too large to be padded and addressed.
pub fn sides(rows: usize, width: usize) -> Result<usize, WeightsError> {
    let count =
        rows.checked_mul(width).filter(|count| *count > 0 && *count <= isize::MAX as usize / 64);
    count.ok_or(WeightsError::Sides { rows, width })
}

/// Checks one length.
///
/// # Errors
/// It differs.
pub fn length(
    rows: usize,
    width: usize,
    what: &'static str,
    needed: usize,
    got: usize,
) -> Result<(), WeightsError> {
    if needed == got {
        Ok(())
    } else {
        Err(WeightsError::Length { rows, width, what, needed, got })
    }
}

/// Checks that all are finite.
///
/// # Errors
/// One is not.
pub fn finite(what: &'static str, values: &[f32]) -> Result<(), WeightsError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(WeightsError::NotFinite { what, index }),
        None => Ok(()),
    }
}

/// The order that one form wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Columns of a panel.
    pub lanes: usize,
    /// `k` of a step.
    pub group: usize,
}

impl Order {
    /// The order for `isa`.
    pub const fn of(isa: Isa) -> Self {
        match isa.level() {
            Level::Portable => Self { lanes: 16, group: 2 },
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Self { lanes: 16, group: 2 },
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => Self { lanes: 32, group: 4 },
        }
    }

    /// Bytes of a panel of `k` (a multiple of 32) weights a column.
    pub const fn panel_bytes(self, bits: Bits, k: usize) -> usize {
        bits.bytes(k * self.lanes)
    }

    /// Puts codes in order. `code(column, k)` is asked once for each of `n × k` places, `k` a multiple of 32; columns
    /// that fill the last panel are zero.
    pub fn pack(
        self,
        bits: Bits,
        n: usize,
        k: usize,
        code: impl Fn(usize, usize) -> u8,
    ) -> Aligned {
        let panel_bytes = self.panel_bytes(bits, k);
        let panels = n.div_ceil(self.lanes);
        let mut packed = Aligned::zeros::<u8>(panels * panel_bytes);
        let bytes = packed.as_mut_slice::<u8>();
        for column in 0..n {
            let panel = &mut bytes[column / self.lanes * panel_bytes..][..panel_bytes];
            let lane = column % self.lanes;
            for at in 0..k {
                let (step, within) = (at / self.group, at % self.group);
                let code = code(column, at);
                match bits {
                    Bits::Eight => panel[(step * self.lanes + lane) * self.group + within] = code,
                    Bits::Four => {
                        let byte = &mut panel[(step / 2 * self.lanes + lane) * self.group + within];
                        *byte |= if step % 2 == 0 { code } else { code << 4 };
                    }
                }
            }
        }
        packed
    }

    /// Puts `scales[n][blocks]` in the order `[panel][block][column]`, zero beyond the last column.
    pub fn pack_scales(self, n: usize, blocks: usize, scales: &[f32]) -> Aligned {
        let panels = n.div_ceil(self.lanes);
        let mut packed = Aligned::zeros::<f32>(panels * blocks * self.lanes);
        let out = packed.as_mut_slice::<f32>();
        for (column, scales) in scales.chunks_exact(blocks).enumerate() {
            let (panel, lane) = (column / self.lanes, column % self.lanes);
            for (block, scale) in scales.iter().enumerate() {
                out[(panel * blocks + block) * self.lanes + lane] = *scale;
            }
        }
        packed
    }

    /// `values`, one a column, with zeros up to whole panels.
    pub fn padded(self, values: &[f32]) -> Vec<f32> {
        let mut padded = values.to_vec();
        padded.resize(values.len().next_multiple_of(self.lanes), 0.0);
        padded
    }
}
