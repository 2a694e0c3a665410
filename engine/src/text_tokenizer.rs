//! From a text to token ids, bounded in bytes before and in tokens after.

use tokenizers::{Tokenizer, TruncationParams};

/// Reads text as one model does.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    text_bytes_max: usize,
    tokens_max: usize,
}

/// A text as the encoder takes it: 1 to `tokens_max` ids, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSequence {
    /// Ids of the vocabulary.
    pub ids: Vec<u32>,
    /// Whether the text was longer and was cut.
    pub cut: bool,
}

/// Why a `tokenizer.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Not a tokenizer.
    #[error("tokenizer.json is not a tokenizer: take the one that was published with the model")]
    NotATokenizer(#[source] tokenizers::Error),
    /// It cannot be held to the length.
    #[error("tokenizer cannot be held to {tokens_max} tokens")]
    Truncation {
        /// The length.
        tokens_max: usize,
        /// Why.
        source: tokenizers::Error,
    },
}

/// Why a text has no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// Nothing, or white space alone.
    #[error("text is empty: send at least one word")]
    Empty,
    /// More bytes than are accepted.
    #[error(
        "text of {bytes} bytes is longer than the {max} accepted: shorten it or send it in parts"
    )]
    TooLong {
        /// Its size.
        bytes: usize,
        /// Largest accepted.
        max: usize,
    },
    /// The tokenizer failed on it.
    #[error("text cannot be tokenized")]
    Tokenize(#[source] tokenizers::Error),
    /// The tokenizer found nothing in it that the model knows.
    #[error("text has no token that the model knows: send at least one word")]
    NoToken,
}

impl TextTokenizer {
    /// The tokenizer in `json`, which accepts texts of at most `text_bytes_max` bytes and cuts them at `tokens_max`
    /// tokens. Padding that the file asks for is switched off: sequences are ragged here.
    ///
    /// # Errors
    /// `json` is not a tokenizer, or its special tokens alone exceed `tokens_max`.
    pub fn from_json(
        json: &[u8],
        text_bytes_max: usize,
        tokens_max: usize,
    ) -> Result<Self, TokenizerError> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(TokenizerError::NotATokenizer)?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length: tokens_max,
                ..Default::default()
            }))
            .map_err(|source| TokenizerError::Truncation { tokens_max, source })?;
        Ok(Self { tokenizer, text_bytes_max, tokens_max })
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// The text is empty, too long, or nothing the model knows.
    pub fn tokens(&self, text: &str) -> Result<TokenSequence, TextError> {
        if text.len() > self.text_bytes_max {
            return Err(TextError::TooLong { bytes: text.len(), max: self.text_bytes_max });
        }
        if text.trim().is_empty() {
            return Err(TextError::Empty);
        }
        let encoding = self.tokenizer.encode(text, true).map_err(TextError::Tokenize)?;
        let known = encoding.get_special_tokens_mask().contains(&0);
        let mut ids = encoding.get_ids().to_vec();
        ids.truncate(self.tokens_max);
        if !known || ids.is_empty() {
            return Err(TextError::NoToken);
        }
        Ok(TokenSequence { ids, cut: !encoding.get_overflowing().is_empty() })
    }
}
