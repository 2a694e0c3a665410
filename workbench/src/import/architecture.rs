//! What kind of encoder a file holds: its sizes, from `config.json` or from the head of the file.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The sizes of an encoder of the BERT family.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Where positions begin: XLM-RoBERTa leaves the first rows of its table to padding.
    pub first_position: usize,
    /// Width of a token's state.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of attention in a layer.
    pub heads: usize,
    /// Width between the two linear layers of a feed-forward part.
    pub intermediate: usize,
    /// Rows of the table of words.
    pub vocabulary: usize,
    /// Rows of the table of positions.
    pub positions: usize,
    /// Rows of the table of segments; 0 for none.
    pub types: usize,
    /// Added to a variance before its root is taken.
    pub epsilon: f32,
    /// What stands on the encoder.
    pub head: Head,
}

/// What stands on the encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// Nothing: the states of the tokens are the result.
    States,
    /// BERT's: `pooler` and tanh over the first token, then `classifier`. A score for each label.
    Pooler {
        /// The labels, in the order of the scores.
        labels: Vec<String>,
    },
    /// RoBERTa's: `classifier.dense` and tanh over the first token, then `classifier.out_proj`.
    Classifier {
        /// The labels, in the order of the scores.
        labels: Vec<String>,
    },
}

/// Why a description cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// Not JSON, or a field is missing.
    #[error(
        "config.json is not the description of an encoder; take the one published with the weights"
    )]
    Parse(#[source] serde_json::Error),
    /// Something this import does not build.
    #[error(
        "{what} is `{found}`; this import builds {known}: export the model as ONNX and import that"
    )]
    Unknown {
        /// What is named.
        what: &'static str,
        /// What was found.
        found: String,
        /// What is known.
        known: &'static str,
    },
    /// A size that no encoder has.
    #[error("{what} is {found}; allowed are {least} to {most}")]
    Size {
        /// Which.
        what: &'static str,
        /// What was found.
        found: usize,
        /// Least allowed.
        least: usize,
        /// Most allowed.
        most: usize,
    },
    /// Sizes that do not fit each other.
    #[error("{heads} heads do not divide the width {hidden}")]
    Heads {
        /// Heads.
        heads: usize,
        /// Width.
        hidden: usize,
    },
}

#[derive(Debug, Deserialize)]
struct Config {
    model_type: String,
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default)]
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    pad_token_id: Option<usize>,
    #[serde(default)]
    id2label: BTreeMap<String, String>,
}

impl Architecture {
    /// What `config.json` describes.
    pub fn from_config(json: &[u8]) -> Result<Self, ArchitectureError> {
        let config: Config = serde_json::from_slice(json).map_err(ArchitectureError::Parse)?;
        let unknown = |what, found: &str, known| {
            Err(ArchitectureError::Unknown { what, found: found.chars().take(80).collect(), known })
        };
        let first_position = match config.model_type.as_str() {
            "bert" => 0,
            "xlm-roberta" | "roberta" => config.pad_token_id.unwrap_or(1).saturating_add(1),
            other => return unknown("model_type", other, "bert, xlm-roberta and roberta"),
        };
        if config.hidden_act != "gelu" {
            return unknown("hidden_act", &config.hidden_act, "gelu");
        }
        match config.position_embedding_type.as_deref() {
            None | Some("absolute") => {}
            Some(other) => return unknown("position_embedding_type", other, "absolute"),
        }
        let architecture = Self {
            first_position,
            hidden: config.hidden_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            intermediate: config.intermediate_size,
            vocabulary: config.vocab_size,
            positions: config.max_position_embeddings,
            types: config.type_vocab_size,
            epsilon: config.layer_norm_eps,
            head: head(&config)?,
        };
        architecture.check()?;
        Ok(architecture)
    }

    /// Whether such an encoder can be built.
    pub fn check(&self) -> Result<(), ArchitectureError> {
        let sizes = [
            ("width of the states", self.hidden, 1, 16_384),
            ("number of layers", self.layers, 1, 256),
            ("number of heads", self.heads, 1, 1024),
            ("width of the feed-forward part", self.intermediate, 1, 1 << 17),
            ("number of words", self.vocabulary, 1, 1 << 22),
            ("first position", self.first_position, 0, 64),
            ("number of positions", self.positions, self.first_position + 8, 1 << 16),
            ("number of segments", self.types, 0, 64),
        ];
        for (what, found, least, most) in sizes {
            if !(least..=most).contains(&found) {
                return Err(ArchitectureError::Size { what, found, least, most });
            }
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let (heads, hidden) = (self.heads, self.hidden);
            return Err(ArchitectureError::Heads { heads, hidden });
        }
        if !(0.0..=0.1).contains(&self.epsilon) {
            let found = self.epsilon.to_string();
            let known = "0 to 0.1";
            return Err(ArchitectureError::Unknown { what: "epsilon of the norms", found, known });
        }
        Ok(())
    }

