//! The vocabulary inside a `tokenizer.json`, and the same file with only some of its tokens.
//!
//! Kept tokens keep their order, so their new ids are their places among the kept; every place of the file that names an
//! id is written anew. A Unigram vocabulary keeps the scores of its pieces: what was the best reading of a text stays so
//! as long as its pieces are kept. A WordPiece vocabulary takes the longest piece that fits, so the same holds.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

/// Most tokens of a vocabulary.
const TOKENS_MAX: usize = 1 << 22;

/// A tokenizer's file, understood as far as cutting needs.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    file: Value,
    kind: Kind,
    /// By id; empty where the vocabulary has a hole.
    tokens: Vec<String>,
}

/// How words become tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Kind {
    /// SentencePiece's: pieces with scores, the best reading of a text is taken.
    Unigram,
    /// BERT's: the longest piece that fits, again and again.
    WordPiece,
}

/// Why a tokenizer cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// Not JSON.
    #[error("tokenizer.json is not a tokenizer: take the one that was published with the model")]
    Parse(#[source] serde_json::Error),
    /// Another kind.
    #[error(
        "tokenizer is of the kind `{0}`; Unigram and WordPiece can be cut: leave `--languages` out"
    )]
    Kind(String),
    /// A part that is missing or has another shape.
    #[error("tokenizer.json has no usable `{0}`: take the one that was published with the model")]
    Lacks(&'static str),
    /// A token that something else in the file needs has no place in the vocabulary.
    #[error("tokenizer.json names the token `{0}`, which its vocabulary does not have")]
    Stray(String),
    /// A cut tokenizer that cannot be written.
    #[error("writing the cut tokenizer")]
    Write(#[source] serde_json::Error),
}

impl Vocabulary {
    /// The vocabulary of the file `json`.
    pub fn parse(json: &[u8]) -> Result<Self, VocabularyError> {
        let file: Value = serde_json::from_slice(json).map_err(VocabularyError::Parse)?;
        let model = file.get("model").ok_or(VocabularyError::Lacks("model"))?;
        let vocabulary = model.get("vocab").ok_or(VocabularyError::Lacks("model.vocab"))?;
        let (kind, tokens) = match vocabulary {
            Value::Array(pieces) => {
                let piece = |piece: &Value| Some(piece.get(0)?.as_str()?.to_owned());
                (Kind::Unigram, pieces.iter().map(piece).collect::<Option<Vec<_>>>())
            }
            Value::Object(ids) if model.get("continuing_subword_prefix").is_some() => {
                (Kind::WordPiece, by_id(ids))
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => {
                let kind = model.get("type").and_then(Value::as_str).unwrap_or("unknown");
                return Err(VocabularyError::Kind(kind.chars().take(40).collect()));
            }
        };
        let tokens = tokens.filter(|tokens| (1..=TOKENS_MAX).contains(&tokens.len()));
        Ok(Self { kind, tokens: tokens.ok_or(VocabularyError::Lacks("model.vocab"))?, file })
    }

    /// How words become tokens.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The tokens by id.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The tokens that every cut must keep: those that are added to texts, stand for what is unknown, or are never
    /// split.
    pub fn indispensable(&self) -> Result<BTreeSet<u32>, VocabularyError> {
        let mut ids = BTreeSet::new();
        let added = self.file.get("added_tokens").and_then(Value::as_array);
        for token in added.into_iter().flatten() {
            ids.insert(id(token.get("id")).ok_or(VocabularyError::Lacks("added_tokens"))?);
        }
        ids.insert(self.unknown()?);
        match ids.iter().find(|id| **id as usize >= self.tokens.len()) {
            // Tokens that were added after the vocabulary: their rows exist, their place in the list does not.
            Some(beyond) => Err(VocabularyError::Stray(format!("number {beyond}"))),
            None => Ok(ids),
        }
    }

    /// The token that stands for what the vocabulary cannot spell.
    pub fn unknown(&self) -> Result<u32, VocabularyError> {
        let model = self.file.get("model").ok_or(VocabularyError::Lacks("model"))?;
        match self.kind {
            Kind::Unigram => id(model.get("unk_id")).ok_or(VocabularyError::Lacks("model.unk_id")),
            Kind::WordPiece => {
                let unknown = model.get("unk_token").and_then(Value::as_str);
                let unknown = unknown.ok_or(VocabularyError::Lacks("model.unk_token"))?;
                let place = self.tokens.iter().position(|token| token == unknown);
                place
                    .and_then(|place| u32::try_from(place).ok())
                    .ok_or_else(|| VocabularyError::Stray(unknown.to_owned()))
            }
        }
    }

    /// The text of a piece without the mark that says where it stands in a word.
    pub fn plain<'p>(&self, piece: &'p str) -> &'p str {
        match self.kind {
            Kind::Unigram => piece.strip_prefix('\u{2581}').unwrap_or(piece),
            Kind::WordPiece => piece.strip_prefix("##").unwrap_or(piece),
        }
    }

    /// The content of a `tokenizer.json` with only the tokens `kept`, which must hold [`Vocabulary::indispensable`].
    /// The new id of a kept token is its place in `kept`.
    pub fn cut(&self, kept: &BTreeSet<u32>) -> Result<Vec<u8>, VocabularyError> {
        let new: HashMap<u32, u32> = kept.iter().copied().zip(0..).collect();
        let mut file = self.file.clone();
        let model = file.get_mut("model").ok_or(VocabularyError::Lacks("model"))?;
        let vocabulary = model.get_mut("vocab").ok_or(VocabularyError::Lacks("model.vocab"))?;
        match vocabulary {
            Value::Array(pieces) => {
                let mut at = 0;
                pieces.retain(|_| {
                    at += 1;
                    new.contains_key(&(at - 1))
                });
            }
            Value::Object(ids) => {
                ids.retain(|_, value| id(Some(value)).is_some_and(|id| new.contains_key(&id)));
                ids.values_mut().try_for_each(|value| renumber(value, &new))?;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(VocabularyError::Lacks("model.vocab"));
            }
        }
        if let Some(unknown) = model.get_mut("unk_id").filter(|value| !value.is_null()) {
            renumber(unknown, &new)?;
        }
        let added = file.get_mut("added_tokens").and_then(Value::as_array_mut);
        for token in added.into_iter().flatten() {
            renumber(token.get_mut("id").ok_or(VocabularyError::Lacks("added_tokens"))?, &new)?;
        }
        if let Some(padding) = file.pointer_mut("/padding/pad_id") {
            renumber(padding, &new)?;
        }
        post_processor(file.get_mut("post_processor"), &new)?;
        serde_json::to_vec(&file).map_err(VocabularyError::Write)
    }
}

