//! The ONNX graph of an encoder of the BERT family, in the house format.
//!
//! Inputs are `input_ids` and `attention_mask`, i64 of shape (batch, tokens), and `token_type_ids` where pairs of texts
//! are judged; without it, the row of the first segment is part of the positions. The output is `last_hidden_state`,
//! f32 of shape (batch, tokens, width), or `logits`, f32 of shape (batch, labels), for a model with a head.

use crate::import::{
    encoder::{Encoder, Layer, Linear, Norm},
    onnx_writer::{Size, Writer, float, int, ints},
};

/// Added to the score of a token that is padding.
const MASKED: f32 = -10_000.0;

/// Whether the graph of `encoder` is told which of two texts a token belongs to.
pub fn takes_pairs(encoder: &Encoder) -> bool {
    encoder.head.is_some() && encoder.architecture.types > 1
}

/// The content of `model.onnx`.
pub fn write(encoder: &Encoder) -> Vec<u8> {
    let hidden = encoder.architecture.hidden;
    let mut writer = Writer::default();
    let sequence = [Size::Free("batch"), Size::Free("tokens")];
    writer.input("input_ids", &sequence);
    writer.input("attention_mask", &sequence);
    if takes_pairs(encoder) {
        writer.input("token_type_ids", &sequence);
    }
    constants(&mut writer, encoder);
    let embedded = embed(&mut writer, encoder);
    let mut states =
        norm(&mut writer, encoder, "embeddings.norm", &encoder.embedding_norm, &embedded);
    let all = encoder.layers.len();
    for (at, layer) in encoder.layers.iter().enumerate() {
        let output = match &encoder.head {
            None if at + 1 == all => "last_hidden_state".to_owned(),
            None | Some(_) => format!("layer.{at}"),
        };
        states = write_layer(&mut writer, encoder, (at, layer), &states, &output);
    }
    match &encoder.head {
        None => {
            let sizes = [Size::Free("batch"), Size::Free("tokens"), Size::Fixed(hidden)];
            writer.output("last_hidden_state", &sizes);
        }
        Some((dense, out)) => {
            writer.node("Gather", &[&states, "nought"], "head.first", vec![int("axis", 1)]);
            writer.linear("head.dense", dense, "head.first", "head.dense");
            writer.node("Tanh", &["head.dense"], "head.tanh", Vec::new());
            writer.linear("head.out", out, "head.tanh", "logits");
            writer.output("logits", &[Size::Free("batch"), Size::Fixed(out.bias.len())]);
        }
    }
    writer.finish("encoder")
}

fn constants(writer: &mut Writer, encoder: &Encoder) {
    let architecture = &encoder.architecture;
    let (heads, width) = (architecture.heads, architecture.hidden / architecture.heads);
    writer.numbers("nought", &[], &[0]);
    writer.numbers("one", &[], &[1]);
    writer.numbers("mask.axes", &[2], &[1, 2]);
    writer.numbers("split", &[4], &[0, 0, heads as i64, width as i64]);
    writer.numbers("merge", &[3], &[0, 0, architecture.hidden as i64]);
    writer.floats("unmasked", &[], &[1.0]);
    writer.floats("masked", &[], &[MASKED]);
    writer.floats("scale", &[], &[1.0 / (width as f32).sqrt()]);
}

