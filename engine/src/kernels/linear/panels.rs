//! How f32 matrices lie in memory: columns in panels as wide as a tile, `[panel][k][column]`, zero beyond the last.

use crate::kernels::isa::{Isa, Level};

/// Columns of a panel of f32 for `isa`.
pub const fn lanes(isa: Isa) -> usize {
    match isa.level() {
        Level::Portable => 16,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 16,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => 32,
    }
}

/// Rows that a tile of f32 for `isa` has at most.
pub const fn tile_rows(isa: Isa) -> usize {
    match isa.level() {
        Level::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 6,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => 12,
    }
}

/// A matrix of which rows lie `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    /// From the first number of the first row on.
    pub data: &'a [f32],
    /// From a row to the next.
    pub stride: usize,
}

impl<'a> Strided<'a> {
    /// From row `row` and column `column` on.
    ///
    /// # Panics
    /// It lies beyond the data.
    pub fn from(self, row: usize, column: usize) -> Self {
        Self { data: &self.data[row * self.stride + column..], stride: self.stride }
    }
}

/// Rows times one panel, of f32 or of words.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct RowsTile<'a, T> {
    /// `[k][lanes]`, of words `[k / 2][lanes][2]`.
    pub(in crate::kernels) panel: &'a [T],
    pub(in crate::kernels) k: usize,
    pub(in crate::kernels) rows: usize,
    /// Rows of `k` that are `stride` apart.
    pub(in crate::kernels) input: &'a [T],
    pub(in crate::kernels) stride: usize,
    pub(in crate::kernels) out_stride: usize,
}

/// Packs `source`, `rows` rows of `columns` which are the `k` of the panels: `out[panel][k][column] = source[k][column]`.
pub fn pack_rows(lanes: usize, source: Strided<'_>, rows: usize, columns: usize, out: &mut [f32]) {
    for (panel, out) in
        out.chunks_exact_mut(rows.max(1) * lanes).take(columns.div_ceil(lanes)).enumerate()
    {
        let first = panel * lanes;
        let width = lanes.min(columns - first);
        for (row, out) in out.chunks_exact_mut(lanes).enumerate() {
            let from = row * source.stride + first;
            out[..width].copy_from_slice(&source.data[from..from + width]);
            out[width..].fill(0.0);
        }
    }
}

/// Packs `source`, `rows` rows of `columns`, of which the rows are the columns of the panels:
/// `out[panel][k][column] = source[column][k]`.
pub fn pack_columns(
    lanes: usize,
    source: Strided<'_>,
    rows: usize,
    columns: usize,
    out: &mut [f32],
) {
    for (panel, out) in
        out.chunks_exact_mut(columns.max(1) * lanes).take(rows.div_ceil(lanes)).enumerate()
    {
        let first = panel * lanes;
        let width = lanes.min(rows - first);
        if width < lanes {
            out.fill(0.0);
        }
        for lane in 0..width {
            let row = &source.data[(first + lane) * source.stride..][..columns];
            for (at, value) in row.iter().enumerate() {
                out[at * lanes + lane] = *value;
            }
        }
    }
}