/// Ids stand in `special_tokens` of a template, and as the second of a pair in the older kinds.
fn post_processor(
    processor: Option<&mut Value>,
    new: &HashMap<u32, u32>,
) -> Result<(), VocabularyError> {
    let Some(processor) = processor else { return Ok(()) };
    let nested = processor.get_mut("processors").and_then(Value::as_array_mut);
    for inner in nested.into_iter().flatten() {
        post_processor(Some(inner), new)?;
    }
    let special = processor.get_mut("special_tokens").and_then(Value::as_object_mut);
    for token in special.into_iter().flat_map(Map::values_mut) {
        let ids = token.get_mut("ids").and_then(Value::as_array_mut);
        ids.into_iter().flatten().try_for_each(|value| renumber(value, new))?;
    }
    for end in ["sep", "cls"] {
        if let Some(value) = processor.get_mut(end).and_then(|pair| pair.get_mut(1)) {
            renumber(value, new)?;
        }
    }
    Ok(())
}

fn renumber(value: &mut Value, new: &HashMap<u32, u32>) -> Result<(), VocabularyError> {
    let found = id(Some(value)).and_then(|id| new.get(&id));
    *value = (*found.ok_or_else(|| VocabularyError::Stray(format!("number {value}")))?).into();
    Ok(())
}

fn id(value: Option<&Value>) -> Option<u32> {
    value?.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn by_id(ids: &Map<String, Value>) -> Option<Vec<String>> {
    let most = ids.values().map(|value| id(Some(value))).collect::<Option<Vec<_>>>()?;
    let most = most.into_iter().max()? as usize;
    // A hole in the numbering is allowed; a vocabulary that is all holes is not.
    if most >= TOKENS_MAX || most >= ids.len().saturating_mul(2) + 1024 {
        return None;
    }
    let mut tokens = vec![String::new(); most + 1];
    for (token, at) in ids {
        tokens.get_mut(id(Some(at))? as usize)?.clone_from(token);
    }
    Some(tokens)
}