fn embed(writer: &mut Writer, encoder: &Encoder) -> String {
    let hidden = encoder.architecture.hidden;
    writer.node("Cast", &["attention_mask"], "mask.float", vec![int("to", 1)]);
    writer.node("Sub", &["unmasked", "mask.float"], "mask.left_out", Vec::new());
    writer.node("Mul", &["mask.left_out", "masked"], "mask.added", Vec::new());
    writer.node("Unsqueeze", &["mask.added", "mask.axes"], "mask", Vec::new());

    writer.look_up("words", &encoder.words, "input_ids", "embeddings.words");
    writer.node("Shape", &["input_ids"], "shape", Vec::new());
    writer.node("Gather", &["shape", "one"], "tokens", vec![int("axis", 0)]);
    writer.node("Range", &["nought", "tokens", "one"], "places", Vec::new());
    let mut positions = encoder.positions.clone();
    let pairs = takes_pairs(encoder);
    if !pairs {
        let first = encoder.types.get(..hidden).unwrap_or_default();
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(first).for_each(|(value, first)| *value += first);
        }
    }
    writer.floats("positions", &[positions.len() / hidden, hidden], &positions);
    writer.node("Gather", &["positions", "places"], "embeddings.positions", vec![int("axis", 0)]);
    let placed = ["embeddings.words", "embeddings.positions"];
    let placed = writer.node("Add", &placed, "embeddings.placed", Vec::new());
    if !pairs {
        return placed;
    }
    writer.floats("types", &[encoder.types.len() / hidden, hidden], &encoder.types);
    writer.node("Gather", &["types", "token_type_ids"], "embeddings.types", vec![int("axis", 0)]);
    writer.node("Add", &[&placed, "embeddings.types"], "embeddings.sum", Vec::new())
}

fn write_layer(
    writer: &mut Writer,
    encoder: &Encoder,
    (at, layer): (usize, &Layer),
    states: &str,
    output: &str,
) -> String {
    let name = |part: &str| format!("layer.{at}.{part}");
    let mut attended = |part: &str, linear: &Linear, axes: [i64; 4]| {
        let name = name(part);
        let output = writer.linear(&name, linear, states, &name);
        let (split, turned) = (format!("{name}.split"), format!("{name}.turned"));
        writer.node("Reshape", &[&output, "split"], &split, Vec::new());
        writer.node("Transpose", &[&split], &turned, vec![ints("perm", &axes)])
    };
    let query = attended("query", &layer.query, [0, 2, 1, 3]);
    let key = attended("key", &layer.key, [0, 2, 3, 1]);
    let value = attended("value", &layer.value, [0, 2, 1, 3]);
    let scores = writer.node("MatMul", &[&query, &key], &name("scores"), Vec::new());
    let scaled = writer.node("Mul", &[&scores, "scale"], &name("scaled"), Vec::new());
    let masked = writer.node("Add", &[&scaled, "mask"], &name("masked"), Vec::new());
    let weights = writer.node("Softmax", &[&masked], &name("weights"), vec![int("axis", -1)]);
    let context = writer.node("MatMul", &[&weights, &value], &name("context"), Vec::new());
    let turned = vec![ints("perm", &[0, 2, 1, 3])];
    let turned = writer.node("Transpose", &[&context], &name("context.turned"), turned);
    let merged = writer.node("Reshape", &[&turned, "merge"], &name("context.merged"), Vec::new());
    let attention_out = name("attention_out");
    let attention = writer.linear(&attention_out, &layer.attention_out, &merged, &attention_out);
    let sum = writer.node("Add", &[states, &attention], &name("attention.sum"), Vec::new());
    let attended = norm(writer, encoder, &name("attention_norm"), &layer.attention_norm, &sum);
    let up = writer.linear(&name("up"), &layer.up, &attended, &name("up"));
    let bent = writer.node("Gelu", &[&up], &name("bent"), Vec::new());
    let down = writer.linear(&name("down"), &layer.down, &bent, &name("down"));
    let sum = writer.node("Add", &[&attended, &down], &name("sum"), Vec::new());
    norm_to(writer, encoder, &name("out_norm"), &layer.out_norm, (&sum, output))
}

fn norm(writer: &mut Writer, encoder: &Encoder, name: &str, norm: &Norm, input: &str) -> String {
    norm_to(writer, encoder, name, norm, (input, name))
}

fn norm_to(
    writer: &mut Writer,
    encoder: &Encoder,
    name: &str,
    norm: &Norm,
    (input, output): (&str, &str),
) -> String {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    writer.floats(&weight, &[norm.weight.len()], &norm.weight);
    writer.floats(&bias, &[norm.bias.len()], &norm.bias);
    let attributes = vec![int("axis", -1), float("epsilon", encoder.architecture.epsilon)];
    writer.node("LayerNormalization", &[input, &weight, &bias], output, attributes)
}
