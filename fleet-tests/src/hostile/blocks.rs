//! The operators of the house format with block sizes, types and data that do not fit together.

use crate::hostile::{
    case::Case,
    onnx::{FLOAT, Graph, Node, OUTPUT, UINT8, tensor},
};

/// How a linear layer in blocks is described.
#[derive(Clone, Copy)]
struct Linear {
    k: i64,
    n: i64,
    bits: i64,
    block: i64,
    /// Bytes of packed weights.
    packed: usize,
    /// Scales.
    scales: usize,
    /// The shape of the packed weights.
    dims: [i64; 3],
}

/// 384 to 384 in 8 bits and blocks of 32: sound.
const SOUND: Linear = Linear {
    k: 384,
    n: 384,
    bits: 8,
    block: 32,
    packed: 384 * 384,
    scales: 384 * 12,
    dims: [384, 12, 32],
};

/// The cases.
pub fn cases() -> Vec<Case> {
    let linear =
        |name, changed: fn(Linear) -> Linear| Case::model(name, move || model(changed(SOUND)));
    vec![
        linear("blocks/size-0", |of| Linear { block: 0, ..of }),
        linear("blocks/size-negative", |of| Linear { block: -32, ..of }),
        linear("blocks/size-huge", |of| Linear { block: 1 << 62, ..of }),
        linear("blocks/size-33", |of| Linear { block: 33, ..of }),
        linear("blocks/bits-0", |of| Linear { bits: 0, ..of }),
        linear("blocks/bits-3", |of| Linear { bits: 3, ..of }),
        linear("blocks/bits-64", |of| Linear { bits: 64, ..of }),
        linear("blocks/k-0", |of| Linear { k: 0, ..of }),
        linear("blocks/k-of-another-width", |of| Linear { k: 768, ..of }),
        linear("blocks/k-huge", |of| Linear { k: i64::MAX, ..of }),
        linear("blocks/n-negative", |of| Linear { n: -384, ..of }),
        linear("blocks/n-huge", |of| Linear { n: 1 << 60, ..of }),
        linear("blocks/weights-short", |of| Linear { packed: 384, dims: [1, 12, 32], ..of }),
        linear("blocks/scales-short", |of| Linear { scales: 1, ..of }).quick(),
        linear("blocks/scales-none", |of| Linear { scales: 0, ..of }),
        Case::model("blocks/table-axis-out-of-range", || table(32, 7, 8 * 384)),
        Case::model("blocks/table-size-0", || table(0, 0, 8 * 384)),
        Case::model("blocks/table-size-7", || table(7, 0, 8 * 384)),
        Case::model("blocks/table-short", || table(32, 0, 384)),
    ]
}

fn model(of: Linear) -> Vec<u8> {
    let scales = i64::try_from(of.scales).unwrap_or_default();
    let node = Node::new("MatMulNBits", &["rows", "packed", "scales"], &[OUTPUT])
        .domain("com.microsoft")
        .int("K", of.k)
        .int("N", of.n)
        .int("bits", of.bits)
        .int("block_size", of.block)
        .int("accuracy_level", 4);
    Graph::new()
        .embedding(8, "rows")
        .tensor(&tensor("packed", UINT8, &of.dims, &vec![129; of.packed]))
        .tensor(&tensor("scales", FLOAT, &[scales], &vec![60; of.scales * 4]))
        .node(node)
        .model()
}

/// A table of 8 rows in blocks of `block` whose packed numbers are `bytes` bytes.
fn table(block: i64, axis: i64, bytes: usize) -> Vec<u8> {
    let rows = i64::try_from(bytes / 384).unwrap_or_default();
    let node = Node::new("GatherBlockQuantized", &["table", "input_ids", "scales"], &[OUTPUT])
        .domain("com.microsoft")
        .int("bits", 8)
        .int("block_size", block)
        .int("gather_axis", axis)
        .int("quantize_axis", 1);
    Graph::new()
        .tensor(&tensor("table", UINT8, &[rows, 384], &vec![129; bytes]))
        .tensor(&tensor("scales", FLOAT, &[8, 12], &[60; 8 * 12 * 4]))
        .node(node)
        .model()
}
