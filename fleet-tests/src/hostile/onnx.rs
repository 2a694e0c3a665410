//! ONNX graphs by hand. Field numbers are those of `onnx.proto`.

use crate::hostile::proto::Proto;

/// `TensorProto.DataType`.
pub const FLOAT: i64 = 1;
/// Bytes without sign.
pub const UINT8: i64 = 2;
/// 64-bit numbers.
pub const INT64: i64 = 7;
/// Texts.
pub const STRING: i64 = 8;
/// Booleans.
pub const BOOL: i64 = 9;

/// The inputs that the package's description names.
pub const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];
/// The output that it names.
pub const OUTPUT: &str = "last_hidden_state";
/// The width of that output.
pub const WIDTH: i64 = 384;

/// A graph under construction; it has the inputs and the output that the package's description names.
#[derive(Clone, Debug)]
pub struct Graph {
    body: Proto,
}

/// An operator in it.
#[derive(Clone, Debug)]
pub struct Node(Proto);

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// With inputs and output.
    pub fn new() -> Self {
        let mut graph = Self::bare();
        for input in INPUTS {
            graph = graph.input(input, INT64, &["1", "tokens"]);
        }
        graph.output(OUTPUT, FLOAT, &["1", "tokens", "384"])
    }

    /// With nothing.
    pub fn bare() -> Self {
        Self { body: Proto::new().text(2, "graph") }
    }

    /// An input; a dimension is a number or a name.
    #[must_use]
    pub fn input(self, name: &str, kind: i64, dims: &[&str]) -> Self {
        Self { body: self.body.message(11, &value(name, kind, dims)) }
    }

    /// An output.
    #[must_use]
    pub fn output(self, name: &str, kind: i64, dims: &[&str]) -> Self {
        Self { body: self.body.message(12, &value(name, kind, dims)) }
    }

    /// An operator.
    #[must_use]
    pub fn node(self, node: Node) -> Self {
        Self { body: self.body.message(1, &node.0) }
    }

    /// A tensor.
    #[must_use]
    pub fn tensor(self, tensor: &Proto) -> Self {
        Self { body: self.body.message(5, tensor) }
    }

    /// Floats.
    #[must_use]
    pub fn floats(self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.tensor(&floats(name, dims, values))
    }

    /// Whole numbers.
    #[must_use]
    pub fn integers(self, name: &str, dims: &[i64], values: &[i64]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(&tensor(name, INT64, dims, &raw))
    }

    /// The table `table` of `rows` rows, and its rows by `input_ids` as `rows_of`: what a sound graph begins with.
    #[must_use]
    pub fn embedding(self, rows: i64, result: &str) -> Self {
        let values = vec![0.01; usize::try_from(rows * WIDTH).unwrap_or_default()];
        self.floats("table", &[rows, WIDTH], &values).node(Node::new(
            "Gather",
            &["table", "input_ids"],
            &[result],
        ))
    }

    /// The graph as a message, for a node that holds one.
    pub const fn proto(&self) -> &Proto {
        &self.body
    }

    /// The model.
    pub fn model(&self) -> Vec<u8> {
        self.model_of(17)
    }

    /// The model for version `opset` of the operators.
    pub fn model_of(&self, opset: i64) -> Vec<u8> {
        let contrib = Proto::new().text(1, "com.microsoft").number(2, 1);
        Proto::new()
            .number(1, 8)
            .message(7, &self.body)
            .message(8, &Proto::new().text(1, "").number(2, opset))
            .message(8, &contrib)
            .into_bytes()
    }
}

impl Node {
    /// `outputs = kind(inputs)`.
    pub fn new(kind: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let mut proto = Proto::new();
        for input in inputs {
            proto = proto.text(1, input);
        }
        for output in outputs {
            proto = proto.text(2, output);
        }
        Self(proto.text(4, kind))
    }

    /// Of another set of operators.
    #[must_use]
    pub fn domain(self, domain: &str) -> Self {
        Self(self.0.text(7, domain))
    }

    /// A whole number.
    #[must_use]
    pub fn int(self, name: &str, value: i64) -> Self {
        self.attribute(&Proto::new().text(1, name).number(3, value).number(20, 2))
    }

    /// Whole numbers.
    #[must_use]
    pub fn ints(self, name: &str, values: &[i64]) -> Self {
        let mut attribute = Proto::new().text(1, name);
        for value in values {
            attribute = attribute.number(8, *value);
        }
        self.attribute(&attribute.number(20, 7))
    }

    /// A text.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.attribute(&Proto::new().text(1, name).text(4, value).number(20, 3))
    }

    /// A graph.
    #[must_use]
    pub fn graph(self, name: &str, graph: &Graph) -> Self {
        self.attribute(&Proto::new().text(1, name).message(6, &graph.body).number(20, 5))
    }

    /// A tensor.
    #[must_use]
    pub fn value(self, name: &str, tensor: &Proto) -> Self {
        self.attribute(&Proto::new().text(1, name).message(5, tensor).number(20, 4))
    }

    /// An attribute as it is.
    #[must_use]
    pub fn attribute(self, attribute: &Proto) -> Self {
        Self(self.0.message(5, attribute))
    }
}

/// A tensor with raw data, whatever its dimensions say.
pub fn tensor(name: &str, kind: i64, dims: &[i64], raw: &[u8]) -> Proto {
    let mut proto = Proto::new();
    for dim in dims {
        proto = proto.number(1, *dim);
    }
    proto.number(2, kind).text(8, name).bytes(9, raw)
}

/// A tensor of floats.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> Proto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, FLOAT, dims, &raw)
}

/// A tensor whose data lies at `location`.
pub fn external(name: &str, dims: &[i64], location: &str) -> Proto {
    let mut proto = Proto::new();
    for dim in dims {
        proto = proto.number(1, *dim);
    }
    let entry = Proto::new().text(1, "location").text(2, location);
    proto.number(2, FLOAT).text(8, name).message(13, &entry).number(14, 1)
}

fn value(name: &str, kind: i64, dims: &[&str]) -> Proto {
    let mut shape = Proto::new();
    for dim in dims {
        let dim = match dim.parse() {
            Ok(number) => Proto::new().number(1, number),
            Err(_) => Proto::new().text(2, dim),
        };
        shape = shape.message(1, &dim);
    }
    let tensor = Proto::new().number(1, kind).message(2, &shape);
    Proto::new().text(1, name).message(2, &Proto::new().message(1, &tensor))
}

#[cfg(test)]
mod tests {
    use engine::tensor_model::{Given, TensorModel};
    use tract_onnx::prelude::tensor2;

    use super::*;

    /// The corpus says something only if a graph that is made in the same way and is not hostile runs.
    #[test]
    fn a_sound_graph_made_by_hand_runs() {
        let onnx = Graph::new().embedding(8, OUTPUT).model();
        let ids = tensor2(&[[1_i64, 2, 3]]);
        let model = TensorModel::load(&onnx, 100, &[Given::Shape(&ids); 3]).unwrap();
        let outputs = model.run(vec![ids.clone(), ids.clone(), ids]).unwrap();
        assert_eq!(outputs[0].shape(), [1, 3, 384]);
    }
}
