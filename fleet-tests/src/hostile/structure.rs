//! Graphs whose structure is wrong: too long, too deep, in a circle, without what they name.

use crate::hostile::{
    case::{Case, Files},
    onnx::{BOOL, FLOAT, Graph, INT64, Node, OUTPUT, STRING, external, tensor},
    proto::Proto,
};

/// The cases.
pub fn cases() -> Vec<Case> {
    let mut cases = files_elsewhere();
    cases.extend(wrong_names());
    cases.extend(control_flow());
    cases.extend([
        Case::model("onnx/chain-of-19999", || chain(19_998)),
        Case::offer("onnx/chain-of-19999-in-a-second", |files| {
            describe(files, "load_seconds_max = 60", "load_seconds_max = 1");
            files.insert("model.onnx".into(), chain(19_998));
        })
        .because("ms of processor time, which is more than it may"),
        Case::model("onnx/chain-of-20001", || chain(20_000)),
        Case::offer("onnx/chain-of-200000", |files| {
            // The package raises its own limit as far as it may.
            describe(files, "nodes_max = 20000", "nodes_max = 1000000");
            files.insert("model.onnx".into(), chain(200_000));
        }),
        Case::model("onnx/many-tensors", || {
            let mut graph = Graph::new().embedding(8, OUTPUT);
            for at in 0..300_000 {
                graph = graph.tensor(&tensor(&format!("t{at}"), FLOAT, &[1], &[0; 4]));
            }
            graph.model()
        }),
        Case::model("onnx/many-attributes", || {
            let mut node = Node::new("Gather", &["table", "input_ids"], &[OUTPUT]);
            for at in 0..100_000 {
                node = node.int(&format!("a{at}"), at);
            }
            Graph::new().floats("table", &[1, 1], &[0.0]).node(node).model()
        }),
        Case::model("onnx/node-with-100000-inputs", || {
            let inputs = vec!["rows"; 100_000];
            let node = Node::new("Sum", &inputs, &[OUTPUT]);
            Graph::new().embedding(8, "rows").node(node).model()
        }),
    ]);
    cases
}

fn files_elsewhere() -> Vec<Case> {
    let elsewhere = |location: &'static str| {
        move || {
            Graph::new()
                .tensor(&external("table", &[8, 384], location))
                .node(Node::new("Gather", &["table", "input_ids"], &[OUTPUT]))
                .model()
        }
    };
    vec![
        Case::model("onnx/external-beside", elsewhere("tokenizer.json")),
        Case::model("onnx/external-absolute", elsewhere("/etc/passwd"))
            .because("lies in another file")
            .quick(),
        Case::model("onnx/external-dot-dot", elsewhere("../../../../etc/passwd")),
        Case::model("onnx/external-in-attribute", || {
            Graph::new()
                .node(
                    Node::new("Constant", &[], &["table"])
                        .value("value", &external("", &[8, 384], "/proc/self/environ")),
                )
                .node(Node::new("Gather", &["table", "input_ids"], &[OUTPUT]))
                .model()
        }),
    ]
}

