//! Writes an ONNX graph: nodes, constants, and the two operators of the house format, `MatMulNBits` for linear layers
//! and `GatherBlockQuantized` for tables, which onnxruntime runs as they stand.

use prost::Message as _;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType, tensor_shape_proto, type_proto,
};

use crate::import::{blocks::Blocks, encoder::Linear, matrix::Matrix};

/// Version of the standard operators: the first with `Gelu`.
pub const OPSET: i64 = 20;
/// Where the operators over blocks are defined.
pub const CONTRIB: &str = "com.microsoft";
/// Of the file format; onnxruntime reads it since 1.17.
const IR_VERSION: i64 = 9;

/// A graph that grows.
#[derive(Debug, Default)]
pub struct Writer {
    graph: GraphProto,
}

/// A size of an input or an output.
#[derive(Debug, Clone, Copy)]
pub enum Size {
    /// The same in every request.
    Fixed(usize),
    /// Another one in every request, by its name.
    Free(&'static str),
}

impl Writer {
    /// Adds `output = operator(inputs)`; the output's name comes back.
    pub fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.push("", operator, inputs, output, attributes)
    }

    /// Adds constant floats of shape `dims`.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.graph.initializer.push(tensor(name, DataType::Float, dims, data));
    }

    /// Adds constant whole numbers of shape `dims`.
    pub fn numbers(&mut self, name: &str, dims: &[usize], values: &[i64]) {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.graph.initializer.push(tensor(name, DataType::Int64, dims, data));
    }

    /// Adds `output = inputs · weightᵀ + bias` over the last axis.
    pub fn linear(&mut self, name: &str, linear: &Linear, input: &str, output: &str) -> String {
        let product = format!("{output}.product");
        let weight = format!("{name}.weight");
        match &linear.weight {
            Matrix::Blocks(blocks) => {
                let (outputs, inputs) = blocks.shape();
                let dims = [outputs, inputs / blocks.size(), blocks.size_bytes()];
                let scales = self.blocks(&weight, blocks, &dims);
                let attributes = [
                    ("K", inputs),
                    ("N", outputs),
                    ("bits", blocks.bits().count()),
                    ("block_size", blocks.size()),
                    // Activations in blocks of 8 bits too.
                    ("accuracy_level", 4),
                ];
                let attributes = attributes.map(|(name, value)| int(name, value as i64)).to_vec();
                let inputs = [input, &weight, &scales];
                self.push(CONTRIB, "MatMulNBits", &inputs, &product, attributes);
            }
            Matrix::Float { rows, cols, values } => {
                let transposed: Vec<f32> = (0..*cols)
                    .flat_map(|col| (0..*rows).map(move |row| values[row * cols + col]))
                    .collect();
                self.floats(&weight, &[*cols, *rows], &transposed);
                self.node("MatMul", &[input, &weight], &product, Vec::new());
            }
        }
        let bias = format!("{name}.bias");
        self.floats(&bias, &[linear.bias.len()], &linear.bias);
        self.node("Add", &[&product, &bias], output, Vec::new())
    }

    /// Adds `output = rows of table at ids`.
    pub fn look_up(&mut self, name: &str, table: &Matrix, ids: &str, output: &str) -> String {
        match table {
            Matrix::Blocks(blocks) => {
                let (rows, _) = blocks.shape();
                let scales = self.blocks(name, blocks, &[rows, blocks.codes().len() / rows]);
                let bits = blocks.bits().count() as i64;
                let attributes = vec![
                    int("bits", bits),
                    int("block_size", blocks.size() as i64),
                    int("gather_axis", 0),
                    int("quantize_axis", 1),
                ];
                let inputs = [name, ids, &scales];
                self.push(CONTRIB, "GatherBlockQuantized", &inputs, output, attributes)
            }
            Matrix::Float { rows, cols, values } => {
                self.floats(name, &[*rows, *cols], values);
                self.node("Gather", &[name, ids], output, vec![int("axis", 0)])
            }
        }
    }

    /// Adds an input of whole numbers.
    pub fn input(&mut self, name: &str, sizes: &[Size]) {
        self.graph.input.push(value(name, DataType::Int64, sizes));
    }

    /// Adds an output of floats.
    pub fn output(&mut self, name: &str, sizes: &[Size]) {
        self.graph.output.push(value(name, DataType::Float, sizes));
    }

    /// The file.
    pub fn finish(mut self, name: &str) -> Vec<u8> {
        name.clone_into(&mut self.graph.name);
        model(self.graph).encode_to_vec()
    }

    /// Adds codes, in the shape `dims`, and scales; the name of the scales comes back.
    fn blocks(&mut self, name: &str, blocks: &Blocks, dims: &[usize]) -> String {
        let (rows, cols) = blocks.shape();
        let scales = format!("{name}.scales");
        self.graph.initializer.push(tensor(name, DataType::Uint8, dims, blocks.codes().to_vec()));
        self.floats(&scales, &[rows, cols / blocks.size()], blocks.scales());
        scales
    }

    fn push(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) -> String {
        self.graph.node.push(NodeProto {
            name: output.to_owned(),
            domain: domain.to_owned(),
            op_type: operator.to_owned(),
            input: inputs.iter().copied().map(Into::into).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..NodeProto::default()
        });
        output.to_owned()
    }
}

/// The file around a graph.
pub fn model(graph: GraphProto) -> ModelProto {
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![opset("", OPSET), opset(CONTRIB, 1)],
        producer_name: "socle".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// An attribute that is a whole number.
pub fn int(name: &str, value: i64) -> AttributeProto {
    let kind = AttributeType::Int as i32;
    AttributeProto { name: name.into(), i: value, r#type: kind, ..AttributeProto::default() }
}

/// An attribute that is several whole numbers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let kind = AttributeType::Ints as i32;
    AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        r#type: kind,
        ..AttributeProto::default()
    }
}

/// An attribute that is a float.
pub fn float(name: &str, value: f32) -> AttributeProto {
    let kind = AttributeType::Float as i32;
    AttributeProto { name: name.into(), f: value, r#type: kind, ..AttributeProto::default() }
}

/// A constant.
pub fn tensor(name: &str, kind: DataType, dims: &[usize], raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type: kind as i32,
        dims: dims.iter().map(|size| *size as i64).collect(),
        raw_data,
        ..TensorProto::default()
    }
}

fn value(name: &str, kind: DataType, sizes: &[Size]) -> ValueInfoProto {
    let dim = sizes.iter().map(|size| {
        let value = match size {
            Size::Fixed(size) => tensor_shape_proto::dimension::Value::DimValue(*size as i64),
            Size::Free(name) => tensor_shape_proto::dimension::Value::DimParam((*name).to_owned()),
        };
        tensor_shape_proto::Dimension {
            value: Some(value),
            ..tensor_shape_proto::Dimension::default()
        }
    });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor = type_proto::Tensor { elem_type: kind as i32, shape };
    let value = Some(type_proto::Value::TensorType(tensor));
    let r#type = Some(TypeProto { value, ..TypeProto::default() });
    ValueInfoProto { name: name.to_owned(), r#type, ..ValueInfoProto::default() }
}
