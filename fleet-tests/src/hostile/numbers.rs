//! Graphs whose numbers are wrong: strides of zero, weights that are none, results of another shape, work without end.

use crate::hostile::{
    case::Case,
    onnx::{FLOAT, Graph, INT64, Node, OUTPUT, WIDTH, floats},
};

/// The cases.
pub fn cases() -> Vec<Case> {
    let mut cases = windows();
    cases.extend(results());
    cases.extend([
        Case::model("onnx/slice-without-step", || {
            rows(|graph| {
                graph
                    .integers("zero", &[1], &[0])
                    .integers("end", &[1], &[i64::MAX])
                    .node(Node::new("Slice", &["rows", "zero", "end", "zero", "zero"], &[OUTPUT]))
            })
        }),
        Case::model("onnx/divided-by-zero", || {
            rows(|graph| {
                graph
                    .integers("zero", &[1], &[0])
                    .node(Node::new("Div", &["input_ids", "zero"], &["none"]))
                    .node(Node::new("Cast", &["none"], &[OUTPUT]).int("to", FLOAT))
            })
        }),
        Case::model("onnx/least-number-divided-by-minus-one", || {
            Graph::new()
                .integers("least", &[1], &[i64::MIN])
                .integers("minus", &[1], &[-1])
                .node(Node::new("Div", &["least", "minus"], &["none"]))
                .node(Node::new("Mod", &["least", "minus"], &["rest"]))
                .node(Node::new("Add", &["none", "rest"], &["sum"]))
                .node(Node::new("Cast", &["sum"], &[OUTPUT]).int("to", FLOAT))
                .model()
        }),
        Case::model("onnx/row-out-of-table", || {
            Graph::new()
                .embedding(8, "rows")
                .integers("far", &[1], &[1 << 50])
                .node(Node::new("Gather", &["rows", "far"], &[OUTPUT]).int("axis", 1))
                .model()
        }),
        Case::model("onnx/axis-out-of-range", || {
            rows(|graph| {
                graph.node(Node::new("Softmax", &["rows"], &[OUTPUT]).int("axis", 1 << 40))
            })
        }),
        Case::model("onnx/axis-least-number", || {
            rows(|graph| {
                graph.node(Node::new("Concat", &["rows", "rows"], &[OUTPUT]).int("axis", i64::MIN))
            })
        }),
        Case::model("onnx/transposed-twice-on-one-axis", || {
            rows(|graph| {
                graph.node(Node::new("Transpose", &["rows"], &[OUTPUT]).ints("perm", &[0, 0, 7]))
            })
        }),
        Case::model("onnx/reshaped-to-minus-one-twice", || {
            rows(|graph| {
                graph.integers("to", &[3], &[-1, -1, -2]).node(Node::new(
                    "Reshape",
                    &["rows", "to"],
                    &[OUTPUT],
                ))
            })
        }),
        Case::model("onnx/equation-without-end", || {
            rows(|graph| {
                let long = "abcdefghijklmnopqrstuvwxyz".repeat(40_000);
                let equation = format!("{long},{long}->{long}");
                graph.node(
                    Node::new("Einsum", &["rows", "rows"], &[OUTPUT]).text("equation", &equation),
                )
            })
        }),
        Case::model("onnx/scale-of-zero", || {
            rows(|graph| {
                graph
                    .floats("zero", &[], &[0.0])
                    .node(Node::new("QuantizeLinear", &["rows", "zero"], &["q"]))
                    .node(Node::new("DequantizeLinear", &["q", "zero"], &[OUTPUT]))
            })
        }),
        Case::model("onnx/long-work-at-load", || work(4_000, true)),
        Case::model("onnx/long-work-at-every-text", || work(4_000, false)),
    ]);
    cases
}

