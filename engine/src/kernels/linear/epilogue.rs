//! What is done to a tile of a product between the registers and the result.

use crate::kernels::{
    elementary,
    isa::{Isa, for_each_isa},
};

/// What follows a product and its bias.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// The exact GELU.
    Gelu,
    /// A matrix of the result's shape is added.
    Residual(&'a [f32]),
}

impl<'a> Epilogue<'a> {
    /// What follows rows `rows` of a result of `n` columns.
    pub(in crate::kernels) fn rows(self, rows: &std::ops::Range<usize>, n: usize) -> Self {
        match self {
            Self::None => Self::None,
            Self::Gelu => Self::Gelu,
            Self::Residual(all) => Self::Residual(&all[rows.start * n..rows.end * n]),
        }
    }

    /// What is added, if anything.
    pub(in crate::kernels) const fn residual(self) -> Option<&'a [f32]> {
        match self {
            Self::None | Self::Gelu => None,
            Self::Residual(all) => Some(all),
        }
    }

    /// Stops a caller whose residual does not fit.
    pub(in crate::kernels) fn check(self, out: usize) {
        match self {
            Self::None | Self::Gelu => {}
            Self::Residual(all) => {
                assert!(all.len() == out, "the residual does not fit the result")
            }
        }
    }
}

/// Where a tile goes: rows `row..` and columns `column..` of a result of `n` columns.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Place {
    pub(in crate::kernels) row: usize,
    pub(in crate::kernels) column: usize,
    pub(in crate::kernels) n: usize,
}

/// `out = epilogue(tile + bias)` where the tile lies in `out`. `tile` is rows as wide as `bias`.
pub(in crate::kernels) fn store(
    isa: Isa,
    tile: &mut [f32],
    bias: &[f32],
    epilogue: Epilogue<'_>,
    place: Place,
    out: &mut [f32],
) {
    match epilogue {
        Epilogue::None => plain(isa, tile, bias, place, out),
        Epilogue::Gelu => gelu(isa, tile, bias, place, out),
        Epilogue::Residual(all) => residual(isa, tile, bias, all, place, out),
    }
}

for_each_isa! {
    fn plain(isa: Isa, tile: &[f32], bias: &[f32], place: Place, out: &mut [f32]) {
        let width = bias.len().min(place.n - place.column);
        for (row, tile) in tile.chunks_exact(bias.len()).enumerate() {
            let out = &mut out[(place.row + row) * place.n + place.column..][..width];
            for ((out, value), bias) in out.iter_mut().zip(tile).zip(bias) {
                *out = value + bias;
            }
        }
    }
}

for_each_isa! {
    fn gelu(isa: Isa, tile: &mut [f32], bias: &[f32], place: Place, out: &mut [f32]) {
        let width = bias.len().min(place.n - place.column);
        for (row, tile) in tile.chunks_exact_mut(bias.len()).enumerate() {
            for (value, bias) in tile.iter_mut().zip(bias) {
                *value = elementary::gelu(*value + bias);
            }
            let out = &mut out[(place.row + row) * place.n + place.column..][..width];
            out.copy_from_slice(&tile[..width]);
        }
    }
}

for_each_isa! {
    fn residual(isa: Isa, tile: &[f32], bias: &[f32], all: &[f32], place: Place, out: &mut [f32]) {
        let width = bias.len().min(place.n - place.column);
        for (row, tile) in tile.chunks_exact(bias.len()).enumerate() {
            let from = (place.row + row) * place.n + place.column;
            let (out, residual) = (&mut out[from..from + width], &all[from..from + width]);
            for (((out, value), bias), residual) in out.iter_mut().zip(tile).zip(bias).zip(residual) {
                *out = (value + bias) + residual;
            }
        }
    }
}
