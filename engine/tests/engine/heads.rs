//! Models that give scores, made from one that gives states. Shared with the tests of the local API.

/// Weight of column `column` for state `at`.
fn weight(at: usize, column: usize) -> f32 {
    ((at * 7 + column * 13) % 11) as f32 / 50.0 - 0.1
}

/// `base`, an encoder that gives `last_hidden_state` of 384 numbers a token, with a linear head of `columns` columns on the
/// state of its first token, as a classifier has it: `logits`.
///
/// Two protobuf messages one after the other are read as one that has the fields of both, so the head is appended.
pub(crate) fn with_head(base: Vec<u8>, columns: usize) -> Vec<u8> {
    let weights = (0..384).flat_map(|at| (0..columns).map(move |column| weight(at, column)));
    let weights: Vec<u8> = weights.flat_map(f32::to_le_bytes).collect();
    let axis = [field(1, b"axis"), number(3, 1), number(20, 2)].concat();
    let first = [
        field(1, b"last_hidden_state"),
        field(1, b"head.first"),
        field(2, b"head.state"),
        field(4, b"Gather"),
        field(5, &axis),
    ];
    let product = [
        field(1, b"head.state"),
        field(1, b"head.weight"),
        field(2, b"logits"),
        field(4, b"MatMul"),
    ];
    let zero = [number(2, 7), field(8, b"head.first"), field(9, &0_i64.to_le_bytes())].concat();
    let weight = [
        number(1, 384),
        number(1, columns as u64),
        number(2, 1),
        field(8, b"head.weight"),
        field(9, &weights),
    ];
    let graph = [
        field(1, &first.concat()),
        field(1, &product.concat()),
        field(5, &zero),
        field(5, &weight.concat()),
    ];
    [base, field(7, &graph.concat())].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

fn field(tag: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(tag << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// The logits of `state` by the head.
pub(crate) fn logits(state: &[f32], columns: usize) -> Vec<f32> {
    let column = |column| state.iter().enumerate().map(|(at, x)| x * weight(at, column)).sum();
    (0..columns).map(column).collect()
}
