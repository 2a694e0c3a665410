//! Reads an ONNX file, and holds it to limits before anything else sees it.

use std::collections::HashMap;

use tract_onnx::{
    pb::{GraphProto, ModelProto, TensorProto},
    prelude::Framework as _,
};

use crate::kernels::linear::packed::WeightsError;

/// Deepest nesting of subgraphs.
const DEPTH_MAX: usize = 4;
/// Largest tensor of the file, in elements.
const ELEMENTS_MAX: u64 = 1 << 31;
/// Most dimensions of a tensor.
const RANK_MAX: usize = 32;

/// Why a file is not a graph that this engine takes.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Not ONNX.
    #[error("model.onnx is not an ONNX model: export it again")]
    NotOnnx(#[source] tract_onnx::prelude::TractError),
    /// No graph in it.
    #[error("model.onnx has no graph: export it again")]
    NoGraph,
    /// Too many nodes, or nested too deep.
    #[error(
        "model.onnx has more than {max} {what}: raise the limit in model.toml if the model is meant to be so large"
    )]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A tensor that lies in another file.
    #[error(
        "tensor `{name}` of model.onnx lies in another file, which is refused: export the model into one file"
    )]
    ExternalData {
        /// The tensor.
        name: String,
    },
    /// A tensor with an impossible shape, or without the data for it.
    #[error(
        "tensor `{name}` of model.onnx has an impossible shape {dims:?} for its {bytes} bytes of data"
    )]
    Tensor {
        /// The tensor.
        name: String,
        /// The shape it claims.
        dims: Vec<i64>,
        /// What it holds.
        bytes: usize,
    },
    /// Two values of the same name.
    #[error("value `{name}` of model.onnx is computed twice")]
    Duplicate {
        /// The value.
        name: String,
    },
    /// Constants that do not fit the operator that uses them.
    #[error(
        "{op} node `{node}` of model.onnx has constants that do not fit its attributes, or attributes that this engine does not know: quantize the model again, with 4 or 8 bits"
    )]
    Constants {
        /// The operator.
        op: &'static str,
        /// The node.
        node: String,
    },
    /// Weights that cannot be packed.
    #[error("packing the weights of node `{node}` of model.onnx")]
    Weights {
        /// The node.
        node: String,
        /// Why.
        source: WeightsError,
    },
    /// The output that was asked for is not there.
    #[error("model.onnx has no output `{name}`: name one of its outputs in model.toml")]
    NoOutput {
        /// What was asked for.
        name: String,
    },
    /// An operator that neither we nor tract know.
    #[error(
        "node `{node}` of model.onnx uses the operator `{op}`, which this engine does not know: export the model with standard operators, or without this one"
    )]
    Operator {
        /// The operator, with its domain if it is not a standard one.
        op: String,
        /// The node.
        node: String,
    },
    /// tract does not take it.
    #[error("model.onnx uses what this engine does not know")]
    Translate(#[source] tract_onnx::prelude::TractError),
}

/// The file in `onnx`, whose graph has at most `nodes_max` nodes, all its data inside.
///
/// # Errors
/// Says which limit was passed or which tensor is wrong.
pub fn checked(onnx: &[u8], nodes_max: usize) -> Result<ModelProto, GraphError> {
    let mut reader = onnx;
    let model =
        tract_onnx::onnx().proto_model_for_read(&mut reader).map_err(GraphError::NotOnnx)?;
    let graph = model.graph.as_ref().ok_or(GraphError::NoGraph)?;
    let mut nodes_left = nodes_max;
    check(graph, nodes_max, &mut nodes_left, 0)?;
    Ok(model)
}

