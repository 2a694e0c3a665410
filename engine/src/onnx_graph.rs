//! Reads an ONNX file for tract: holds it to limits before tract sees it, and moves one step of it.
//!
//! A graph that keeps its embedding table as int8 dequantizes it before it looks rows up:
//! `Gather(Mul(Cast(table), scale), ids)`. Constant folding leaves a table of that size alone, so the whole of it would
//! be dequantized at every call. Cast and Mul work element by element, so the rows may be looked up first:
//! `Mul(Cast(Gather(table, ids)), scale of these rows)`, which gives the same bits and keeps the table int8 in memory.

use std::collections::HashMap;

use tract_onnx::{
    pb::{GraphProto, ModelProto, NodeProto, TensorProto},
    prelude::{Framework, InferenceModel},
};

/// Deepest nesting of subgraphs.
const DEPTH_MAX: usize = 4;
/// Largest tensor of the file, in elements.
const ELEMENTS_MAX: u64 = 1 << 31;

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
    /// tract does not take it.
    #[error("model.onnx uses what this engine does not know")]
    Translate(#[source] tract_onnx::prelude::TractError),
}

/// The graph in `onnx`, which has at most `nodes_max` nodes, all its data inside.
///
/// # Errors
/// Says which limit was passed or which tensor is wrong.
pub fn read(onnx: &[u8], nodes_max: usize) -> Result<InferenceModel, GraphError> {
    // Shapes that the exporter wrote down name its own symbols, which do not unify with ours; tract infers them anyway.
    let framework = tract_onnx::onnx().with_ignore_value_info(true);
    let mut reader = onnx;
    let mut model: ModelProto =
        framework.proto_model_for_read(&mut reader).map_err(GraphError::NotOnnx)?;
    let graph = model.graph.as_mut().ok_or(GraphError::NoGraph)?;
    let mut nodes_left = nodes_max;
    check(graph, nodes_max, &mut nodes_left, 0)?;
    look_up_before_dequantizing(graph);
    framework.model_for_proto_model(&model).map_err(GraphError::Translate)
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
        .filter(|elements| *elements <= ELEMENTS_MAX);
    let bytes = tensor.raw_data.len()
        + 4 * tensor.float_data.len()
        + 4 * tensor.int32_data.len()
        + 8 * tensor.int64_data.len()
        + 8 * tensor.double_data.len()
        + 8 * tensor.uint64_data.len()
        + tensor.string_data.len();
    match elements {
        Some(elements) if elements <= bytes as u64 => Ok(()),
        Some(_) | None => {
            Err(GraphError::Tensor { name: tensor.name.clone(), dims: tensor.dims.clone(), bytes })
        }
    }
}

/// One `Gather(Mul(Cast(table), scale), ids)`; each field but `scale` is the index of a node.
struct Lookup {
    cast: usize,
    multiply: usize,
    gather: usize,
    scale: String,
    scale_by_row: bool,
}

fn look_up_before_dequantizing(graph: &mut GraphProto) {
    let lookups: Vec<Lookup> =
        (0..graph.node.len()).filter_map(|gather| find_lookup(graph, gather)).collect();
    for lookup in lookups {
        rewrite(graph, &lookup);
    }
}

fn find_lookup(graph: &GraphProto, gather: usize) -> Option<Lookup> {
    let node = graph.node.get(gather).filter(|node| node.op_type == "Gather")?;
    if node.attribute.iter().any(|attribute| attribute.name == "axis" && attribute.i != 0) {
        return None;
    }
    let multiply = sole_producer(graph, node.input.first()?, "Mul")?;
    let [left, right] = graph.node.get(multiply)?.input.as_slice() else { return None };
    let (cast, scale) =
        match (sole_producer(graph, left, "Cast"), sole_producer(graph, right, "Cast")) {
            (Some(cast), None) => (cast, right),
            (None, Some(cast)) => (cast, left),
            (None, None) | (Some(_), Some(_)) => return None,
        };
    let table = initializer(graph, graph.node.get(cast)?.input.first()?)?;
    let scale_dims = initializer(graph, scale)?.dims.as_slice();
    let [rows, width] = *table.dims.as_slice() else { return None };
    let scale_by_row = match *scale_dims {
        [] => false,
        [across] => {
            if across != width && across != 1 {
                return None;
            }
            false
        }
        [down, across] if across == 1 || across == width => {
            if down != rows && down != 1 {
                return None;
            }
            down == rows
        }
        _ => return None,
    };
    Some(Lookup { cast, multiply, gather, scale: scale.clone(), scale_by_row })
}

/// The node of kind `op_type` that computes `value`, when exactly one node uses it and the graph does not return it.
fn sole_producer(graph: &GraphProto, value: &str, op_type: &str) -> Option<usize> {
    let uses = graph.node.iter().flat_map(|node| &node.input).filter(|name| *name == value).count();
    if uses != 1 || graph.output.iter().any(|output| output.name == value) {
        return None;
    }
    graph.node.iter().position(|node| {
        node.op_type == op_type
            && node.output.len() == 1
            && node.output.first().is_some_and(|name| name == value)
    })
}

fn initializer<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a TensorProto> {
    graph.initializer.iter().find(|tensor| tensor.name == name)
}

