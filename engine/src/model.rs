//! A model package that is loaded and can be asked.

use protocol::digest::Digest;

use crate::{
    assistant::{Answer, Asked, Assistant, AssistantError, Rule},
    bytes_model::BytesModel,
    cause::chain,
    embedder::{EmbedError, Embedder, EmbedderError},
    encoder::{EncodeError, LoadError},
    faq::{self, FaqError},
    golden::{self, GoldenError, GoldenInput, GoldenReport, GoldenSet},
    head,
    index::{Index, IndexError},
    package::{
        FAQ_FILE, INDEX_FILE, MODEL_FILE, Package, PackageError, Spec, TOKENIZER_FILE, Task,
    },
    sequence::Sequence,
    text_tokenizer::TokenSequence,
    weight_form::WeightForm,
};

/// A loaded package.
#[derive(Debug)]
pub struct Model {
    spec: Spec,
    parts: Parts,
    golden: GoldenSet,
}

#[derive(Debug)]
enum Parts {
    Text { embedder: Box<Embedder>, assistant: Option<Box<Assistant>> },
    Bytes(BytesModel),
}

/// One input, ready to be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Of a model of texts.
    Tokens(TokenSequence),
    /// Of a model of bytes.
    Window(Vec<i32>),
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
    /// The graph of a model of bytes.
    #[error("loading `{name}`")]
    Bytes {
        /// The model.
        name: String,
        /// Why.
        source: LoadError,
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
    /// The model does something else.
    #[error(transparent)]
    WrongTask(#[from] WrongTask),
    /// The question is refused, or the model failed on it.
    #[error("asking the model")]
    Embed(#[from] EmbedError),
}

/// A model is asked for what it does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model `{model}` does not give {wanted}, its task is {}: ask another model", format!("{task:?}").to_lowercase())]
pub struct WrongTask {
    /// The model.
    pub model: String,
    /// What was asked for.
    pub wanted: &'static str,
    /// What it does.
    pub task: Task,
}

impl Input {
    /// How many tokens, or numbers.
    pub fn tokens(&self) -> u32 {
        let length = match self {
            Self::Tokens(sequence) => sequence.ids.len(),
            Self::Window(window) => window.len(),
        };
        u32::try_from(length).unwrap_or(u32::MAX)
    }
}

impl Model {
    /// Loads an opened package: this runs the model, so it belongs in a worker process.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(package: &Package) -> Result<Self, ModelError> {
        let spec = package.spec.clone();
        let golden = GoldenSet::parse(&package.read(&spec.golden.file)?)?;
        let onnx = package.read(MODEL_FILE)?;
        if Digest::of(&onnx) != package.model_digest {
            return Err(ModelError::Changed { file: MODEL_FILE });
        }
        let tokenizer = match spec.task {
            Task::Bytes => Vec::new(),
            Task::Embedding | Task::Assistant | Task::Classification | Task::Rerank => {
                package.read(TOKENIZER_FILE)?
            }
        };
        let mut model = Self::assemble(spec, &onnx, &tokenizer)?;
        drop(onnx);
        if let Parts::Text { embedder, assistant } = &mut model.parts {
            *assistant = load_assistant(package, &model.spec, embedder)?.map(Box::new);
        }
        golden.check_task(model.spec.task)?;
        Ok(Self { golden, ..model })
    }

    /// A model that is no package yet: without the entries of an assistant, and with an empty golden set. A model of
    /// bytes has no tokenizer.
    ///
    /// # Errors
    /// The tokenizer or the graph is refused.
    pub fn assemble(spec: Spec, onnx: &[u8], tokenizer: &[u8]) -> Result<Self, ModelError> {
        let name = || spec.name.clone();
        let parts = match spec.task {
            Task::Bytes => {
                let (nodes_max, window) =
                    (spec.limits.nodes_max as usize, spec.tokenizer.max_tokens as usize);
                let model = BytesModel::load(onnx, nodes_max, &spec.encoder, window);
                Parts::Bytes(model.map_err(|source| ModelError::Bytes { name: name(), source })?)
            }
            Task::Embedding | Task::Assistant | Task::Classification | Task::Rerank => {
                let embedder = Embedder::load(&spec, onnx, tokenizer)
                    .map_err(|source| ModelError::Embedder { name: name(), source })?;
                Parts::Text { embedder: Box::new(embedder), assistant: None }
            }
        };
        let golden = GoldenSet {
            schema: golden::SCHEMA,
            embeddings: Vec::new(),
            answers: Vec::new(),
            scores: Vec::new(),
        };
        Ok(Self { spec, parts, golden })
    }

    /// What the package says of itself.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What reads and computes texts, for someone who wants `wanted`.
    ///
    /// # Errors
    /// It is a model of bytes.
    pub fn embedder(&self, wanted: &'static str) -> Result<&Embedder, WrongTask> {
        match &self.parts {
            Parts::Text { embedder, .. } => Ok(embedder),
            Parts::Bytes(_) => Err(self.wrong_task(wanted)),
        }
    }

    /// What answers.
    ///
    /// # Errors
    /// The package is no assistant.
    pub fn assistant(&self) -> Result<&Assistant, WrongTask> {
        match &self.parts {
            Parts::Text { assistant: Some(assistant), .. } => Ok(&**assistant),
            Parts::Text { assistant: None, .. } | Parts::Bytes(_) => {
                Err(self.wrong_task("answers"))
            }
        }
    }

    /// In which form its weights are; none of a model of bytes.
    pub const fn weight_form(&self) -> Option<WeightForm> {
        match &self.parts {
            Parts::Text { embedder, .. } => embedder.weight_form(),
            Parts::Bytes(_) => None,
        }
    }

    /// That this model does not give `wanted`.
    pub fn wrong_task(&self, wanted: &'static str) -> WrongTask {
        WrongTask { model: self.spec.name.clone(), wanted, task: self.spec.task }
    }

    /// What the model gives for `inputs`, computed together, in their order: vectors or logits.
    ///
    /// # Errors
    /// The model failed on any of them.
    pub fn compute(&self, inputs: &[&Input]) -> Result<Vec<Vec<f32>>, EncodeError> {
        match &self.parts {
            Parts::Text { embedder, .. } => {
                let sequences: Vec<Sequence<'_>> =
                    inputs.iter().filter_map(|input| input.sequence()).collect();
                embedder.compute(&sequences)
            }
            Parts::Bytes(model) => {
                let rows: Vec<&[i32]> = inputs.iter().filter_map(|input| input.window()).collect();
                model.compute(&rows)
            }
        }
    }

    /// Makes scores of the logits of one input; says which label holds, if one does.
    pub fn score(&self, logits: &mut [f32]) -> Option<&str> {
        if let Some(classification) = &self.spec.classification {
            classification.activation.apply(logits);
            let (at, _) = head::best(logits)?;
            return classification.labels.get(at).map(String::as_str);
        }
        if let Some(rerank) = &self.spec.rerank {
            rerank.activation.apply(logits);
            return None;
        }
        self.spec.bytes.as_ref()?.label(logits)
    }

    /// The answer to `question`, or an abstention; see [`Assistant::answer`] for `lang`.
    ///
    /// # Errors
    /// The model is no assistant, or the question is refused.
    pub fn ask(&self, question: &str, lang: Option<&str>) -> Result<Answer<'_>, AskError> {
        let assistant = self.assistant()?;
        let embedder = self.embedder("answers")?;
        let embedding = embedder.embed_one(question, embedder.question_kind())?;
        Ok(assistant.answer(Asked { text: question, vector: &embedding.vector }, lang))
    }

    /// The answer to a question whose embedding was computed.
    ///
    /// # Errors
    /// The model is no assistant.
    pub fn answer(&self, asked: Asked<'_>, lang: Option<&str>) -> Result<Answer<'_>, WrongTask> {
        Ok(self.assistant()?.answer(asked, lang))
    }

    /// The scores of one input, computed by itself, for golden sets.
    ///
    /// # Errors
    /// Says why not, for a person.
    pub fn scores(&self, input: &GoldenInput) -> Result<Vec<f32>, String> {
        let mut logits = match (&self.parts, input) {
            (Parts::Text { embedder, .. }, GoldenInput::Text(text)) => {
                let kind = embedder.question_kind();
                embedder.embed_one(text, kind).map_err(|reason| chain(&reason))?.vector
            }
            (Parts::Text { embedder, .. }, GoldenInput::Pair(first, second)) => {
                embedder.embed_pair(first, second).map_err(|reason| chain(&reason))?.vector
            }
            (Parts::Bytes(model), GoldenInput::Bytes(file)) => {
                let bytes = self.spec.bytes.as_ref();
                let window = bytes.map(|bytes| bytes.window(file, file)).unwrap_or_default();
                let rows = model.compute(&[&window]).map_err(|reason| chain(&reason))?;
                rows.into_iter().next().unwrap_or_default()
            }
            (Parts::Text { .. }, GoldenInput::Bytes(_))
            | (Parts::Bytes(_), GoldenInput::Text(_) | GoldenInput::Pair(..)) => {
                return Err("this input is of another kind than the model's".into());
            }
        };
        self.score(&mut logits);
        Ok(logits)
    }

    /// Tries the package's golden set; see [`golden::check`].
    ///
    /// # Errors
    /// The golden set does not belong to such a model.
    pub fn check_golden(&self, now_us: impl Fn() -> u64) -> Result<GoldenReport, GoldenError> {
        let scores = |input: &GoldenInput| self.scores(input);
        let (embedder, assistant) = match &self.parts {
            Parts::Text { embedder, assistant } => (Some(&**embedder), assistant.as_deref()),
            Parts::Bytes(_) => (None, None),
        };
        let parts = golden::Parts { embedder, assistant, scores: &scores };
        golden::check(&parts, &self.golden, &self.spec.golden, now_us)
    }

    /// Runs it a few times, so that the first request finds everything in place.
    ///
    /// # Errors
    /// The model failed.
    pub fn warm_up(&self) -> Result<(), EncodeError> {
        let most = self.spec.tokenizer.max_tokens as usize;
        match &self.parts {
            Parts::Text { embedder, .. } => {
                for tokens in WARM_UP_TOKENS {
                    embedder.compute(&[Sequence::single(&vec![1; tokens.min(most)])])?;
                }
            }
            // Each of its plans was run when it was loaded.
            Parts::Bytes(_) => {}
        }
        Ok(())
    }
}

/// Lengths of the sequences that a model of texts is warmed up with.
const WARM_UP_TOKENS: [usize; 3] = [64, 16, 8];

fn load_assistant(
    package: &Package,
    spec: &Spec,
    embedder: &Embedder,
) -> Result<Option<Assistant>, ModelError> {
    let Some(assistant) = &spec.assistant else { return Ok(None) };
    let faq_bytes = package.read(FAQ_FILE)?;
    let entries = (faq::parse(&faq_bytes)?, Digest::of(&faq_bytes));
    let index = Index::decode(&package.read(INDEX_FILE)?)?;
    let model = (package.model_digest, embedder.dim());
    let rule = Rule { blend: assistant.blend, thresholds: assistant.thresholds.clone() };
    Ok(Some(Assistant::new(entries, index, model, rule)?))
}

impl Input {
    fn sequence(&self) -> Option<Sequence<'_>> {
        match self {
            Self::Tokens(sequence) => Some(sequence.as_sequence()),
            Self::Window(_) => None,
        }
    }

    fn window(&self) -> Option<&[i32]> {
        match self {
            Self::Window(window) => Some(window),
            Self::Tokens(_) => None,
        }
    }
}