fn wrong_names() -> Vec<Case> {
    let rows = || Graph::new().embedding(8, "rows");
    vec![
        Case::model("onnx/circle", move || {
            rows()
                .node(Node::new("Add", &["rows", "b"], &["a"]))
                .node(Node::new("Add", &["rows", "a"], &["b"]))
                .node(Node::new("Add", &["a", "b"], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/node-of-itself", move || {
            rows().node(Node::new("Add", &["rows", OUTPUT], &[OUTPUT])).model()
        }),
        Case::model("onnx/output-twice", move || {
            rows()
                .node(Node::new("Relu", &["rows"], &[OUTPUT]))
                .node(Node::new("Abs", &["rows"], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/input-not-there", move || {
            rows().node(Node::new("Add", &["rows", "nowhere"], &[OUTPUT])).model()
        }),
        Case::model("onnx/no-output", move || {
            rows().node(Node::new("Relu", &["rows"], &["elsewhere"])).model()
        }),
        Case::model("onnx/no-nodes", || Graph::new().model()),
        Case::model("onnx/other-inputs", || {
            Graph::bare()
                .input("pixels", FLOAT, &["1", "3", "224", "224"])
                .output(OUTPUT, FLOAT, &["1", "3", "224", "224"])
                .node(Node::new("Relu", &["pixels"], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/node-without-outputs", move || {
            rows()
                .node(Node::new("Relu", &["rows"], &[]))
                .node(Node::new("Relu", &["rows"], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/unknown-operator", move || {
            rows().node(Node::new("LaunchRockets", &["rows"], &[OUTPUT])).model()
        })
        .because("`LaunchRockets`")
        .quick(),
        Case::model("onnx/unknown-domain", move || {
            let node = Node::new("Relu", &["rows"], &[OUTPUT]);
            rows().node(node.domain("com.example.evil")).model()
        }),
        Case::model("onnx/version-0", move || {
            rows().node(Node::new("Relu", &["rows"], &[OUTPUT])).model_of(0)
        }),
        Case::model("onnx/version-huge", move || {
            rows().node(Node::new("Relu", &["rows"], &[OUTPUT])).model_of(i64::MAX)
        }),
        Case::model("onnx/name-of-10-mb", move || {
            let name = "n".repeat(10 << 20);
            rows()
                .node(Node::new("Relu", &["rows"], &[&name]))
                .node(Node::new("Relu", &[&name], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/name-not-utf-8", move || {
            let node = Proto::new().bytes(1, b"rows\xff").text(2, OUTPUT).text(4, "Relu");
            Proto::new().message(7, &rows().proto().clone().message(1, &node)).into_bytes()
        }),
        Case::model("onnx/names-with-control-characters", move || {
            let name = "a\u{1b}[2J\r\n\0b\u{202e}";
            rows()
                .node(Node::new("Relu", &["rows"], &[name]))
                .node(Node::new(name, &[name], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/float-plus-integer", || {
            Graph::new()
                .embedding(8, "rows")
                .node(Node::new("Add", &["rows", "input_ids"], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/table-of-texts", || {
            let texts = Proto::new().number(1, 1).number(1, 384).number(2, STRING).text(8, "table");
            let texts = (0..384).fold(texts, |texts, _| texts.text(6, "text"));
            Graph::new()
                .tensor(&texts)
                .node(Node::new("Gather", &["table", "input_ids"], &[OUTPUT]))
                .model()
        }),
        Case::model("onnx/type-9999", || {
            Graph::new()
                .tensor(&tensor("table", 9_999, &[8, 384], &[0; 8 * 384 * 4]))
                .node(Node::new("Gather", &["table", "input_ids"], &[OUTPUT]))
                .model()
        }),
    ]
}

fn control_flow() -> Vec<Case> {
    vec![
        Case::model("onnx/50-levels-of-subgraphs", || nested(50)),
        Case::model("onnx/2-levels-of-subgraphs", || nested(2)),
        Case::model("onnx/endless-loop", || {
            let body = Graph::bare()
                .input("at", INT64, &[])
                .input("go", BOOL, &[])
                .input("x", FLOAT, &["1", "tokens", "384"])
                .output("go_on", BOOL, &[])
                .output("y", FLOAT, &["1", "tokens", "384"])
                .node(Node::new("Identity", &["go"], &["go_on"]))
                .node(Node::new("Abs", &["x"], &["y"]));
            Graph::new()
                .embedding(8, "rows")
                .integers("times", &[], &[i64::MAX])
                .tensor(&tensor("yes", BOOL, &[], &[1]))
                .node(Node::new("Loop", &["times", "yes", "rows"], &[OUTPUT]).graph("body", &body))
                .model()
        }),
        Case::model("onnx/if-with-different-shapes", || {
            let branch = |width: i64| {
                Graph::bare()
                    .output("y", FLOAT, &["1", "tokens", "w"])
                    .floats("c", &[1, 1, width], &vec![0.5; usize::try_from(width).unwrap_or(1)])
                    .node(Node::new("Add", &["rows", "c"], &["y"]))
            };
            Graph::new()
                .embedding(8, "rows")
                .node(Node::new("ReduceSum", &["input_ids"], &["sum"]).int("keepdims", 0))
                .node(Node::new("Cast", &["sum"], &["is"]).int("to", BOOL))
                .node(
                    Node::new("If", &["is"], &[OUTPUT])
                        .graph("then_branch", &branch(384))
                        .graph("else_branch", &branch(7)),
                )
                .model()
        }),
        Case::model("onnx/scan-over-nothing", || {
            let body = Graph::bare()
                .input("state", FLOAT, &["384"])
                .output("next", FLOAT, &["384"])
                .node(Node::new("Identity", &["state"], &["next"]));
            Graph::new()
                .embedding(8, "rows")
                .node(
                    Node::new("Scan", &["rows"], &[OUTPUT])
                        .int("num_scan_inputs", i64::MAX)
                        .graph("body", &body),
                )
                .model()
        }),
    ]
}

/// One operator after the other, `length` of them, after the lookup.
fn chain(length: usize) -> Vec<u8> {
    let mut graph = Graph::new().embedding(8, "x0");
    for at in 0..length {
        let kind = if at % 2 == 0 { "Relu" } else { "Abs" };
        let to = if at + 1 == length { OUTPUT.to_owned() } else { format!("x{}", at + 1) };
        graph = graph.node(Node::new(kind, &[&format!("x{at}")], &[&to]));
    }
    graph.model()
}

/// An `If` in an `If`, so many times.
fn nested(levels: usize) -> Vec<u8> {
    let leaf = Graph::bare().output("y", FLOAT, &["1", "tokens", "384"]).node(Node::new(
        "Relu",
        &["rows"],
        &["y"],
    ));
    let inner = (1..levels).fold(leaf, |inner, _| {
        Graph::bare().output("y", FLOAT, &["1", "tokens", "384"]).node(
            Node::new("If", &["yes"], &["y"])
                .graph("then_branch", &inner)
                .graph("else_branch", &inner_leaf()),
        )
    });
    Graph::new()
        .embedding(8, "rows")
        .tensor(&tensor("yes", BOOL, &[], &[1]))
        .node(
            Node::new("If", &["yes"], &[OUTPUT])
                .graph("then_branch", &inner)
                .graph("else_branch", &inner_leaf()),
        )
        .model()
}

fn inner_leaf() -> Graph {
    Graph::bare().output("y", FLOAT, &["1", "tokens", "384"]).node(Node::new(
        "Abs",
        &["rows"],
        &["y"],
    ))
}

/// Changes the description as text.
pub fn describe(files: &mut Files, from: &str, to: &str) {
    if let Some(spec) = files.get_mut("model.toml") {
        let text = String::from_utf8_lossy(spec).replace(from, to);
        *spec = text.into_bytes();
    }
}