fn rewrite(graph: &mut GraphProto, lookup: &Lookup) {
    let take = |at: usize| graph.node.get(at).cloned().unwrap_or_default();
    let (mut cast, mut multiply, mut gather) =
        (take(lookup.cast), take(lookup.multiply), take(lookup.gather));
    let (Some(table), Some(ids), Some(result)) =
        (cast.input.first().cloned(), gather.input.get(1).cloned(), gather.output.first().cloned())
    else {
        return;
    };
    let rows = format!("{result}.rows");
    let rows_f = format!("{result}.rows_f");
    let mut scale = lookup.scale.clone();
    let mut scale_rows = None;
    if lookup.scale_by_row {
        let name = format!("{result}.scale");
        scale_rows = Some(NodeProto {
            name: name.clone(),
            op_type: "Gather".into(),
            input: vec![scale, ids.clone()],
            output: vec![name.clone()],
            attribute: gather.attribute.clone(),
            ..NodeProto::default()
        });
        scale = name;
    }
    gather.name.clone_from(&rows);
    gather.input = vec![table, ids];
    gather.output = vec![rows.clone()];
    cast.name.clone_from(&rows_f);
    cast.input = vec![rows];
    cast.output = vec![rows_f.clone()];
    multiply.name.clone_from(&result);
    multiply.input = vec![rows_f, scale];
    multiply.output = vec![result];
    for (at, node) in [(lookup.gather, gather), (lookup.cast, cast), (lookup.multiply, multiply)] {
        if let Some(place) = graph.node.get_mut(at) {
            *place = node;
        }
    }
    graph.node.extend(scale_rows);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::{
        pb::{
            AttributeProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto,
            TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
        },
        prelude::{InferenceModelExt as _, IntoRunnable as _, IntoTensor as _, tensor1, tvec},
    };

    const FLOAT: i32 = 1;
    const INT8: i32 = 3;
    const INT64: i32 = 7;

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

    fn value(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfoProto {
        let dim = dims.iter().map(|dim| tensor_shape_proto::Dimension {
            value: Some(tensor_shape_proto::dimension::Value::DimValue(*dim)),
            ..tensor_shape_proto::Dimension::default()
        });
        let shape = Some(TensorShapeProto { dim: dim.collect() });
        let tensor = type_proto::Tensor { elem_type, shape };
        let value = Some(type_proto::Value::TensorType(tensor));
        let r#type = Some(TypeProto { value, ..TypeProto::default() });
        ValueInfoProto { name: name.into(), r#type, ..ValueInfoProto::default() }
    }

    /// Three rows of two int8 numbers, a scale of shape `scale_dims`, and the rows 2, 0, 2 looked up.
    fn lookup(scale_dims: &[i64]) -> GraphProto {
        let scales = scale_dims.iter().product::<i64>();
        let scale: Vec<u8> = (0..scales).flat_map(|at| (0.1 + at as f32).to_le_bytes()).collect();
        let mut cast = node("Cast", &["q"], "f");
        let to = i64::from(FLOAT);
        cast.attribute.push(AttributeProto {
            name: "to".into(),
            i: to,
            r#type: 2,
            ..AttributeProto::default()
        });
        GraphProto {
            node: vec![cast, node("Mul", &["f", "s"], "w"), node("Gather", &["w", "ids"], "y")],
            initializer: vec![
                tensor("q", INT8, &[3, 2], vec![1, 2, 3, 4, 5, 251]),
                tensor("s", FLOAT, scale_dims, scale),
            ],
            input: vec![value("ids", INT64, &[3])],
            output: vec![value("y", FLOAT, &[3, 2])],
            ..GraphProto::default()
        }
    }

    fn run(graph: GraphProto) -> Vec<f32> {
        let opset = OperatorSetIdProto { version: 13, ..OperatorSetIdProto::default() };
        let model =
            ModelProto { graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
        let plan = tract_onnx::onnx().model_for_proto_model(&model).unwrap();
        let plan = plan.into_typed().unwrap().into_runnable().unwrap();
        let ids = tensor1(&[2_i64, 0, 2]);
        let found = plan.run(tvec!(ids.into())).unwrap().remove(0).into_tensor();
        found.to_plain_array_view::<f32>().unwrap().iter().copied().collect()
    }

    #[test]
    fn looking_up_first_gives_the_same_bits() {
        for scale_dims in [&[3, 1][..], &[3, 2], &[1, 2], &[1, 1], &[2], &[1], &[]] {
            let before = lookup(scale_dims);
            let mut after = before.clone();
            look_up_before_dequantizing(&mut after);
            assert_ne!(after, before, "{scale_dims:?}");
            let table_user =
                after.node.iter().find(|node| node.input.iter().any(|name| name == "q"));
            assert_eq!(table_user.unwrap().op_type, "Gather");
            assert_eq!(run(after), run(before), "{scale_dims:?}");
        }
    }

    #[test]
    fn what_is_used_elsewhere_or_looked_up_otherwise_stays() {
        let mut shared = lookup(&[3, 1]);
        shared.node.push(node("Neg", &["w"], "z"));
        let mut returned = lookup(&[3, 1]);
        returned.output.push(value("w", FLOAT, &[3, 2]));
        let mut by_column = lookup(&[3, 1]);
        let axis = AttributeProto { name: "axis".into(), i: 1, ..AttributeProto::default() };
        by_column.node[2].attribute.push(axis);
        let odd_scale = lookup(&[3]);
        for graph in [shared, returned, by_column, odd_scale] {
            let mut after = graph.clone();
            look_up_before_dequantizing(&mut after);
            assert_eq!(after, graph);
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
        for dims in [&[1 << 33, 1 << 33][..], &[-1, 4], &[1 << 40], &[17]] {
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
