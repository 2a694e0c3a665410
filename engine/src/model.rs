//! A model package that is loaded and can be asked.

use protocol::digest::Digest;

use crate::{
    assistant::{Answer, Assistant, AssistantError},
    embedder::{EmbedError, Embedder, EmbedderError},
    faq::{self, FaqError},
    golden::{self, GoldenError, GoldenReport, GoldenSet},
    index::{Index, IndexError},
    package::{FAQ_FILE, INDEX_FILE, MODEL_FILE, Package, PackageError, Spec, TOKENIZER_FILE},
};

/// A loaded package.
#[derive(Debug)]
pub struct Model {
    spec: Spec,
    embedder: Embedder,
    assistant: Option<Assistant>,
    golden: GoldenSet,
}

/// Why a package cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file.
    #[error("opening the package")]
    Package(#[from] PackageError),
    /// A file changed after the package was opened.
    #[error("`{file}` changed while the package was being loaded: load it again")]
    Changed {
        /// The file.
        file: &'static str,
    },
    /// Tokenizer or graph.
    #[error("loading `{name}`")]
    Embedder {
        /// The model.
        name: String,
        /// Why.
        source: EmbedderError,
    },
    /// The entries.
    #[error("reading the FAQ of the package")]
    Faq(#[from] FaqError),
    /// The index.
    #[error("reading the index of the package")]
    Index(#[from] IndexError),
    /// The entries and the index together.
    #[error("making the assistant of the package")]
    Assistant(#[from] AssistantError),
    /// The golden set.
    #[error("reading the golden set of the package")]
    Golden(#[from] GoldenError),
}

/// Why a question has no answer, not even an abstention.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The model only makes embeddings.
    #[error("model `{model}` is no assistant: ask it for embeddings, or ask another model")]
    NotAnAssistant {
        /// The model.
        model: String,
    },
    /// The question is refused, or the model failed on it.
    #[error("asking the model")]
    Embed(#[from] EmbedError),
}

impl Model {
    /// Loads an opened package: this runs the model, so it belongs in a worker process.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(package: &Package) -> Result<Self, ModelError> {
        let spec = package.spec.clone();
        let golden = GoldenSet::parse(&package.read(&spec.golden.file)?)?;
        let tokenizer = package.read(TOKENIZER_FILE)?;
        let onnx = package.read(MODEL_FILE)?;
        if Digest::of(&onnx) != package.model_digest {
            return Err(ModelError::Changed { file: MODEL_FILE });
        }
        let embedder = Embedder::load(&spec, &onnx, &tokenizer)
            .map_err(|source| ModelError::Embedder { name: spec.name.clone(), source })?;
        drop(onnx);
        let assistant = match &spec.assistant {
            None => None,
            Some(assistant) => {
                let faq_bytes = package.read(FAQ_FILE)?;
                let entries = (faq::parse(&faq_bytes)?, Digest::of(&faq_bytes));
                let index = Index::decode(&package.read(INDEX_FILE)?)?;
                let model = (package.model_digest, embedder.dim());
                Some(Assistant::new(entries, index, model, assistant.thresholds.clone())?)
            }
        };
        if assistant.is_none() && !golden.answers.is_empty() {
            return Err(GoldenError::NotAnAssistant.into());
        }
        Ok(Self { spec, embedder, assistant, golden })
    }

    /// What the package says of itself.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What makes the embeddings.
    pub const fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// What answers, if the package is an assistant.
    pub const fn assistant(&self) -> Option<&Assistant> {
        self.assistant.as_ref()
    }

    /// The answer to `question`, or an abstention; see [`Assistant::answer`] for `lang`.
    ///
    /// # Errors
    /// The model is no assistant, or the question is refused.
    pub fn ask(&self, question: &str, lang: Option<&str>) -> Result<Answer<'_>, AskError> {
        let assistant = self
            .assistant
            .as_ref()
            .ok_or_else(|| AskError::NotAnAssistant { model: self.spec.name.clone() })?;
        let embedding = self.embedder.embed_one(question, self.embedder.question_kind())?;
        Ok(assistant.answer(&embedding.vector, lang))
    }

    /// Tries the package's golden set; see [`golden::check`].
    ///
    /// # Errors
    /// The golden set does not belong to such a model.
    pub fn check_golden(&self, now_us: impl Fn() -> u64) -> Result<GoldenReport, GoldenError> {
        let parts = (&self.embedder, self.assistant.as_ref());
        golden::check(parts, &self.golden, &self.spec.golden, now_us)
    }
}
