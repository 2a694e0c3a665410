//! Tensors of a `model.safetensors` as Hugging Face names them.
//!
//! Little-endian: the length of a JSON object (8 bytes), the object (for each tensor `dtype`, `shape` and
//! `data_offsets`, counted from the end of the object), the data.

use std::collections::HashMap;

use half::{bf16, f16};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::import::{
    architecture::Head,
    matrix::Matrix,
    part::{InLayer, Of, Part, Role, TensorError, Tensors, finite},
    reader::{self, ReadError, Reader},
};

const WORDS: &str = "embeddings.word_embeddings.weight";
/// As the library that defined the format allows.
const HEADER_BYTES_MAX: u64 = 100_000_000;
const TENSORS_MAX: usize = 65_536;
/// Holds remarks, no tensor.
const METADATA: &str = "__metadata__";

/// The tensors of a file.
#[derive(Debug)]
pub struct Safetensors<'a> {
    tensors: HashMap<String, Entry<'a>>,
    prefix: String,
    head: Head,
}

#[derive(Debug)]
struct Entry<'a> {
    kind: String,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

#[derive(Debug, Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// Why a file is not one.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// A field.
    #[error("model.safetensors is not whole")]
    Read(#[from] ReadError),
    /// The object in front.
    #[error("model.safetensors does not begin with a description of its tensors; fetch it again")]
    Header(#[source] serde_json::Error),
    /// More tensors than an encoder has.
    #[error("model.safetensors has {found} tensors; allowed are {TENSORS_MAX}")]
    Tensors {
        /// How many.
        found: usize,
    },
    /// A tensor outside the file, or of other bytes than its shape needs.
    #[error("tensor `{name}` of model.safetensors {what}; fetch the file again")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// No table of words.
    #[error(
        "model.safetensors has no tensor that ends in `{WORDS}`: it is no encoder of the BERT family"
    )]
    NoWords,
}

impl<'a> Safetensors<'a> {
    /// The tensors in `bytes`, of a model with `head`.
    pub fn open(bytes: &'a [u8], head: Head) -> Result<Self, SafetensorsError> {
        let mut reader = Reader::new(bytes);
        let length = reader.u64("length of the description")?;
        if length > HEADER_BYTES_MAX {
            let (what, most) = ("length of the description", HEADER_BYTES_MAX);
            return Err(ReadError::Range { what, found: length, least: 0, most }.into());
        }
        let header = reader.take("description", length)?;
        let mut header: Map<String, Value> =
            serde_json::from_slice(header).map_err(SafetensorsError::Header)?;
        header.remove(METADATA);
        if header.len() > TENSORS_MAX {
            return Err(SafetensorsError::Tensors { found: header.len() });
        }
        let data = reader.take("data", reader.left() as u64)?;
        let mut tensors = HashMap::new();
        for (name, described) in header {
            let described: Described =
                serde_json::from_value(described).map_err(SafetensorsError::Header)?;
            let entry = entry(data, described);
            let entry =
                entry.map_err(|what| SafetensorsError::Tensor { name: name.clone(), what })?;
            tensors.insert(name, entry);
        }
        let prefix = tensors.keys().find_map(|name| name.strip_suffix(WORDS));
        let prefix = prefix.ok_or(SafetensorsError::NoWords)?.to_owned();
        Ok(Self { tensors, prefix, head })
    }

    fn entry(&self, part: Part) -> Result<(String, &Entry<'a>), TensorError> {
        let name = self.name(part);
        // The first checkpoints of BERT name the tensors of a norm so.
        let old = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        let old = old.replace("LayerNorm.bias", "LayerNorm.beta");
        for name in [&name, &old] {
            if let Some(entry) = self.tensors.get(name) {
                return Ok((name.clone(), entry));
            }
        }
        Err(TensorError::Missing { name })
    }

    fn name(&self, part: Part) -> String {
        let stem = match part.of {
            Of::Words => "embeddings.word_embeddings".to_owned(),
            Of::Positions => "embeddings.position_embeddings".to_owned(),
            Of::Types => "embeddings.token_type_embeddings".to_owned(),
            Of::EmbeddingNorm => "embeddings.LayerNorm".to_owned(),
            Of::Layer(at, of) => format!("encoder.layer.{at}.{}", in_layer(of)),
            // The classifiers stand outside the encoder's prefix, BERT's pooler within.
            Of::HeadDense => match self.head {
                Head::States | Head::Pooler { .. } => "pooler.dense".to_owned(),
                Head::Classifier { .. } => return named("", "classifier.dense", part.role),
            },
            Of::HeadOut => match self.head {
                Head::States | Head::Pooler { .. } => return named("", "classifier", part.role),
                Head::Classifier { .. } => return named("", "classifier.out_proj", part.role),
            },
        };
        named(&self.prefix, &stem, part.role)
    }
}

impl Tensors for Safetensors<'_> {
    fn matrix(&self, part: Part, (rows, cols): (usize, usize)) -> Result<Matrix, TensorError> {
        let (name, entry) = self.entry(part)?;
        let values = floats(name, entry, &[rows, cols])?;
        Ok(Matrix::Float { rows, cols, values })
    }

    fn vector(&self, part: Part, length: usize) -> Result<Vec<f32>, TensorError> {
        let (name, entry) = self.entry(part)?;
        floats(name, entry, &[length])
    }
}

fn named(prefix: &str, stem: &str, role: Role) -> String {
    match role {
        Role::Weight => format!("{prefix}{stem}.weight"),
        Role::Bias => format!("{prefix}{stem}.bias"),
    }
}

const fn in_layer(of: InLayer) -> &'static str {
    match of {
        InLayer::Query => "attention.self.query",
        InLayer::Key => "attention.self.key",
        InLayer::Value => "attention.self.value",
        InLayer::AttentionOut => "attention.output.dense",
        InLayer::AttentionNorm => "attention.output.LayerNorm",
        InLayer::Up => "intermediate.dense",
        InLayer::Down => "output.dense",
        InLayer::OutNorm => "output.LayerNorm",
    }
}

fn entry(data: &[u8], described: Described) -> Result<Entry<'_>, &'static str> {
    let Described { dtype: kind, shape, data_offsets: (begin, end) } = described;
    let bytes = data.get(begin..end).ok_or("lies outside the file")?;
    let values = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    let size = match kind.as_str() {
        "F64" | "I64" | "U64" => 8,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        _ => 1,
    };
    if values.and_then(|values| values.checked_mul(size)) == Some(bytes.len()) {
        Ok(Entry { kind, shape, bytes })
    } else {
        Err("has other bytes than its shape needs")
    }
}

fn floats(name: String, entry: &Entry<'_>, expected: &[usize]) -> Result<Vec<f32>, TensorError> {
    if entry.shape != expected {
        let (found, expected) = (entry.shape.clone(), expected.to_vec());
        return Err(TensorError::Shape { name, found, expected });
    }
    let halves = || entry.bytes.as_chunks::<2>().0.iter();
    let values = match entry.kind.as_str() {
        "F32" => reader::f32s(entry.bytes),
        "F16" => halves().map(|half| f16::from_le_bytes(*half).to_f32()).collect(),
        "BF16" => halves().map(|half| bf16::from_le_bytes(*half).to_f32()).collect(),
        other => {
            let found = other.chars().take(20).collect();
            return Err(TensorError::Type { name, found, known: "F32, F16 and BF16" });
        }
    };
    finite(&name, values)
}