    /// Longest sequence, special tokens included.
    pub const fn tokens_max(&self) -> usize {
        self.positions - self.first_position
    }
}

impl Head {
    /// The labels of its scores.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::States => &[],
            Self::Pooler { labels } | Self::Classifier { labels } => labels,
        }
    }
}

fn head(config: &Config) -> Result<Head, ArchitectureError> {
    let Some(name) = config.architectures.first() else { return Ok(Head::States) };
    let labels = || -> Result<Vec<String>, ArchitectureError> {
        let count = config.id2label.len();
        if !(1..=4096).contains(&count) {
            let what = "number of labels";
            return Err(ArchitectureError::Size { what, found: count, least: 1, most: 4096 });
        }
        let label = |at: usize| config.id2label.get(&at.to_string()).cloned();
        (0..count).map(label).collect::<Option<Vec<_>>>().ok_or_else(|| {
            let (found, known) = (format!("{:?}", config.id2label.keys()), "0, 1, 2 …");
            ArchitectureError::Unknown { what: "id2label", found, known }
        })
    };
    match name.as_str() {
        "BertModel"
        | "BertForMaskedLM"
        | "XLMRobertaModel"
        | "XLMRobertaForMaskedLM"
        | "RobertaModel"
        | "RobertaForMaskedLM" => Ok(Head::States),
        "BertForSequenceClassification" => Ok(Head::Pooler { labels: labels()? }),
        "XLMRobertaForSequenceClassification" | "RobertaForSequenceClassification" => {
            Ok(Head::Classifier { labels: labels()? })
        }
        other => Err(ArchitectureError::Unknown {
            what: "architecture",
            found: other.chars().take(80).collect(),
            known: "BertModel, XLMRobertaModel, RobertaModel and their …ForSequenceClassification",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINILM: &str = r#"{"model_type":"bert","architectures":["BertModel"],"hidden_size":384,"num_hidden_layers":6,
        "num_attention_heads":12,"intermediate_size":1536,"vocab_size":30522,"max_position_embeddings":512,
        "type_vocab_size":2,"layer_norm_eps":1e-12,"hidden_act":"gelu","pad_token_id":0}"#;

    fn read(changes: &[(&str, &str)]) -> Result<Architecture, String> {
        let json = changes.iter().fold(MINILM.to_owned(), |json, (from, to)| {
            assert!(json.contains(from), "{from}");
            json.replace(from, to)
        });
        Architecture::from_config(json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn roberta_begins_its_positions_after_the_padding() {
        assert_eq!(read(&[]).unwrap().tokens_max(), 512);
        let roberta = [
            ("\"bert\"", "\"xlm-roberta\""),
            ("512", "514"),
            ("\"pad_token_id\":0", "\"pad_token_id\":1"),
        ];
        let roberta = read(&roberta).unwrap();
        assert_eq!((roberta.first_position, roberta.tokens_max()), (2, 512));
    }

    #[test]
    fn a_head_has_its_labels_in_order() {
        let labelled = [
            ("BertModel", "BertForSequenceClassification"),
            ("\"pad_token_id\":0", "\"id2label\":{\"1\":\"spam\",\"0\":\"ham\"}"),
        ];
        assert_eq!(read(&labelled).unwrap().head.labels(), ["ham", "spam"]);
        assert_eq!(
            read(&labelled[..1]).unwrap_err(),
            "number of labels is 0; allowed are 1 to 4096"
        );
    }

    #[test]
    fn what_cannot_be_built_is_named() {
        for (from, to, expected) in [
            ("\"bert\"", "\"gpt2\"", "model_type is `gpt2`"),
            ("\"gelu\"", "\"relu\"", "hidden_act is `relu`"),
            ("BertModel", "BertForQuestionAnswering", "architecture is `BertForQuestionAnswering`"),
            ("384", "385", "12 heads do not divide the width 385"),
            (
                "\"num_hidden_layers\":6",
                "\"num_hidden_layers\":1000000",
                "number of layers is 1000000; allowed are 1 to 256",
            ),
            ("512", "4", "number of positions is 4; allowed are 8 to 65536"),
            ("1e-12", "7", "epsilon of the norms is `7`"),
            ("\"hidden_size\":384,", "", "config.json is not the description of an encoder"),
        ] {
            let refusal = read(&[(from, to)]).unwrap_err();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
    }
}
