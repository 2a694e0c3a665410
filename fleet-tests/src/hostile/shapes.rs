//! Graphs whose tensors are claimed, or would become, larger than any machine.

use crate::hostile::{
    case::Case,
    onnx::{FLOAT, Graph, INT64, Node, OUTPUT, WIDTH, floats, tensor},
};

/// A number of elements that no machine holds, and whose bytes still fit into 64 bits.
const HUGE: i64 = 1 << 40;

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::model("onnx/huge-dims", || table(&[1 << 31, 1 << 31], &[0; 16]))
            .because("impossible shape"),
        Case::model("onnx/dims-overflow", || table(&[HUGE, HUGE], &[0; 16])),
        Case::model("onnx/negative-dims", || table(&[-1, WIDTH], &[0; 16])),
        Case::model("onnx/no-rows", || table(&[0, WIDTH], &[])),
        // As many bytes as elements, thus a quarter of what floats need.
        Case::model("onnx/short-data", || table(&[8, WIDTH], &[1; 8 * 384])),
        Case::model("onnx/long-data", || table(&[8, WIDTH], &[0; 8 * 384 * 4 + 4])),
        Case::model("onnx/rank-10000", || table(&[1; 10_000], &[0; 4])),
        Case::model("onnx/giant-tile", || {
            from_ids(|graph| {
                graph.integers("times", &[3], &[1, 1 << 20, 1 << 20]).node(Node::new(
                    "Tile",
                    &["rows", "times"],
                    &[OUTPUT],
                ))
            })
        }),
        Case::model("onnx/giant-one-hot", || {
            Graph::new()
                .integers("depth", &[], &[HUGE])
                .floats("values", &[2], &[0.0, 1.0])
                .node(Node::new("OneHot", &["input_ids", "depth", "values"], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/giant-constant-of-shape", || filled(&[1 << 20, 1 << 20])).quick(),
        Case::model("onnx/constant-of-shape-overflow", || filled(&[HUGE, HUGE, HUGE])),
        Case::model("onnx/constant-of-shape-negative", || filled(&[-5, 384])),
        Case::model("onnx/giant-expand", || {
            from_ids(|graph| {
                graph.integers("to", &[4], &[1 << 20, 1 << 16, 1, 1]).node(Node::new(
                    "Expand",
                    &["rows", "to"],
                    &[OUTPUT],
                ))
            })
        }),
        Case::model("onnx/giant-range", || {
            Graph::new()
                .integers("start", &[], &[0])
                .integers("end", &[], &[1 << 60])
                .integers("step", &[], &[1])
                .node(Node::new("Range", &["start", "end", "step"], &["range"]))
                .node(Node::new("Cast", &["range"], &[OUTPUT]).int("to", FLOAT))
                .model()
        }),
        Case::model("onnx/range-without-step", || {
            Graph::new()
                .integers("start", &[], &[0])
                .integers("end", &[], &[10])
                .integers("step", &[], &[0])
                .node(Node::new("Range", &["start", "end", "step"], &["range"]))
                .node(Node::new("Cast", &["range"], &[OUTPUT]).int("to", FLOAT))
                .model()
        }),
        Case::model("onnx/giant-pad", || {
            from_ids(|graph| {
                graph.integers("pads", &[6], &[0, HUGE, HUGE, 0, HUGE, HUGE]).node(Node::new(
                    "Pad",
                    &["rows", "pads"],
                    &[OUTPUT],
                ))
            })
        }),
        Case::model("onnx/negative-pad", || {
            from_ids(|graph| {
                graph.integers("pads", &[6], &[0, -1000, 0, 0, 0, -1000]).node(Node::new(
                    "Pad",
                    &["rows", "pads"],
                    &[OUTPUT],
                ))
            })
        }),
        Case::model("onnx/giant-resize", || {
            from_ids(|graph| {
                graph
                    .floats("scales", &[4], &[1.0, 1.0, 1e6, 1e6])
                    .integers("axis", &[1], &[0])
                    .node(Node::new("Unsqueeze", &["rows", "axis"], &["image"]))
                    .node(Node::new("Resize", &["image", "", "scales"], &[OUTPUT]))
            })
        }),
        Case::model("onnx/doubled-40-times", doubled),
        Case::model("onnx/giant-top-k", || {
            from_ids(|graph| {
                graph.integers("k", &[1], &[HUGE]).node(Node::new(
                    "TopK",
                    &["rows", "k"],
                    &[OUTPUT, "places"],
                ))
            })
        }),
        Case::model("onnx/giant-eye", || {
            Graph::new()
                .tensor(&tensor("few", INT64, &[2, 1], &[0; 16]))
                .node(Node::new("EyeLike", &["few"], &["eye"]).int("k", i64::MIN))
                .node(Node::new("Cast", &["eye"], &[OUTPUT]).int("to", FLOAT))
                .model()
        }),
        Case::model("onnx/giant-split", || {
            from_ids(|graph| {
                let node = Node::new("Split", &["rows"], &[OUTPUT]);
                graph.node(node.int("num_outputs", i64::MAX).int("axis", 1))
            })
        }),
    ]
}

/// A graph that looks its rows up in a table that is what `dims` say and has the bytes `raw`.
fn table(dims: &[i64], raw: &[u8]) -> Vec<u8> {
    Graph::new()
        .tensor(&tensor("table", FLOAT, dims, raw))
        .node(Node::new("Gather", &["table", "input_ids"], &[OUTPUT]))
        .model()
}

fn filled(dims: &[i64]) -> Vec<u8> {
    let rank = i64::try_from(dims.len()).unwrap_or_default();
    Graph::new()
        .integers("shape", &[rank], dims)
        .node(
            Node::new("ConstantOfShape", &["shape"], &[OUTPUT])
                .value("value", &floats("", &[1], &[0.5])),
        )
        .model()
}

/// A sound lookup with 8 rows, called `rows`, and what `more` makes of it.
fn from_ids(more: impl Fn(Graph) -> Graph) -> Vec<u8> {
    more(Graph::new().embedding(8, "rows")).model()
}

/// What is looked up, joined with itself 40 times over.
fn doubled() -> Vec<u8> {
    let mut graph = Graph::new().embedding(8, "x0");
    for at in 0..40 {
        let (from, to) =
            (format!("x{at}"), if at == 39 { OUTPUT.into() } else { format!("x{}", at + 1) });
        graph = graph.node(Node::new("Concat", &[&from, &from], &[&to]).int("axis", 1));
    }
    graph.model()
}
