//! The weights of an encoder of the BERT family, put together from a file.

use crate::import::{
    architecture::{Architecture, Head},
    matrix::{Format, Matrix, Purpose},
    part::{InLayer, Of, Part, Role, TensorError, Tensors},
};

/// An encoder.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// Its sizes.
    pub architecture: Architecture,
    /// The table of words.
    pub words: Matrix,
    /// The table of positions from the first one on, `tokens_max × hidden`.
    pub positions: Vec<f32>,
    /// The table of segments, `types × hidden`.
    pub types: Vec<f32>,
    /// The norm over their sum.
    pub embedding_norm: Norm,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Linear layers of the head: first with tanh behind it, then the one that gives the scores.
    pub head: Option<(Linear, Linear)>,
}

/// A linear layer.
#[derive(Debug, Clone)]
pub struct Linear {
    /// A row for each output.
    pub weight: Matrix,
    /// A number for each output.
    pub bias: Vec<f32>,
}

/// The factors and terms of a norm.
#[derive(Debug, Clone)]
pub struct Norm {
    /// Factors.
    pub weight: Vec<f32>,
    /// Terms.
    pub bias: Vec<f32>,
}

/// A layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Queries.
    pub query: Linear,
    /// Keys.
    pub key: Linear,
    /// Values.
    pub value: Linear,
    /// Output of the attention.
    pub attention_out: Linear,
    /// The norm after it.
    pub attention_norm: Norm,
    /// The wide linear layer.
    pub up: Linear,
    /// Back to the width of the states.
    pub down: Linear,
    /// The norm after it.
    pub out_norm: Norm,
}

impl Encoder {
    /// The encoder that `file` holds. `progress` is called with (done, all) after each layer.
    pub fn read(
        architecture: Architecture,
        file: &dyn Tensors,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, TensorError> {
        let hidden = architecture.hidden;
        let table = |of: Of, rows: usize| {
            file.matrix(Part { of, role: Role::Weight }, (rows, hidden)).map(|table| table.values())
        };
        let words = Part { of: Of::Words, role: Role::Weight };
        let words = file.matrix(words, (architecture.vocabulary, hidden))?;
        let mut positions = table(Of::Positions, architecture.positions)?;
        positions.drain(..architecture.first_position * hidden);
        let types = match architecture.types {
            0 => Vec::new(),
            types => table(Of::Types, types)?,
        };
        let embedding_norm = norm(file, Of::EmbeddingNorm, hidden)?;
        let mut layers = Vec::with_capacity(architecture.layers);
        for at in 0..architecture.layers {
            layers.push(layer(file, at, hidden, architecture.intermediate)?);
            progress(at + 1, architecture.layers);
        }
        let head = match &architecture.head {
            Head::States => None,
            Head::Pooler { labels } | Head::Classifier { labels } => Some((
                linear(file, Of::HeadDense, (hidden, hidden))?,
                linear(file, Of::HeadOut, (labels.len(), hidden))?,
            )),
        };
        Ok(Self { architecture, words, positions, types, embedding_norm, layers, head })
    }

    /// The same with its table and linear layers in `format`. `progress` is called with (done, all) after each layer.
    pub fn into_format(self, format: Format, mut progress: impl FnMut(usize, usize)) -> Self {
        let all = self.layers.len();
        let layers = self.layers.into_iter().enumerate().map(|(at, layer)| {
            let layer = layer.into_format(format);
            progress(at + 1, all);
            layer
        });
        let layers = layers.collect();
        let head =
            self.head.map(|(dense, out)| (dense.into_format(format), out.into_format(format)));
        Self { words: self.words.into_format(format, Purpose::Table), layers, head, ..self }
    }

    /// The same with only the rows `kept` of its table of words.
    pub fn with_words(self, kept: &[u32]) -> Self {
        Self { words: self.words.select(kept), ..self }
    }
}

impl Layer {
    fn into_format(self, format: Format) -> Self {
        Self {
            query: self.query.into_format(format),
            key: self.key.into_format(format),
            value: self.value.into_format(format),
            attention_out: self.attention_out.into_format(format),
            up: self.up.into_format(format),
            down: self.down.into_format(format),
            ..self
        }
    }
}

impl Linear {
    fn into_format(self, format: Format) -> Self {
        Self { weight: self.weight.into_format(format, Purpose::Linear), ..self }
    }
}

fn layer(
    file: &dyn Tensors,
    at: usize,
    hidden: usize,
    intermediate: usize,
) -> Result<Layer, TensorError> {
    let linear = |part, shape| linear(file, Of::Layer(at, part), shape);
    let norm = |part| norm(file, Of::Layer(at, part), hidden);
    Ok(Layer {
        query: linear(InLayer::Query, (hidden, hidden))?,
        key: linear(InLayer::Key, (hidden, hidden))?,
        value: linear(InLayer::Value, (hidden, hidden))?,
        attention_out: linear(InLayer::AttentionOut, (hidden, hidden))?,
        attention_norm: norm(InLayer::AttentionNorm)?,
        up: linear(InLayer::Up, (intermediate, hidden))?,
        down: linear(InLayer::Down, (hidden, intermediate))?,
        out_norm: norm(InLayer::OutNorm)?,
    })
}

fn linear(file: &dyn Tensors, of: Of, shape: (usize, usize)) -> Result<Linear, TensorError> {
    let weight = file.matrix(Part { of, role: Role::Weight }, shape)?;
    let bias = file.vector(Part { of, role: Role::Bias }, shape.0)?;
    Ok(Linear { weight, bias })
}

fn norm(file: &dyn Tensors, of: Of, hidden: usize) -> Result<Norm, TensorError> {
    let weight = file.vector(Part { of, role: Role::Weight }, hidden)?;
    let bias = file.vector(Part { of, role: Role::Bias }, hidden)?;
    Ok(Norm { weight, bias })
}
