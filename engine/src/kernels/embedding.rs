//! Tables of vectors in blocks of 32 with one scale, of which single rows are read.

use crate::kernels::{
    isa::{Isa, for_each_isa},
    linear::packed::{BLOCK, Bits, WeightsError},
};

/// Rows of 8- or 4-bit numbers.
#[derive(Clone, Debug)]
pub struct BlockTable {
    isa: Isa,
    bits: Bits,
    rows: usize,
    width: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

/// An id beyond the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("id {id} at position {position} has no row: the table has {rows}")]
pub struct NoSuchRow {
    /// Which id of the call.
    pub position: usize,
    /// What it is.
    pub id: u32,
    /// Rows of the table.
    pub rows: usize,
}

impl BlockTable {
    /// `codes[rows][width]` with zero point 128, or two a byte with zero point 8, the even one low; `scales[rows][width/32]`.
    ///
    /// # Errors
    /// `width` is not a multiple of 32, a length does not fit, or a scale is not finite.
    pub fn new(
        isa: Isa,
        bits: Bits,
        rows: usize,
        width: usize,
        codes: Vec<u8>,
        scales: Vec<f32>,
    ) -> Result<Self, WeightsError> {
        bits.check((rows, width), BLOCK, &codes, &scales)?;
        Ok(Self { isa, bits, rows, width, codes, scales })
    }

    /// How many rows.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// How wide.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Bytes of memory held.
    pub const fn bytes(&self) -> usize {
        self.codes.len() + self.scales.len() * size_of::<f32>()
    }

    /// `out[i] = table[ids[i]]`, as f32.
    ///
    /// # Errors
    /// An id has no row; nothing is promised of `out` then.
    ///
    /// # Panics
    /// `out` is not `ids.len() × width` long.
    pub fn gather(&self, ids: &[u32], out: &mut [f32]) -> Result<(), NoSuchRow> {
        assert!(out.len() == ids.len() * self.width, "out does not hold one row an id");
        let (code_bytes, blocks) = (self.bits.bytes(self.width), self.width / BLOCK);
        for (position, (id, out)) in ids.iter().zip(out.chunks_exact_mut(self.width)).enumerate() {
            let row = *id as usize;
            if row >= self.rows {
                return Err(NoSuchRow { position, id: *id, rows: self.rows });
            }
            let codes = &self.codes[row * code_bytes..][..code_bytes];
            let scales = &self.scales[row * blocks..][..blocks];
            match self.bits {
                Bits::Eight => eight(self.isa, codes, scales, out),
                Bits::Four => four(self.isa, codes, scales, out),
            }
        }
        Ok(())
    }
}

for_each_isa! {
    fn eight(isa: Isa, codes: &[u8], scales: &[f32], out: &mut [f32]) {
        let blocks = out.chunks_exact_mut(BLOCK).zip(codes.chunks_exact(BLOCK)).zip(scales);
        for ((out, codes), scale) in blocks {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = (f32::from(*code) - 128.0) * scale;
            }
        }
    }
}

for_each_isa! {
    fn four(isa: Isa, codes: &[u8], scales: &[f32], out: &mut [f32]) {
        let blocks = out.chunks_exact_mut(BLOCK).zip(codes.chunks_exact(BLOCK / 2)).zip(scales);
        for ((out, codes), scale) in blocks {
            for (out, code) in out.chunks_exact_mut(2).zip(codes) {
                out[0] = (f32::from(code & 15) - 8.0) * scale;
                out[1] = (f32::from(code >> 4) - 8.0) * scale;
            }
        }
    }
}