fn check(
    graph: &GraphProto,
    nodes_max: usize,
    nodes_left: &mut usize,
    depth: usize,
) -> Result<(), GraphError> {
    if depth > DEPTH_MAX {
        return Err(GraphError::TooLarge { what: "levels of subgraphs", max: DEPTH_MAX });
    }
    *nodes_left = nodes_left
        .checked_sub(graph.node.len())
        .ok_or(GraphError::TooLarge { what: "nodes", max: nodes_max })?;
    for tensor in &graph.initializer {
        check_tensor(tensor)?;
    }
    let mut computed = HashMap::new();
    for name in graph.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty()) {
        if computed.insert(name.as_str(), ()).is_some() {
            return Err(GraphError::Duplicate { name: name.clone() });
        }
    }
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        for tensor in attribute.t.iter().chain(&attribute.tensors) {
            check_tensor(tensor)?;
        }
        for inner in attribute.g.iter().chain(&attribute.graphs) {
            check(inner, nodes_max, nodes_left, depth + 1)?;
        }
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto) -> Result<(), GraphError> {
    if !tensor.external_data.is_empty() || tensor.data_location.is_some_and(|place| place != 0) {
        return Err(GraphError::ExternalData { name: tensor.name.clone() });
    }
    let elements = tensor
        .dims
        .iter()
        .try_fold(1_u64, |product, dim| product.checked_mul(u64::try_from(*dim).ok()?))
        .filter(|elements| *elements <= ELEMENTS_MAX && tensor.dims.len() <= RANK_MAX);
    let bytes = tensor.raw_data.len()
        + 4 * tensor.float_data.len()
        + 4 * tensor.int32_data.len()
        + 8 * tensor.int64_data.len()
        + 8 * tensor.double_data.len()
        + 8 * tensor.uint64_data.len()
        + tensor.string_data.len();
    let fits = elements.is_some_and(|elements| match raw_width(tensor.data_type) {
        Some(width) if !tensor.raw_data.is_empty() => {
            elements.checked_mul(width) == Some(tensor.raw_data.len() as u64)
        }
        Some(_) | None => elements <= bytes as u64,
    });
    if fits {
        return Ok(());
    }
    let dims = tensor.dims.iter().copied().take(RANK_MAX).collect();
    Err(GraphError::Tensor { name: tensor.name.clone(), dims, bytes })
}

/// Bytes of one element in raw data, by the number of its type in ONNX; none for types that tract does not have.
const fn raw_width(data_type: i32) -> Option<u64> {
    match data_type {
        2 | 3 | 9 => Some(1),
        4 | 5 | 10 => Some(2),
        1 | 6 | 12 => Some(4),
        7 | 11 | 13 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::{AttributeProto, NodeProto, StringStringEntryProto};

    const FLOAT: i32 = 1;

    fn node(op_type: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op_type.into(),
            input: input.iter().copied().map(Into::into).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    fn tensor(name: &str, data_type: i32, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
        TensorProto {
            name: name.into(),
            data_type,
            dims: dims.to_vec(),
            raw_data,
            ..TensorProto::default()
        }
    }

    #[test]
    fn hostile_graphs_are_refused_before_tract_sees_them() {
        let refuse = |graph: &GraphProto| {
            let mut left = 8;
            check(graph, 8, &mut left, 0).map_err(|reason| reason.to_string()).unwrap_err()
        };
        let with =
            |tensor: TensorProto| GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        assert!(check(&with(tensor("w", FLOAT, &[2, 2], vec![0; 16])), 8, &mut 8, 0).is_ok());
        let impossible =
            [&[1 << 33, 1 << 33][..], &[-1, 4], &[1 << 40], &[17], &[3], &[5], &[1; RANK_MAX + 1]];
        for dims in impossible {
            let said = refuse(&with(tensor("w", FLOAT, dims, vec![0; 16])));
            assert!(said.starts_with("tensor `w` of model.onnx has an impossible shape"), "{said}");
        }
        let mut outside = tensor("w", FLOAT, &[4], vec![0; 16]);
        outside
            .external_data
            .push(StringStringEntryProto { key: "location".into(), value: "../x".into() });
        assert!(
            refuse(&with(outside)).starts_with("tensor `w` of model.onnx lies in another file")
        );
        let twice = GraphProto {
            node: vec![node("Neg", &["x"], "y"), node("Abs", &["x"], "y")],
            ..GraphProto::default()
        };
        assert_eq!(refuse(&twice), "value `y` of model.onnx is computed twice");
        let many = GraphProto { node: vec![NodeProto::default(); 9], ..GraphProto::default() };
        assert!(refuse(&many).starts_with("model.onnx has more than 8 nodes"));
        let mut deep = GraphProto::default();
        for _ in 0..6 {
            let mut outer = node("If", &[], "");
            outer.attribute.push(AttributeProto { g: Some(deep), ..AttributeProto::default() });
            deep = GraphProto { node: vec![outer], ..GraphProto::default() };
        }
        assert!(refuse(&deep).starts_with("model.onnx has more than 4 levels of subgraphs"));
    }
}
