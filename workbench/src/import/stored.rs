//! A tensor as ggml keeps it, in its own files or in others: floats, halves or blocks.

use half::{bf16, f16};

use crate::import::{
    blocks::{BLOCK, Blocks, Q4_0_BYTES, Q8_0_BYTES},
    matrix::Matrix,
    part::{TensorError, finite},
    reader,
};

const KNOWN: &str = "F32, F16, BF16, Q4_0 and Q8_0";

/// How the numbers of a tensor lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// Blocks at 4 bits.
    Q4,
    /// Blocks at 8 bits.
    Q8,
    /// Another kind, by ggml's number: refused when it is asked for.
    Other(u32),
}

/// A tensor.
#[derive(Debug, Clone)]
pub struct Stored<'a> {
    /// How its numbers lie.
    pub kind: Kind,
    /// Slowest axis first; where a file knows only how many there are, that one number.
    pub shape: Vec<usize>,
    /// The numbers.
    pub bytes: &'a [u8],
}

impl Kind {
    /// Bytes of so many numbers; none when they are no whole blocks, or too many. Of another kind nothing is known: 0.
    pub fn bytes(self, values: usize) -> Option<usize> {
        let blocks = |bytes: usize| values.is_multiple_of(BLOCK).then(|| values / BLOCK * bytes);
        match self {
            Self::F32 => values.checked_mul(4),
            Self::F16 | Self::Bf16 => values.checked_mul(2),
            Self::Q4 => blocks(Q4_0_BYTES),
            Self::Q8 => blocks(Q8_0_BYTES),
            Self::Other(_) => Some(0),
        }
    }
}

impl Stored<'_> {
    /// The matrix that the tensor `name` is.
    pub fn matrix(
        &self,
        name: String,
        (rows, cols): (usize, usize),
    ) -> Result<Matrix, TensorError> {
        let fits = match *self.shape.as_slice() {
            [all] => rows.checked_mul(cols) == Some(all),
            _ => self.shape == [rows, cols],
        };
        if !fits {
            let (found, expected) = (self.shape.clone(), vec![rows, cols]);
            return Err(TensorError::Shape { name, found, expected });
        }
        let blocks = match self.kind {
            Kind::Q4 => Blocks::from_q4_0((rows, cols), self.bytes),
            Kind::Q8 => Blocks::from_q8_0((rows, cols), self.bytes),
            Kind::F32 | Kind::F16 | Kind::Bf16 | Kind::Other(_) => {
                let values = self.floats(name)?;
                return Ok(Matrix::Float { rows, cols, values });
            }
        };
        blocks.map(Matrix::Blocks).map_err(|source| TensorError::Blocks { name, source })
    }

    /// The `length` floats that the tensor `name` is.
    pub fn vector(&self, name: String, length: usize) -> Result<Vec<f32>, TensorError> {
        if self.shape == [length] {
            self.floats(name)
        } else {
            let (found, expected) = (self.shape.clone(), vec![length]);
            Err(TensorError::Shape { name, found, expected })
        }
    }

    fn floats(&self, name: String) -> Result<Vec<f32>, TensorError> {
        let halves = || self.bytes.as_chunks::<2>().0.iter();
        let other = |found: String| TensorError::Type { name: name.clone(), found, known: KNOWN };
        let values = match self.kind {
            Kind::F32 => reader::f32s(self.bytes),
            Kind::F16 => halves().map(|half| f16::from_le_bytes(*half).to_f32()).collect(),
            Kind::Bf16 => halves().map(|half| bf16::from_le_bytes(*half).to_f32()).collect(),
            Kind::Q4 => return Err(other("Q4_0, where floats are needed".into())),
            Kind::Q8 => return Err(other("Q8_0, where floats are needed".into())),
            Kind::Other(number) => return Err(other(format!("number {number} of ggml"))),
        };
        finite(&name, values)
    }
}
