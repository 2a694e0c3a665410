//! From texts to embeddings: tokenizer, batcher and encoder of one package together.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::{
    batcher,
    encoder::{EncodeError, Encoder, LoadError},
    encoder_spec::{InputKind, Prefixes},
    package::Spec,
    pulse,
    sequence::Sequence,
    text_tokenizer::{TextError, TextTokenizer, TokenSequence, TokenizerError},
    weight_form::WeightForm,
};

/// What a model package needs to make embeddings.
#[derive(Debug)]
pub struct Embedder {
    tokenizer: TextTokenizer,
    encoder: Encoder,
    prefixes: Prefixes,
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
        let encoder =
            Encoder::load(onnx, limits.nodes_max as usize, &spec.encoder, NonZeroUsize::MIN)?;
        Ok(Self {
            tokenizer,
            encoder,
            prefixes: spec.encoder.prefixes.clone(),
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
        kind: InputKind,
        long: LongText,
    ) -> Result<Vec<Embedding>, EmbedError> {
        self.check_count(texts.len())?;
        let sequences = texts
            .iter()
            .enumerate()
            .map(|(at, text)| self.tokens(at, text.as_ref(), kind, long))
            .collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len()).collect();
        let mut embeddings = Vec::with_capacity(sequences.len());
        for group in batcher::groups(&lengths, self.tokens_max, self.texts_max) {
            let members = sequences.get(group.clone()).unwrap_or_default();
            let batch: Vec<Sequence<'_>> = members.iter().map(TokenSequence::as_sequence).collect();
            let vectors = self
                .encoder
                .encode_batch(&batch)
                .map_err(|source| EmbedError::Encode { at: group.start, source })?;
            for (vector, sequence) in vectors.into_iter().zip(members) {
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
    pub fn embed_one(&self, text: &str, kind: InputKind) -> Result<Embedding, EmbedError> {
        let sequence = self.tokens(0, text, kind, LongText::Cut)?;
        self.compute_one(&sequence)
    }

    /// What the model computes for a pair of texts, cut when it is long.
    ///
    /// # Errors
    /// A text is refused or the model failed on them.
    pub fn embed_pair(&self, first: &str, second: &str) -> Result<Embedding, EmbedError> {
        let sequence = self.pair(0, (first, second), LongText::Cut)?;
        self.compute_one(&sequence)
    }

    /// What the model computes for sequences that are computed together, in their order.
    ///
    /// # Errors
    /// The model failed on any of them.
    pub fn compute(&self, sequences: &[Sequence<'_>]) -> Result<Vec<Vec<f32>>, EncodeError> {
        self.encoder.encode_batch(sequences)
    }

    /// Whether a request may have so many texts.
    ///
    /// # Errors
    /// It has none, or too many.
    pub const fn check_count(&self, texts: usize) -> Result<(), EmbedError> {
        if texts == 0 {
            return Err(EmbedError::NoTexts);
        }
        if texts > self.texts_max {
            return Err(EmbedError::TooManyTexts { texts, max: self.texts_max });
        }
        Ok(())
    }

    /// The tokens of text `at` of a request.
    ///
    /// # Errors
    /// The text is refused.
    pub fn tokens(
        &self,
        at: usize,
        text: &str,
        kind: InputKind,
        long: LongText,
    ) -> Result<TokenSequence, EmbedError> {
        pulse::step(0);
        allowed(at, self.tokenizer.tokens(self.prefixes.of(kind), text), long)
    }

    /// The tokens of the question of an assistant, cut when it is long.
    ///
    /// # Errors
    /// The question is refused.
    pub fn question(&self, text: &str) -> Result<TokenSequence, EmbedError> {
        self.tokens(0, text, self.question_kind(), LongText::Cut)
    }

    /// The tokens of pair `at` of a request.
    ///
    /// # Errors
    /// A text is refused.
    pub fn pair(
        &self,
        at: usize,
        (first, second): (&str, &str),
        long: LongText,
    ) -> Result<TokenSequence, EmbedError> {
        pulse::step(0);
        allowed(at, self.tokenizer.pair(first, second), long)
    }

    /// Width of an embedding.
    pub const fn dim(&self) -> usize {
        self.encoder.dim()
    }

    /// In which form the model's weights are; none when it has no linear layer that was recognised.
    pub const fn weight_form(&self) -> Option<WeightForm> {
        self.encoder.weight_form()
    }

    /// How a question is meant: a query, where the model tells queries from passages.
    pub const fn question_kind(&self) -> InputKind {
        if self.prefixes.is_empty() { InputKind::Plain } else { InputKind::Query }
    }

    /// How an answer is meant: a passage, where the model tells them apart.
    pub const fn answer_kind(&self) -> InputKind {
        if self.prefixes.is_empty() { InputKind::Plain } else { InputKind::Passage }
    }

    /// What reads the texts.
    pub const fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    fn compute_one(&self, sequence: &TokenSequence) -> Result<Embedding, EmbedError> {
        let vector = self
            .encoder
            .encode(sequence.as_sequence())
            .map_err(|source| EmbedError::Encode { at: 0, source })?;
        Ok(Embedding { vector, tokens: u32::try_from(sequence.ids.len()).unwrap_or(u32::MAX) })
    }
}

fn allowed(
    at: usize,
    tokens: Result<TokenSequence, TextError>,
    long: LongText,
) -> Result<TokenSequence, EmbedError> {
    let sequence = tokens.map_err(|source| EmbedError::Text { at, source })?;
    match (sequence.cut, long) {
        (true, LongText::Refuse) => Err(EmbedError::TooManyTokens { at }),
        (true, LongText::Cut) | (false, _) => Ok(sequence),
    }
}