fn windows() -> Vec<Case> {
    let window = |kind: &'static str, change: fn(Node) -> Node| {
        move || {
            rows(|graph| {
                let inputs: &[&str] = if kind == "Conv" { &["rows", "w"] } else { &["rows"] };
                let node = Node::new(kind, inputs, &[OUTPUT]);
                graph.floats("w", &[1, 1, 1], &[1.0]).node(change(node))
            })
        }
    };
    vec![
        Case::model(
            "onnx/strides-of-zero",
            window("MaxPool", |node| node.ints("kernel_shape", &[2]).ints("strides", &[0])),
        )
        .quick(),
        Case::model(
            "onnx/negative-strides",
            window("Conv", |node| node.ints("kernel_shape", &[1]).ints("strides", &[-1])),
        ),
        Case::model(
            "onnx/window-of-zero",
            window("AveragePool", |node| node.ints("kernel_shape", &[0])),
        ),
        Case::model(
            "onnx/window-huge",
            window("MaxPool", |node| node.ints("kernel_shape", &[1 << 40])),
        ),
        Case::model("onnx/group-of-zero", window("Conv", |node| node.int("group", 0))),
        Case::model(
            "onnx/dilations-of-zero",
            window("Conv", |node| node.ints("kernel_shape", &[1]).ints("dilations", &[0])),
        ),
        Case::model(
            "onnx/dilations-huge",
            window("Conv", |node| node.ints("kernel_shape", &[1]).ints("dilations", &[i64::MAX])),
        ),
    ]
}

fn results() -> Vec<Case> {
    let weights = |value: f32| {
        move || {
            let values = vec![value; 40_000 * 384];
            Graph::new()
                .floats("table", &[40_000, WIDTH], &values)
                .node(Node::new("Gather", &["table", "input_ids"], &[OUTPUT]))
                .model()
        }
    };
    vec![
        Case::model("onnx/weights-not-a-number", weights(f32::NAN)),
        Case::model("onnx/weights-infinite", weights(f32::INFINITY)),
        Case::model("onnx/all-texts-the-same", weights(1.0)),
        Case::model("onnx/result-too-narrow", || {
            Graph::new()
                .floats("table", &[8, 7], &[0.5; 56])
                .node(Node::new("Gather", &["table", "input_ids"], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/result-of-rank-1", || {
            Graph::new()
                .node(
                    Node::new("Constant", &[], &[OUTPUT]).value("value", &floats("", &[1], &[1.0])),
                )
                .model()
        }),
        Case::model("onnx/result-of-integers", || {
            Graph::new().node(Node::new("Identity", &["input_ids"], &[OUTPUT])).model()
        }),
        Case::model("onnx/table-of-8-rows", || Graph::new().embedding(8, OUTPUT).model()),
        Case::model("onnx/result-of-another-length", || {
            Graph::new()
                .floats("c", &[1, 5, WIDTH], &vec![0.5; 5 * 384])
                .node(Node::new("ReduceSum", &["input_ids"], &["sum"]).int("keepdims", 0))
                .node(Node::new("Cast", &["sum"], &["sum_f"]).int("to", FLOAT))
                .node(Node::new("Mul", &["c", "sum_f"], &[OUTPUT]))
                .input("extra", INT64, &["1"])
                .model()
        }),
    ]
}

fn rows(more: impl Fn(Graph) -> Graph) -> Vec<u8> {
    more(Graph::new().embedding(8, "rows")).model()
}

/// Products of matrices of 1024 × 1024, one after the other: hours of work. `constant` ones are computed while the model
/// is prepared, the others for every text.
fn work(products: usize, constant: bool) -> Vec<u8> {
    const SIDE: i64 = 1024;
    // Where it comes to texts, every token of theirs has a row.
    let rows = if constant { 8 } else { 40_000 };
    let mut graph = Graph::new()
        .embedding(rows, "rows")
        .floats("m", &[SIDE, SIDE], &vec![1e-3; 1024 * 1024])
        .floats("width", &[384, SIDE], &vec![1e-3; 384 * 1024])
        .node(
            Node::new("ReduceMean", &["rows"], &["mean"]).ints("axes", &[0, 1]).int("keepdims", 0),
        )
        .node(Node::new("ReduceMean", &["mean"], &["one"]).int("keepdims", 1));
    let first = if constant {
        "m".to_owned()
    } else {
        graph = graph.node(Node::new("Mul", &["m", "one"], &["x0"]));
        "x0".to_owned()
    };
    let mut last = first;
    for at in 1..=products {
        let next = format!("x{at}");
        graph = graph.node(Node::new("MatMul", &[&last, "m"], &[&next]));
        last = next;
    }
    graph
        .node(Node::new("ReduceMean", &[&last], &["sum"]).int("keepdims", 0))
        .node(Node::new("Add", &["rows", "sum"], &[OUTPUT]))
        .model()
}
