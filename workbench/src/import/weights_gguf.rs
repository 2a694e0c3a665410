//! Tensors of a GGUF file, version 2 or 3, of architecture `bert`, as llama.cpp names them.
//!
//! Little-endian: magic `GGUF`, version, number of tensors, number of entries; the entries (key, type, value); the
//! directory (name, dimensions with the fastest first, type, offset); padding; the data. Read are tensors of F32, F16,
//! BF16, Q4_0 and Q8_0.

use std::collections::HashMap;

use crate::import::{
    architecture::{Architecture, ArchitectureError, Head},
    matrix::Matrix,
    part::{InLayer, Of, Part, Role, TensorError, Tensors},
    reader::{ReadError, Reader},
    stored::{Kind, Stored},
};

/// How such a file begins.
pub const MAGIC: &[u8; 4] = b"GGUF";
const TENSORS_MAX: u64 = 65_536;
const ENTRIES_MAX: u64 = 65_536;
const TEXT_BYTES_MAX: u64 = 16 << 20;
const DIMENSIONS_MAX: u32 = 4;

/// The tensors of a file.
#[derive(Debug)]
pub struct Gguf<'a> {
    /// The sizes in its entries.
    pub architecture: Architecture,
    /// How its maker pools token states, when it says so: 1 mean, 2 first token, 3 last token.
    pub pooling: Option<u64>,
    tensors: HashMap<&'a str, Stored<'a>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Number(u64),
    Float(f32),
    Text(&'a str),
    /// What is of no use here: arrays, signed numbers, truth values.
    Passed,
}

/// Why a file is not one.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// Another file.
    #[error("file does not begin with GGUF")]
    Magic,
    /// Another version.
    #[error(
        "GGUF version {0} is not read, only 2 and 3: convert the file again with a current tool"
    )]
    Version(u32),
    /// A field.
    #[error("reading the GGUF file")]
    Read(#[from] ReadError),
    /// An entry of an unknown type.
    #[error("entry `{key}` has the unknown type {kind}")]
    Entry {
        /// Its key.
        key: String,
        /// Its type.
        kind: u32,
    },
    /// An entry that must be there.
    #[error("GGUF file does not say `{0}`: it holds no encoder of the BERT family")]
    Lacks(&'static str),
    /// Another architecture.
    #[error("GGUF file holds a model of architecture `{0}`; imported is `bert`")]
    Other(String),
    /// Its sizes.
    #[error("reading the sizes of the model")]
    Architecture(#[from] ArchitectureError),
    /// A tensor outside the file.
    #[error("tensor `{name}` {what}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl<'a> Gguf<'a> {
    /// The tensors in `bytes`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let mut head = Reader::new(bytes);
        if head.take("magic", 4).ok() != Some(MAGIC) {
            return Err(GgufError::Magic);
        }
        match head.u32("version")? {
            2 | 3 => {}
            other => return Err(GgufError::Version(other)),
        }
        let tensors = bounded("number of tensors", head.u64("number of tensors")?, TENSORS_MAX)?;
        let entries = bounded("number of entries", head.u64("number of entries")?, ENTRIES_MAX)?;
        let mut said = HashMap::new();
        for _ in 0..entries {
            let key = text(&mut head, "key")?;
            let kind = head.u32("type of an entry")?;
            said.insert(key, value(&mut head, key, kind)?);
        }
        let directory =
            (0..tensors).map(|_| place(&mut head)).collect::<Result<Vec<_>, GgufError>>()?;
        let alignment = match said.get("general.alignment") {
            Some(Value::Number(bytes @ 1..=65_536)) => *bytes as usize,
            Some(_) | None => 32,
        };
        let begin = head.at().next_multiple_of(alignment);
        let data = bytes.get(begin..).unwrap_or_default();
        let tensors = directory
            .into_iter()
            .map(|(name, shape, kind, offset)| {
                Ok((name, stored(data, (name, shape, kind, offset))?))
            })
            .collect::<Result<HashMap<_, _>, GgufError>>()?;
        let architecture = architecture(&said, &tensors)?;
        let pooling = match said.get("bert.pooling_type") {
            Some(Value::Number(kind)) => Some(*kind),
            Some(_) | None => None,
        };
        Ok(Self { architecture, pooling, tensors })
    }

    fn tensor(&self, part: Part) -> Result<(String, &Stored<'a>), TensorError> {
        let name = name(part);
        match self.tensors.get(name.as_str()) {
            Some(tensor) => Ok((name, tensor)),
            None => Err(TensorError::Missing { name }),
        }
    }
}

impl Tensors for Gguf<'_> {
    fn matrix(&self, part: Part, shape: (usize, usize)) -> Result<Matrix, TensorError> {
        let (name, tensor) = self.tensor(part)?;
        tensor.matrix(name, shape)
    }

    fn vector(&self, part: Part, length: usize) -> Result<Vec<f32>, TensorError> {
        let (name, tensor) = self.tensor(part)?;
        tensor.vector(name, length)
    }
}

fn bounded(what: &'static str, found: u64, most: u64) -> Result<u64, ReadError> {
    if found <= most { Ok(found) } else { Err(ReadError::Range { what, found, least: 0, most }) }
}

fn text<'a>(head: &mut Reader<'a>, what: &'static str) -> Result<&'a str, ReadError> {
    let length = head.u64(what)?;
    head.text(what, length, TEXT_BYTES_MAX)
}

