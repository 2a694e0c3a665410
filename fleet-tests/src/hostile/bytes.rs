//! Files that are no ONNX: cut, claiming lengths that they have not, or something else altogether.

use crate::hostile::{
    case::Case,
    onnx::{Graph, OUTPUT},
    proto::Proto,
};

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::offer("bytes/cut-in-the-middle", |files| {
            if let Some(onnx) = files.get_mut("model.onnx") {
                onnx.truncate(onnx.len() / 2);
            }
        })
        .because("is not an ONNX model")
        .quick(),
        Case::offer("bytes/one-bit-in-thousand-flipped", |files| {
            if let Some(onnx) = files.get_mut("model.onnx") {
                onnx.iter_mut().step_by(125).for_each(|byte| *byte ^= 0x10);
            }
        }),
        Case::model("bytes/empty", Vec::new),
        Case::model("bytes/a-web-page", || b"<html><body>404 Not Found</body></html>".to_vec()),
        Case::model("bytes/zeros", || vec![0; 1 << 20]),
        Case::model("bytes/length-of-2-to-63", || {
            Proto::new().number(1, 8).claim(7, 1 << 63).into_bytes()
        }),
        Case::model("bytes/length-of-4-gb", || {
            Proto::new().message(7, &Proto::new().claim(5, u64::from(u32::MAX))).into_bytes()
        }),
        Case::model("bytes/number-that-does-not-end", || {
            Proto::new().raw(&[0xff; 4096]).into_bytes()
        }),
        Case::model("bytes/100000-levels-of-groups", || {
            // The start of group 3, over and over: a reader that recurses runs out of stack.
            Proto::new().raw(&[0x1b; 100_000]).into_bytes()
        }),
        Case::model("bytes/100000-levels-of-messages", || {
            // A graph's node's attribute's graph's node's …
            let mut inner = Proto::new();
            for at in 0..2_000_usize {
                let field = *[6_u32, 5, 1].get(at % 3).unwrap_or(&1);
                inner = Proto::new().message(field, &inner);
            }
            Proto::new().message(7, &inner).into_bytes()
        }),
        Case::model("bytes/no-graph", || Proto::new().number(1, 8).into_bytes()),
        Case::model("bytes/two-graphs", || {
            let graph = Graph::new().embedding(8, OUTPUT);
            Proto::new().message(7, graph.proto()).message(7, graph.proto()).into_bytes()
        }),
        Case::model("bytes/something-behind", || {
            let mut model = Graph::new().embedding(8, OUTPUT).model();
            model.extend_from_slice(&[0xff; 64]);
            model
        }),
    ]
}
