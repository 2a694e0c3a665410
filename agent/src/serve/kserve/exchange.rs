//! An inference request and its answer, whatever carries them.

use bytes::Bytes;

use crate::serve::refused::Refused;

/// A request whose tensors are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inference {
    /// Repeated by the response.
    pub id: Option<String>,
    /// Whether long texts may be cut.
    pub truncate: bool,
    /// The tensors.
    pub inputs: Vec<Input>,
    /// Outputs to give; all when empty.
    pub wanted: Vec<String>,
}

/// A tensor of type BYTES: all that any model here takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Name.
    pub name: String,
    /// Its elements, as many as its shape says.
    pub elements: Vec<Bytes>,
}

/// What a model gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Name.
    pub name: &'static str,
    /// Shape.
    pub shape: Vec<usize>,
    /// Its numbers or texts, as many as its shape says.
    pub values: Values,
}

/// The elements of an output.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// f32, little-endian.
    Fp32(Bytes),
    /// Texts.
    Bytes(Vec<String>),
}

impl Values {
    /// The protocol's name of the type.
    pub const fn datatype(&self) -> &'static str {
        match self {
            Self::Fp32(_) => FP32,
            Self::Bytes(_) => BYTES,
        }
    }

    /// The numbers; none of texts.
    pub fn numbers(&self) -> impl Iterator<Item = f32> + '_ {
        let bytes: &[u8] = match self {
            Self::Fp32(bytes) => bytes,
            Self::Bytes(_) => &[],
        };
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word))
    }
}

/// f32.
pub const FP32: &str = "FP32";
/// Byte strings, texts among them.
pub const BYTES: &str = "BYTES";

/// How many elements an input of this type and shape has.
///
/// # Errors
/// The type is not BYTES, or the shape is neither `[n]` nor `[n, 1]`.
pub fn element_count(name: &str, datatype: &str, shape: &[i64]) -> Result<usize, Refused> {
    if datatype != BYTES {
        let message =
            format!("input `{}` has datatype `{}`; it must be BYTES", shown(name), shown(datatype));
        return Err(Refused::bad("datatype", message));
    }
    let count = match shape {
        [count] | [count, 1] => usize::try_from(*count).ok(),
        _ => None,
    };
    count.ok_or_else(|| {
        let mut text = format!("{shape:?}");
        text.truncate(80);
        let message = format!("input `{}` has shape {text}; it must be [n] or [n, 1]", shown(name));
        Refused::bad("shape", message)
    })
}

/// That there are as many elements as the shape says.
///
/// # Errors
/// There are more or fewer.
pub fn check_count(
    name: &str,
    shape: &[i64],
    wanted: usize,
    elements: usize,
) -> Result<(), Refused> {
    if wanted == elements {
        return Ok(());
    }
    let message =
        format!("input `{}` has shape {shape:?} but {elements} elements of data", shown(name));
    Err(Refused::bad("shape", message))
}

/// Refuses a parameter that asks for what is not here.
///
/// # Errors
/// It is one of those.
pub fn refuse_parameter(owner: &str, key: &str) -> Result<(), Refused> {
    let why = match key {
        "shared_memory_region" | "shared_memory_offset" | "shared_memory_byte_size" => {
            "this server shares no memory with its clients; send the data itself"
        }
        "classification" => {
            "this server does not pick classes out of a tensor; take all its values"
        }
        "sequence_id" | "sequence_start" | "sequence_end" => {
            "no model here keeps state between requests"
        }
        _ => return Ok(()),
    };
    Err(Refused::bad("parameter", format!("`{}` has parameter `{key}`: {why}", shown(owner))))
}

/// A name of the caller's as it may stand in a message.
pub fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}
