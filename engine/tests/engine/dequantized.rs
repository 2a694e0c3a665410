//! A model whose weights are integers at rest, with its weights in floats.

use std::collections::HashMap;

use prost::Message as _;
use tract_onnx::pb::{ModelProto, TensorProto};

/// ONNX's numbers for types.
const FLOAT: i32 = 1;
const INT8: i32 = 3;

/// The same model with every `Cast(int8 constant) · scale` computed, so that nothing in it is quantized.
pub(crate) fn in_floats(onnx: &[u8]) -> Vec<u8> {
    let mut model = ModelProto::decode(onnx).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let constants: HashMap<String, TensorProto> =
        graph.initializer.iter().map(|one| (one.name.clone(), one.clone())).collect();
    let mut casts = HashMap::new();
    let mut computed = Vec::new();
    graph.node.retain(|node| {
        let quantized = |name: &String| constants.get(name).filter(|one| one.data_type == INT8);
        if node.op_type == "Cast"
            && let Some(integers) = quantized(&node.input[0])
        {
            casts.insert(node.output[0].clone(), integers.clone());
            return false;
        }
        let Some(integers) = node.input.first().and_then(|input| casts.get(input)) else {
            return true;
        };
        assert_eq!(node.op_type, "Mul", "{}", node.name);
        let scale = &constants[&node.input[1]];
        computed.push(product(&node.output[0], integers, scale));
        false
    });
    assert!(computed.len() > 30, "{} constants were quantized", computed.len());
    graph.initializer.retain(|one| one.data_type != INT8);
    graph.initializer.extend(computed);
    model.encode_to_vec()
}

/// `rows × cols` integers times one scale for each row, or for each column.
fn product(name: &str, integers: &TensorProto, scale: &TensorProto) -> TensorProto {
    let [rows, cols] = integers.dims[..] else { panic!("{:?}", integers.dims) };
    let scales: Vec<f32> =
        scale.raw_data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let by_row = match scale.dims[..] {
        [of, 1] if of == rows => true,
        [1, of] if of == cols => false,
        _ => panic!("{:?} for {:?}", scale.dims, integers.dims),
    };
    let cols = usize::try_from(cols).unwrap();
    let floats = integers.raw_data.iter().enumerate().map(|(at, byte)| {
        let scale = scales[if by_row { at / cols } else { at % cols }];
        f32::from(byte.cast_signed()) * scale
    });
    TensorProto {
        name: name.into(),
        dims: integers.dims.clone(),
        data_type: FLOAT,
        raw_data: floats.flat_map(f32::to_le_bytes).collect(),
        ..TensorProto::default()
    }
}
