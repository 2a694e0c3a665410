//! From a text to token ids, bounded in bytes before and in tokens after.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tokenizers::{
    EncodeInput, Encoding, Model as _, OffsetType, PreTokenizer as _, Tokenizer, TruncationParams,
};

use crate::{cause, sequence::Sequence};

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
    /// Where the second text of a pair begins; the number of ids for a single text.
    pub second_at: usize,
    /// Whether the text was longer and was cut.
    pub cut: bool,
}

/// A text as its tokens, for a caller that asks how it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Ids of the vocabulary.
    pub ids: Vec<u32>,
    /// Each as it stands in the vocabulary.
    pub tokens: Vec<String>,
    /// Where each begins and ends in the text, in bytes; (0, 0) for those that the model adds.
    pub offsets: Vec<(u32, u32)>,
    /// 1 for each that the model adds, else 0.
    pub special: Vec<u8>,
}

/// Whether the tokens that a model puts around a text count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Special {
    /// They are there.
    Keep,
    /// They are left out.
    Leave,
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
    /// Ids that the vocabulary does not have, or that are no text.
    #[error("ids cannot be made a text")]
    Decode(#[source] tokenizers::Error),
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
        let mut tokenizer =
            caught(|| Tokenizer::from_bytes(json)).map_err(TokenizerError::NotATokenizer)?;
        tokenizer.with_padding(None);
        let cut = TruncationParams { max_length: tokens_max, ..Default::default() };
        caught(|| tokenizer.with_truncation(Some(cut)).map(|_| ()))
            .map_err(|source| TokenizerError::Truncation { tokens_max, source })?;
        if caught(|| tokenizer.encode("", true)).is_ok_and(|added| !is_even(&added)) {
            let uneven = "a special token has more ids than names, or fewer";
            return Err(TokenizerError::NotATokenizer(uneven.into()));
        }
        Ok(Self { tokenizer, text_bytes_max, tokens_max })
    }

    /// The tokens of `text` with `prefix` in front of it.
    ///
    /// # Errors
    /// The text is empty, too long, or nothing the model knows.
    pub fn tokens(&self, prefix: &str, text: &str) -> Result<TokenSequence, TextError> {
        self.check(text)?;
        let encoding = if prefix.is_empty() {
            self.encode(text)?
        } else {
            self.encode([prefix, text].concat())?
        };
        self.sequence(&encoding)
    }

    /// The tokens of two texts that belong together, as a query and a document. When both are too long together, the
    /// longer one is cut first.
    ///
    /// # Errors
    /// As [`TextTokenizer::tokens`], of either.
    pub fn pair(&self, first: &str, second: &str) -> Result<TokenSequence, TextError> {
        self.check(first)?;
        self.check(second)?;
        self.sequence(&self.encode((first, second))?)
    }

    /// How `text` is read: never cut, up to the limit of bytes.
    ///
    /// # Errors
    /// The text is too long, or cannot be read.
    pub fn read(&self, text: &str, special: Special) -> Result<Tokens, TextError> {
        self.check_length(text)?;
        let first = caught(|| self.tokenizer.encode(text, true)).map_err(TextError::Tokenize)?;
        let mask = first.get_special_tokens_mask();
        let added = |at: &usize| mask.get(*at) == Some(&1);
        let in_front = (0..mask.len()).take_while(added).count();
        let behind = (in_front..mask.len()).rev().take_while(added).count();
        let whole = caught(|| self.uncut(text)).map_err(TextError::Tokenize)?;
        let mut tokens = Tokens::default();
        if special == Special::Keep {
            tokens.push(&first, 0..in_front);
        }
        tokens.push(&whole, 0..whole.len());
        if special == Special::Keep {
            tokens.push(&first, mask.len() - behind..mask.len());
        }
        Ok(tokens)
    }

    /// The text that `ids` stand for.
    ///
    /// # Errors
    /// The tokenizer cannot make text of them.
    pub fn decode(&self, ids: &[u32], special: Special) -> Result<String, TextError> {
        caught(|| self.tokenizer.decode(ids, special == Special::Leave)).map_err(TextError::Decode)
    }

    /// The tokens of `text` alone. What cuts texts stops reading early, so this goes the same way without it.
    fn uncut(&self, text: &str) -> tokenizers::Result<Encoding> {
        let tokenizer = &self.tokenizer;
        let added = tokenizer.get_added_vocabulary();
        let mut pieces = added.extract_and_normalize(tokenizer.get_normalizer(), text);
        if let Some(splitter) = tokenizer.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| tokenizer.get_model().tokenize(piece.get()))?;
        pieces.into_encoding(None, 0, OffsetType::Byte)
    }

    fn check(&self, text: &str) -> Result<(), TextError> {
        self.check_length(text)?;
        if text.trim().is_empty() { Err(TextError::Empty) } else { Ok(()) }
    }

    fn check_length(&self, text: &str) -> Result<(), TextError> {
        if text.len() > self.text_bytes_max {
            return Err(TextError::TooLong { bytes: text.len(), max: self.text_bytes_max });
        }
        Ok(())
    }

    fn encode<'s>(&self, input: impl Into<EncodeInput<'s>>) -> Result<Encoding, TextError> {
        // Without offsets: nobody asks where a token stood.
        caught(|| self.tokenizer.encode_fast(input, true)).map_err(TextError::Tokenize)
    }

    fn sequence(&self, encoding: &Encoding) -> Result<TokenSequence, TextError> {
        let known = encoding.get_special_tokens_mask().contains(&0);
        let mut ids = encoding.get_ids().to_vec();
        ids.truncate(self.tokens_max);
        if !known || ids.is_empty() {
            return Err(TextError::NoToken);
        }
        let second_at = encoding.get_type_ids().iter().position(|kind| *kind == 1);
        let second_at = second_at.unwrap_or(ids.len()).min(ids.len());
        Ok(TokenSequence { ids, second_at, cut: !encoding.get_overflowing().is_empty() })
    }
}

impl Tokens {
    fn push(&mut self, part: &Encoding, range: Range<usize>) {
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.ids.extend(part.get_ids().get(range.clone()).unwrap_or_default());
        self.tokens.extend_from_slice(part.get_tokens().get(range.clone()).unwrap_or_default());
        let offsets = part.get_offsets().get(range.clone()).unwrap_or_default();
        self.offsets.extend(offsets.iter().map(|(from, to)| (narrow(*from), narrow(*to))));
        let mask = part.get_special_tokens_mask().get(range).unwrap_or_default();
        self.special.extend(mask.iter().map(|mask| u8::from(*mask == 1)));
    }
}

impl TokenSequence {
    /// As the encoder takes it.
    pub fn as_sequence(&self) -> Sequence<'_> {
        Sequence { ids: &self.ids, second_at: self.second_at }
    }
}

/// Whether every token has all of its parts: a template may say otherwise of the tokens that it adds.
fn is_even(encoding: &Encoding) -> bool {
    let parts = [
        encoding.get_tokens().len(),
        encoding.get_offsets().len(),
        encoding.get_special_tokens_mask().len(),
    ];
    parts == [encoding.get_ids().len(); 3]
}

/// A tokenizer may be one that nobody tried, such as one whose template names words that it does not have: what panics in
/// it is an error.
fn caught<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    cause::caught(work).unwrap_or_else(|message| {
        Err(format!("the tokenizer made the engine panic: {message}").into())
    })
}
