//! What a fused node computes, as read from the file and before anything is packed for the machine.

use tract_onnx::prelude::{Datum, DatumType, TDim, TVec, ToDim as _};

use crate::{graph::numbers::Bytes, kernels::attention::Products};

/// Numbers of a row that share a scale in a table, and at least so many in a block linear.
pub(super) const BLOCK: usize = 32;
/// At most so many in a block linear.
pub(super) const BLOCK_MAX: usize = 256;

/// The content of a fused node.
#[derive(Debug)]
pub(super) enum Fused {
    /// Inputs: the states; the residual when [`After::Residual`]; the segments when [`Linear::needs_segments`].
    Linear(Linear),
    /// Input: the ids.
    Table(Table),
    /// Input: the states.
    Norm(Norm),
    /// Exact GELU. Input: the states.
    Gelu,
    /// Sum of two inputs of the same shape.
    Sum,
    /// Inputs: query, key and value, or one value that holds the three side by side; the segments.
    Attention(Attention),
    /// Inputs: the ids; the segments.
    Positions(Positions),
    /// The states of the first token of each sequence. Inputs: the states; the segments.
    FirstTokens,
}

/// `out[m, n] = Σₖ x[m, k] · w[n, k] + bias[n]`, and what comes after.
#[derive(Debug)]
pub(super) struct Linear {
    /// Width of the output.
    pub n: usize,
    /// Width of the input.
    pub k: usize,
    /// The factors.
    pub weight: Weight,
    /// `n` numbers.
    pub bias: Option<Vec<f32>>,
    /// What is done with the sum.
    pub after: After,
}

/// The weights of a [`Linear`].
#[derive(Debug)]
pub(super) enum Weight {
    /// `n × k` of `(code - zero) · scale`, one scale per block along k; activations quantized likewise.
    Blocks(Blocks),
    /// `k × n`, as they are.
    Float(Vec<f32>),
    /// `k × n` of `(q - zero) · scale` against activations quantized over the whole tensor.
    Integer(Integer),
}

/// Numbers in blocks along a row, row-major.
#[derive(Debug)]
pub(super) struct Blocks {
    /// How wide a code is.
    pub bits: Bits,
    /// Numbers that share a scale: [`BLOCK`], or a power of two times it up to [`BLOCK_MAX`].
    pub block: usize,
    /// One byte a number, or two numbers a byte of which the low one comes first.
    pub codes: Vec<u8>,
    /// One a block.
    pub scales: Vec<f32>,
}

/// Width of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bits {
    /// Zero at 128.
    Eight,
    /// Zero at 8.
    Four,
}

/// Weights of the integer operators of ONNX.
#[derive(Debug)]
pub(super) struct Integer {
    /// `k × n`.
    pub q: Bytes,
    /// One, or `n`.
    pub zeros: Vec<i32>,
    /// One, or `n`.
    pub scales: Vec<f32>,
    /// How the activations become integers.
    pub activation: Activation,
}

/// How activations become 8-bit integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Activation {
    /// As `DynamicQuantizeLinear` does, over the tokens of one sequence.
    Dynamic,
    /// With a scale from the file.
    Static {
        /// Step.
        scale: f32,
        /// What stands for zero.
        zero: i32,
        /// Whether they are i8.
        signed: bool,
    },
}

/// What a linear does with its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing.
    Nothing,
    /// Exact GELU.
    Gelu,
    /// Adds the second input.
    Residual,
}

impl Linear {
    /// Whether the sequences must be told apart.
    pub(super) const fn needs_segments(&self) -> bool {
        matches!(self.weight, Weight::Integer(Integer { activation: Activation::Dynamic, .. }))
    }
}

/// Rows of `q · scale`, looked up by id.
#[derive(Debug)]
pub(super) struct Table {
    /// How many rows.
    pub rows: usize,
    /// Width of a row, a multiple of [`BLOCK`].
    pub width: usize,
    /// `rows × width`, in blocks of [`BLOCK`].
    pub blocks: Blocks,
}

