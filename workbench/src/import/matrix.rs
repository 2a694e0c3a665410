//! A weight matrix on its way from a file to the house format.

use crate::import::blocks::{BLOCK, Bits, Blocks, LINEAR_BLOCK};

/// A matrix, row-major; a linear layer has a row for each output.
#[derive(Debug, Clone, PartialEq)]
pub enum Matrix {
    /// Floats.
    Float {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Values, row-major.
        values: Vec<f32>,
    },
    /// Blocks.
    Blocks(Blocks),
}

/// What a matrix is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Rows are multiplied with an input.
    Linear,
    /// Rows are looked up.
    Table,
}

/// What linear layers and tables are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Blocks at 8 bits, of 64 in linear layers and of 32 in tables; what is in blocks already stays so
    Q8,
    /// Blocks of 32 at 4 bits
    Q4,
    /// Floats
    F32,
}

impl Matrix {
    /// Rows and columns.
    pub const fn shape(&self) -> (usize, usize) {
        match self {
            Self::Float { rows, cols, .. } => (*rows, *cols),
            Self::Blocks(blocks) => blocks.shape(),
        }
    }

    /// The weights of row `at`; nothing for a row that is not there.
    pub fn row(&self, at: usize) -> Vec<f32> {
        match self {
            Self::Float { cols, values, .. } => {
                values.get(at * cols..(at + 1) * cols).unwrap_or_default().to_vec()
            }
            Self::Blocks(blocks) => blocks.row(at),
        }
    }

    /// All weights, row-major.
    pub fn values(&self) -> Vec<f32> {
        match self {
            Self::Float { values, .. } => values.clone(),
            Self::Blocks(blocks) => (0..blocks.shape().0).flat_map(|at| blocks.row(at)).collect(),
        }
    }

    /// The rows `wanted`, which must be there, in that order.
    pub fn select(&self, wanted: &[u32]) -> Self {
        match self {
            Self::Float { cols, values, .. } => {
                let rows = wanted.iter().map(|at| *at as usize);
                let chosen = rows.flat_map(|at| &values[at * cols..(at + 1) * cols]).copied();
                Self::Float { rows: wanted.len(), cols: *cols, values: chosen.collect() }
            }
            Self::Blocks(blocks) => Self::Blocks(blocks.select(wanted)),
        }
    }

    /// The same in `format`, for `purpose`. What is in blocks already is not cut anew, and blocks of 4 bits are not widened to
    /// 8: that would gain nothing. Rows that are no whole blocks stay floats.
    pub fn into_format(self, format: Format, purpose: Purpose) -> Self {
        let (rows, cols) = self.shape();
        let large = purpose == Purpose::Linear && cols.is_multiple_of(LINEAR_BLOCK);
        let size = if large { LINEAR_BLOCK } else { BLOCK };
        match (format, self) {
            (Format::Q8 | Format::Q4, float @ Self::Float { .. })
                if !cols.is_multiple_of(BLOCK) =>
            {
                float
            }
            (Format::Q8, Self::Blocks(blocks)) => Self::Blocks(blocks),
            (Format::Q4, Self::Blocks(blocks)) if blocks.bits() == Bits::Four => {
                Self::Blocks(blocks)
            }
            (Format::Q8, Self::Float { values, .. }) => {
                Self::Blocks(Blocks::from_f32(Bits::Eight, size, (rows, cols), &values))
            }
            (Format::Q4, matrix @ (Self::Float { .. } | Self::Blocks(_))) => {
                Self::Blocks(Blocks::from_f32(Bits::Four, BLOCK, (rows, cols), &matrix.values()))
            }
            (Format::F32, matrix @ (Self::Float { .. } | Self::Blocks(_))) => {
                let values = matrix.values();
                Self::Float { rows, cols, values }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_4_bits_stay_at_4_bits() {
        let purpose = Purpose::Linear;
        let values: Vec<f32> = (0..64).map(|at| at as f32 / 10.0 - 3.0).collect();
        let float = Matrix::Float { rows: 2, cols: 32, values };
        let four = float.clone().into_format(Format::Q4, purpose);
        assert_eq!(four.clone().into_format(Format::Q8, purpose), four);
        assert_eq!(four.clone().into_format(Format::F32, purpose).row(1), four.row(1));
        let eight = float.clone().into_format(Format::Q8, purpose);
        assert!(matches!(&eight, Matrix::Blocks(blocks) if blocks.bits() == Bits::Eight));
        assert!(
            matches!(eight.into_format(Format::Q4, purpose), Matrix::Blocks(blocks) if blocks.bits() == Bits::Four)
        );
        assert_eq!(float.select(&[1]).row(0), float.row(1));
    }

    #[test]
    fn linears_of_8_bits_are_cut_larger_where_rows_allow() {
        for (cols, format, purpose, size) in [
            (192, Format::Q8, Purpose::Linear, 64),
            (96, Format::Q8, Purpose::Linear, 32),
            (192, Format::Q8, Purpose::Table, 32),
            (192, Format::Q4, Purpose::Linear, 32),
        ] {
            let float = Matrix::Float { rows: 1, cols, values: vec![0.5; cols] };
            let Matrix::Blocks(blocks) = float.into_format(format, purpose) else {
                panic!("{cols} {format:?} {purpose:?} stays floats");
            };
            assert_eq!(blocks.size(), size, "{cols} {format:?} {purpose:?}");
        }
    }

    #[test]
    fn rows_that_are_no_whole_blocks_stay_floats() {
        let float = Matrix::Float { rows: 1, cols: 3, values: vec![1.0, 2.0, 3.0] };
        assert_eq!(float.clone().into_format(Format::Q8, Purpose::Table), float);
    }
}
