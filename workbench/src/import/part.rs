//! What the tensors of an encoder are for, whatever a file calls them.

use crate::import::{blocks::BlocksError, matrix::Matrix};

/// A tensor of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of what.
    pub of: Of,
    /// Which of its tensors.
    pub role: Role,
}

/// What a tensor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The table of words.
    Words,
    /// The table of positions.
    Positions,
    /// The table of segments.
    Types,
    /// The norm over their sum.
    EmbeddingNorm,
    /// A layer, counted from 0.
    Layer(usize, InLayer),
    /// The first linear layer of the head.
    HeadDense,
    /// The last one.
    HeadOut,
}

/// What a tensor belongs to within a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InLayer {
    /// Attention: queries.
    Query,
    /// Attention: keys.
    Key,
    /// Attention: values.
    Value,
    /// Attention: its output.
    AttentionOut,
    /// The norm after it.
    AttentionNorm,
    /// Feed-forward: the wide linear layer.
    Up,
    /// Feed-forward: back to the width of the states.
    Down,
    /// The norm after it.
    OutNorm,
}

/// Which tensor of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The matrix, or the factors of a norm.
    Weight,
    /// What is added.
    Bias,
}

/// A file with the tensors of an encoder.
pub trait Tensors {
    /// The matrix `part`, which must have this shape (rows, columns).
    fn matrix(&self, part: Part, shape: (usize, usize)) -> Result<Matrix, TensorError>;

    /// The floats of `part`, which must be this many.
    fn vector(&self, part: Part, length: usize) -> Result<Vec<f32>, TensorError>;
}

/// Why a tensor cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// Not there.
    #[error(
        "file has no tensor `{name}`: it does not belong to this config.json, or is another kind of model"
    )]
    Missing {
        /// Its name in this kind of file.
        name: String,
    },
    /// Another shape.
    #[error("tensor `{name}` has shape {found:?}, the description of the model needs {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// What it has.
        found: Vec<usize>,
        /// What it should have.
        expected: Vec<usize>,
    },
    /// A kind of number that is not read here.
    #[error("tensor `{name}` is of type {found}; read are {known}")]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
        /// What is known.
        known: &'static str,
    },
    /// Its blocks.
    #[error("reading the blocks of tensor `{name}`")]
    Blocks {
        /// Its name.
        name: String,
        /// Why.
        source: BlocksError,
    },
    /// An infinite value, or one that is not a number.
    #[error("tensor `{name}` holds a value that is not a finite number")]
    NotFinite {
        /// Its name.
        name: String,
    },
}

/// `values`, unless one of them is infinite or not a number.
pub fn finite(name: &str, values: Vec<f32>) -> Result<Vec<f32>, TensorError> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(TensorError::NotFinite { name: name.to_owned() })
    }
}