/// LayerNorm over the last axis.
#[derive(Debug)]
pub(super) struct Norm {
    /// Factors.
    pub gamma: Vec<f32>,
    /// Summands.
    pub beta: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// `softmax(q · kᵀ · scale) · v` for each head and each sequence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attention {
    /// How many heads.
    pub heads: usize,
    /// Width of one.
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// What is multiplied.
    pub products: Products,
}

/// Position ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Positions {
    /// Id of the first token.
    pub first: i64,
    /// Tokens of this id get the position of this id, and are not counted.
    pub pad: Option<i64>,
    /// Whether the output has the leading axis of length 1 that the ids have.
    pub batched: bool,
}

/// How the output's type and shape follow from the inputs' shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The last axis is this wide at first and that wide then.
    Last {
        /// At first.
        from: usize,
        /// Then.
        to: usize,
    },
    /// A last axis of this width is added to the ids'.
    Append(usize),
    /// As the first input.
    Same,
    /// The last axis is this wide, whatever it was.
    Heads(usize),
    /// As the ids, without the leading axis unless `batched`.
    Positions {
        /// Whether it stays.
        batched: bool,
    },
    /// One row for each sequence.
    FirstTokens,
}

impl Rule {
    /// Type and shape of the output, for inputs of these shapes; `None` when they do not fit.
    pub(super) fn output(self, inputs: &[TVec<TDim>]) -> Option<(DatumType, TVec<TDim>)> {
        let mut shape = inputs.first()?.clone();
        let float = f32::datum_type();
        match self {
            Self::Last { from, to } => {
                let last = shape.last_mut()?;
                (*last == from.to_dim()).then_some(())?;
                *last = to.to_dim();
                Some((float, shape))
            }
            Self::Append(width) => {
                shape.push(width.to_dim());
                Some((float, shape))
            }
            Self::Same => Some((float, shape)),
            Self::Heads(width) => {
                *shape.last_mut()? = width.to_dim();
                Some((float, shape))
            }
            Self::Positions { batched } => {
                let [_, tokens] = shape.as_slice() else { return None };
                let tokens = tokens.clone();
                let shape = if batched { shape } else { [tokens].into_iter().collect() };
                Some((i64::datum_type(), shape))
            }
            Self::FirstTokens => {
                let [_, _, width] = shape.as_slice() else { return None };
                let [boundaries] = inputs.get(1)?.as_slice() else { return None };
                Some((float, [boundaries.clone() - 1, width.clone()].into_iter().collect()))
            }
        }
    }
}

impl Fused {
    /// How its output's shape follows.
    pub(super) const fn rule(&self) -> Rule {
        match self {
            Self::Linear(linear) => Rule::Last { from: linear.k, to: linear.n },
            Self::Table(table) => Rule::Append(table.width),
            Self::Norm(norm) => Rule::Last { from: norm.gamma.len(), to: norm.gamma.len() },
            Self::Gelu | Self::Sum => Rule::Same,
            Self::Attention(attention) => Rule::Heads(attention.heads * attention.head_dim),
            Self::Positions(positions) => Rule::Positions { batched: positions.batched },
            Self::FirstTokens => Rule::FirstTokens,
        }
    }

    /// What it is called in a profile.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Linear(linear) => match linear.weight {
                Weight::Blocks(Blocks { bits: Bits::Eight, .. }) => "Linear.q8",
                Weight::Blocks(Blocks { bits: Bits::Four, .. }) => "Linear.q4",
                Weight::Float(_) => "Linear.f32",
                Weight::Integer(_) => "Linear.int8",
            },
            Self::Table(_) => "Table",
            Self::Norm(_) => "LayerNorm",
            Self::Gelu => "Gelu",
            Self::Sum => "Sum",
            Self::Attention(_) => "Attention",
            Self::Positions(_) => "Positions",
            Self::FirstTokens => "FirstTokens",
        }
    }
}
