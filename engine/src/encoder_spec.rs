//! What `model.toml` says of a model's graph: its inputs, its output, and how they belong to texts.

use serde::{Deserialize, Serialize};

/// `[encoder]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSpec {
    /// Inputs of the graph, each i64 of shape (1, tokens), in any order; `bytes` alone is i32 of shape (n, numbers).
    pub inputs: Vec<EncoderInput>,
    /// Name of the output, f32 of shape (1, tokens, `dim`), or (1, `dim`) when `pooling` is `none`.
    pub output: String,
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Whether the vector is scaled to length 1; the assistant needs it.
    pub normalize: bool,
    /// Width of the vector.
    pub dim: u32,
    /// What is put in front of a text.
    #[serde(default, skip_serializing_if = "Prefixes::is_empty")]
    pub prefixes: Prefixes,
}

/// What is put in front of a text before it becomes tokens: the E5 family was trained with `query: ` and `passage: `.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prefixes {
    /// In front of what is searched with.
    pub query: String,
    /// In front of what is searched.
    pub passage: String,
}

/// As what a text is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// As it stands: nothing is put in front.
    #[default]
    Plain,
    /// As what is searched with.
    Query,
    /// As what is searched.
    Passage,
}

impl InputKind {
    /// Whether nothing is put in front.
    pub const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }
}

impl Prefixes {
    /// Longest prefix, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// What goes in front of a text that is meant as `kind`.
    pub fn of(&self, kind: InputKind) -> &str {
        match kind {
            InputKind::Plain => "",
            InputKind::Query => &self.query,
            InputKind::Passage => &self.passage,
        }
    }

    /// Whether nothing is put in front of anything.
    pub const fn is_empty(&self) -> bool {
        self.query.is_empty() && self.passage.is_empty()
    }
}

/// What an input of the graph is fed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderInput {
    /// Token ids.
    InputIds,
    /// Ones: no sequence is padded here.
    AttentionMask,
    /// Zeros for the first text, ones for the second of a pair.
    TokenTypeIds,
    /// Bytes of a file, and the number that stands where it has none.
    Bytes,
}

impl EncoderInput {
    /// The name of the graph's input.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InputIds => "input_ids",
            Self::AttentionMask => "attention_mask",
            Self::TokenTypeIds => "token_type_ids",
            Self::Bytes => "bytes",
        }
    }
}

/// How token states become one vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The state of the first token.
    Cls,
    /// The state of the last token.
    Last,
    /// The graph gives one vector itself.
    None,
}

impl EncoderSpec {
    /// Whether it can take texts.
    ///
    /// # Errors
    /// Says what is impossible.
    pub fn check_text(&self) -> Result<(), String> {
        if !self.inputs.contains(&EncoderInput::InputIds) {
            return Err("lists no encoder input `input_ids`".into());
        }
        if self.inputs.contains(&EncoderInput::Bytes) {
            return Err("lists the encoder input `bytes`, which only a model of bytes has".into());
        }
        if self.inputs.iter().any(|a| self.inputs.iter().filter(|b| a == *b).count() > 1) {
            return Err("lists an encoder input twice".into());
        }
        for (which, prefix) in
            [("query", &self.prefixes.query), ("passage", &self.prefixes.passage)]
        {
            if prefix.len() > Prefixes::BYTES_MAX {
                return Err(format!(
                    "has a {which} prefix of {} bytes; allowed are {}",
                    prefix.len(),
                    Prefixes::BYTES_MAX
                ));
            }
        }
        Ok(())
    }

    /// Whether it can take the bytes of files.
    ///
    /// # Errors
    /// Says what is impossible.
    pub fn check_bytes(&self) -> Result<(), String> {
        if self.inputs != [EncoderInput::Bytes] {
            return Err("must list the one encoder input `bytes` when task = \"bytes\"".into());
        }
        if self.pooling != Pooling::None {
            return Err("must have encoder.pooling = \"none\" when task = \"bytes\"".into());
        }
        Ok(())
    }
}