/// Bytes of a value of a type of fixed size.
const fn size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn value<'a>(head: &mut Reader<'a>, key: &str, kind: u32) -> Result<Value<'a>, GgufError> {
    Ok(match kind {
        0 => Value::Number(head.u8("value")?.into()),
        2 => Value::Number(head.u16("value")?.into()),
        4 => Value::Number(head.u32("value")?.into()),
        10 => Value::Number(head.u64("value")?),
        6 => Value::Float(head.f32("value")?),
        8 => Value::Text(text(head, "value")?),
        9 => {
            let (kind, count) = (head.u32("type of an array")?, head.u64("length of an array")?);
            match size(kind) {
                Some(size) => {
                    head.take("array", size.saturating_mul(count))?;
                }
                // A text takes at least the 8 bytes of its length, so the file bounds this loop.
                None if kind == 8 => {
                    for _ in 0..bounded("length of an array", count, head.left() as u64 / 8)? {
                        text(head, "text of an array")?;
                    }
                }
                None => return Err(GgufError::Entry { key: key.to_owned(), kind }),
            }
            Value::Passed
        }
        other => match size(other) {
            Some(size) => {
                head.take("value", size)?;
                Value::Passed
            }
            None => return Err(GgufError::Entry { key: key.to_owned(), kind }),
        },
    })
}

type Place<'a> = (&'a str, Vec<usize>, u32, u64);

fn place<'a>(head: &mut Reader<'a>) -> Result<Place<'a>, GgufError> {
    let name = text(head, "name of a tensor")?;
    let dimensions = head.count("number of dimensions", (0, DIMENSIONS_MAX))?;
    let mut shape = (0..dimensions)
        .map(|_| Ok(bounded("dimension", head.u64("dimension")?, 1 << 32)? as usize))
        .collect::<Result<Vec<_>, ReadError>>()?;
    shape.reverse();
    Ok((name, shape, head.u32("type of a tensor")?, head.u64("offset of a tensor")?))
}

fn stored<'a>(
    data: &'a [u8],
    (name, shape, kind, offset): Place<'_>,
) -> Result<Stored<'a>, GgufError> {
    let wrong = |what| GgufError::Tensor { name: name.to_owned(), what };
    let values = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    let kind = match kind {
        0 => Kind::F32,
        1 => Kind::F16,
        2 => Kind::Q4,
        8 => Kind::Q8,
        30 => Kind::Bf16,
        other => Kind::Other(other),
    };
    let bytes = values.and_then(|values| kind.bytes(values));
    let bytes = bytes.ok_or_else(|| wrong("has an impossible shape"))?;
    let begin = usize::try_from(offset).ok();
    let end = begin.and_then(|begin| begin.checked_add(bytes));
    let bytes = begin.zip(end).and_then(|(begin, end)| data.get(begin..end));
    let bytes = bytes.ok_or_else(|| wrong("lies outside the file"))?;
    Ok(Stored { kind, shape, bytes })
}

fn architecture(
    said: &HashMap<&str, Value<'_>>,
    tensors: &HashMap<&str, Stored<'_>>,
) -> Result<Architecture, GgufError> {
    match said.get("general.architecture") {
        Some(Value::Text("bert")) => {}
        Some(Value::Text(other)) => return Err(GgufError::Other(other.chars().take(80).collect())),
        Some(_) | None => return Err(GgufError::Lacks("general.architecture")),
    }
    let number = |key: &'static str| match said.get(key) {
        Some(Value::Number(number)) => Ok(usize::try_from(*number).unwrap_or(usize::MAX)),
        Some(_) | None => Err(GgufError::Lacks(key)),
    };
    let rows = |name| tensors.get(name).and_then(|tensor| tensor.shape.first().copied());
    let epsilon = match said.get("bert.attention.layer_norm_epsilon") {
        Some(Value::Float(epsilon)) => *epsilon,
        Some(_) | None => return Err(GgufError::Lacks("bert.attention.layer_norm_epsilon")),
    };
    let architecture = Architecture {
        first_position: 0,
        hidden: number("bert.embedding_length")?,
        layers: number("bert.block_count")?,
        heads: number("bert.attention.head_count")?,
        intermediate: number("bert.feed_forward_length")?,
        vocabulary: rows("token_embd.weight").ok_or(GgufError::Lacks("token_embd.weight"))?,
        positions: rows("position_embd.weight").ok_or(GgufError::Lacks("position_embd.weight"))?,
        types: rows("token_types.weight").unwrap_or(0),
        epsilon,
        head: Head::States,
    };
    architecture.check()?;
    Ok(architecture)
}

fn name(part: Part) -> String {
    let stem = match part.of {
        Of::Words => "token_embd".to_owned(),
        Of::Positions => "position_embd".to_owned(),
        Of::Types => "token_types".to_owned(),
        Of::EmbeddingNorm => "token_embd_norm".to_owned(),
        Of::Layer(at, of) => {
            let of = match of {
                InLayer::Query => "attn_q",
                InLayer::Key => "attn_k",
                InLayer::Value => "attn_v",
                InLayer::AttentionOut => "attn_output",
                InLayer::AttentionNorm => "attn_output_norm",
                InLayer::Up => "ffn_up",
                InLayer::Down => "ffn_down",
                InLayer::OutNorm => "layer_output_norm",
            };
            format!("blk.{at}.{of}")
        }
        Of::HeadDense => "cls".to_owned(),
        Of::HeadOut => "cls.output".to_owned(),
    };
    match part.role {
        Role::Weight => format!("{stem}.weight"),
        Role::Bias => format!("{stem}.bias"),
    }
}
