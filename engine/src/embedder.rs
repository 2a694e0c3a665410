//! From texts to embeddings: tokenizer, batcher and encoder of one package together.

use serde::{Deserialize, Serialize};

use crate::{
    batcher,
    encoder::{EncodeError, Encoder, LoadError},
    package::Spec,
    pulse,
    text_tokenizer::{TextError, TextTokenizer, TokenSequence, TokenizerError},
};

/// What a model package needs to make embeddings.
#[derive(Debug)]
pub struct Embedder {
    tokenizer: TextTokenizer,
    encoder: Encoder,
    texts_max: usize,
    tokens_max: usize,
}

/// One text's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// [`Embedder::dim`] numbers.
    pub vector: Vec<f32>,
    /// Tokens computed.
    pub tokens: u32,
}

/// What to do with a text of more tokens than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LongText {
    /// Use its beginning.
    Cut,
    /// Refuse the request.
    Refuse,
}

/// Why an embedder cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EmbedderError {
    /// The tokenizer.
    #[error("loading the tokenizer")]
    Tokenizer(#[from] TokenizerError),
    /// The model.
    #[error("loading the model")]
    Encoder(#[from] LoadError),
}

/// Why a request has no embeddings.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// No text at all.
    #[error("request has no text: send at least one")]
    NoTexts,
    /// More texts than one request may have.
    #[error("request of {texts} texts is larger than the {max} accepted: send it in parts")]
    TooManyTexts {
        /// How many came.
        texts: usize,
        /// Most accepted.
        max: usize,
    },
    /// One text is refused.
    #[error("text {at} of the request is refused")]
    Text {
        /// Counted from 0.
        at: usize,
        /// Why.
        source: TextError,
    },
    /// One text is longer than the model takes, and the caller did not allow it to be cut.
    #[error(
        "text {at} of the request has more tokens than the model takes: shorten it, or allow it to be cut"
    )]
    TooManyTokens {
        /// Counted from 0.
        at: usize,
    },
    /// The model failed on one text.
    #[error("computing the embedding of text {at}")]
    Encode {
        /// Counted from 0.
        at: usize,
        /// Why.
        source: EncodeError,
    },
}

impl Embedder {
    /// Loads the tokenizer and the graph as `spec` says.
    ///
    /// # Errors
    /// Either is refused.
    pub fn load(spec: &Spec, onnx: &[u8], tokenizer_json: &[u8]) -> Result<Self, EmbedderError> {
        let limits = &spec.limits;
        let tokenizer = TextTokenizer::from_json(
            tokenizer_json,
            limits.text_bytes_max as usize,
            spec.tokenizer.max_tokens as usize,
        )?;
        let encoder = Encoder::load(onnx, limits.nodes_max as usize, &spec.encoder)?;
        Ok(Self {
            tokenizer,
            encoder,
            texts_max: limits.batch_max as usize,
            tokens_max: limits.tokens_max as usize,
        })
    }

    /// The embeddings of `texts`, in their order. All or none: one refused text refuses the request.
    ///
    /// # Errors
    /// Names the first text that is refused.
    pub fn embed<T: AsRef<str>>(
        &self,
        texts: &[T],
        long: LongText,
    ) -> Result<Vec<Embedding>, EmbedError> {
        if texts.is_empty() {
            return Err(EmbedError::NoTexts);
        }
        if texts.len() > self.texts_max {
            return Err(EmbedError::TooManyTexts { texts: texts.len(), max: self.texts_max });
        }
        let sequences = texts
            .iter()
            .enumerate()
            .map(|(at, text)| self.tokens(at, text.as_ref(), long))
            .collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len()).collect();
        let mut embeddings = Vec::with_capacity(sequences.len());
        for group in batcher::groups(&lengths, self.tokens_max, self.texts_max) {
            let members = sequences.get(group.clone()).unwrap_or_default();
            for (at, sequence) in group.zip(members) {
                let vector = self
                    .encoder
                    .encode(&sequence.ids)
                    .map_err(|source| EmbedError::Encode { at, source })?;
                let tokens = u32::try_from(sequence.ids.len()).unwrap_or(u32::MAX);
                embeddings.push(Embedding { vector, tokens });
            }
        }
        Ok(embeddings)
    }

    /// The embedding of one text, cut when it is long.
    ///
    /// # Errors
    /// The text is refused or the model failed on it.
    pub fn embed_one(&self, text: &str) -> Result<Embedding, EmbedError> {
        let sequence = self.tokens(0, text, LongText::Cut)?;
        let vector = self
            .encoder
            .encode(&sequence.ids)
            .map_err(|source| EmbedError::Encode { at: 0, source })?;
        Ok(Embedding { vector, tokens: u32::try_from(sequence.ids.len()).unwrap_or(u32::MAX) })
    }

    /// Width of an embedding.
    pub const fn dim(&self) -> usize {
        self.encoder.dim()
    }

    fn tokens(&self, at: usize, text: &str, long: LongText) -> Result<TokenSequence, EmbedError> {
        pulse::step(0);
        let sequence =
            self.tokenizer.tokens(text).map_err(|source| EmbedError::Text { at, source })?;
        match (sequence.cut, long) {
            (true, LongText::Refuse) => Err(EmbedError::TooManyTokens { at }),
            (true, LongText::Cut) | (false, _) => Ok(sequence),
        }
    }
}
