//! The files of a model package: what the reader of graphs checks before tract sees one, the tokenizer, the description.

use std::path::Path;

use engine::{
    graph::file,
    package::Spec,
    text_tokenizer::{Special, TextTokenizer},
};
use fastrand::Rng;
use serde_json::{Value, json};

use crate::{
    attacks::fuzz::{mutation, target::Target},
    hostile::onnx::{BOOL, FLOAT, Graph, Node, OUTPUT, floats, tensor},
};

/// What a text may be, and become.
const TEXT_BYTES_MAX: usize = 64 * 1024;
const TOKENS_MAX: usize = 256;
/// A text with something for each part of a tokenizer.
const TEXT: &str = "How do I reset my passwörd? [CLS] 1,234 \u{301}\u{200d}👩";

/// Graphs, through every check of the reader.
pub struct Graphs {
    good: Vec<u8>,
}

impl Graphs {
    /// From a graph with everything that is checked in it.
    pub fn new() -> anyhow::Result<Self> {
        let branch = Graph::bare().output("y", FLOAT, &["1", "tokens", "4"]).node(Node::new(
            "Relu",
            &["rows"],
            &["y"],
        ));
        let graph = Graph::new()
            .floats("table", &[8, 4], &[0.5; 32])
            .integers("axes", &[2], &[0, 1])
            .tensor(&tensor("yes", BOOL, &[], &[1]))
            .node(Node::new("Gather", &["table", "input_ids"], &["rows"]).int("axis", 0))
            .node(Node::new("Constant", &[], &["c"]).value("value", &floats("", &[1], &[1.0])))
            .node(
                Node::new("If", &["yes"], &["z"])
                    .graph("then_branch", &branch)
                    .graph("else_branch", &branch),
            )
            .node(Node::new("Mul", &["z", "c"], &[OUTPUT]));
        let good = graph.model();
        file::checked(&good, 100)?;
        Ok(Self { good })
    }
}

impl Target for Graphs {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        if random.u32(0..8) == 0 {
            return Ok(mutation::noise(random));
        }
        let mut bytes = self.good.clone();
        mutation::bytes(&mut bytes, random);
        Ok(bytes)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        Ok(file::checked(input, 100).is_ok())
    }
}

/// Tokenizers; one that is accepted also reads a text.
pub struct Tokenizers {
    good: Value,
}

impl Tokenizers {
    /// From a tokenizer with every kind of part in it.
    pub fn new() -> anyhow::Result<Self> {
        let good = tokenizer();
        let read =
            TextTokenizer::from_json(&serde_json::to_vec(&good)?, TEXT_BYTES_MAX, TOKENS_MAX)?;
        anyhow::ensure!(read.tokens("", "a password").is_ok(), "the tokenizer is not good");
        Ok(Self { good })
    }
}

impl Target for Tokenizers {
    fn name(&self) -> &'static str {
        "tokenizer"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        match random.u32(0..8) {
            0 => Ok(mutation::noise(random)),
            1 => {
                let mut bytes = serde_json::to_vec(&self.good)?;
                mutation::bytes(&mut bytes, random);
                Ok(bytes)
            }
            _ => {
                let mut tree = self.good.clone();
                mutation::json(&mut tree, random);
                Ok(serde_json::to_vec(&tree)?)
            }
        }
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        let Ok(read) = TextTokenizer::from_json(input, TEXT_BYTES_MAX, TOKENS_MAX) else {
            return Ok(false);
        };
        // What is accepted is also used, and refuses or keeps to the limit.
        if let Ok(tokens) = read.tokens("query: ", TEXT) {
            anyhow::ensure!(tokens.ids.len() <= TOKENS_MAX, "{} tokens", tokens.ids.len());
        }
        if let Ok(tokens) = read.read(TEXT, Special::Keep) {
            let parts = [tokens.tokens.len(), tokens.offsets.len(), tokens.special.len()];
            anyhow::ensure!(parts == [tokens.ids.len(); 3], "{} ids, {parts:?}", tokens.ids.len());
        }
        Ok(true)
    }
}

/// `model.toml`.
pub struct Descriptions {
    good: Vec<u8>,
}

impl Descriptions {
    /// From a good one.
    pub fn new() -> anyhow::Result<Self> {
        let good = Spec::sentence_encoder("minilm", "1.0.0", 384).to_toml()?.into_bytes();
        Ok(Self { good })
    }
}

impl Target for Descriptions {
    fn name(&self) -> &'static str {
        "model.toml"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        if random.u32(0..8) == 0 {
            return Ok(mutation::noise(random));
        }
        let mut bytes = self.good.clone();
        mutation::bytes(&mut bytes, random);
        Ok(bytes)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        let Ok(spec) = Spec::parse(Path::new("model.toml"), input) else { return Ok(false) };
        // What is accepted can be written, and names no file outside its package.
        let golden = Path::new(&spec.golden.file);
        anyhow::ensure!(spec.to_toml().is_ok(), "accepted and cannot be written");
        anyhow::ensure!(golden.components().count() == 1 && golden.is_relative(), "{golden:?}");
        Ok(true)
    }
}

fn tokenizer() -> Value {
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let words =
        ["[UNK]", "[CLS]", "[SEP]", "a", "pass", "##word", "how", "do", "i", "reset", "my", "?"];
    let vocab: serde_json::Map<String, Value> =
        (0_u32..).zip(words).map(|(id, word)| (word.to_owned(), json!(id))).collect();
    let token = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let sequence = json!({"Sequence": {"id": "A", "type_id": 0}});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": [special(1, "[CLS]"), special(2, "[SEP]")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
             "strip_accents": null, "lowercase": true},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "NFKC"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "BertPreTokenizer"},
            {"type": "Split", "pattern": {"Regex": "\\d{1,3}(?=(\\d{3})*\\b)"}, "behavior": "Isolated",
             "invert": false},
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token("[CLS]"), sequence, token("[SEP]")],
            "pair": [token("[CLS]"), sequence, token("[SEP]")],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    })
}
