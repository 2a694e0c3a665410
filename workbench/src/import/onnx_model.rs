//! An ONNX model that comes in: its linear layers and tables turned into the house format where they are floats, the
//! rest left as it was exported.

use std::collections::{HashMap, HashSet};

use prost::Message as _;
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, tensor_proto::DataType,
    tensor_shape_proto::dimension::Value as Dimension, type_proto,
};

use crate::import::{
    blocks::{BLOCK, Blocks},
    matrix::{Format, Matrix, Purpose},
    onnx_writer::{CONTRIB, int, tensor},
    reader,
};

/// Most nodes of a model that is taken.
const NODES_MAX: usize = 100_000;
/// A constant that is looked up and has fewer rows stays as it is: positions, segments.
const TABLE_ROWS_MIN: usize = 1024;

/// What stands between a quantized table and the floats that are looked up.
const DEQUANTIZING: [&str; 5] = ["Cast", "DequantizeLinear", "Identity", "Mul", "Sub"];
/// What leaves ids as they are.
const SAME_NUMBERS: [&str; 5] = ["Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"];
/// Most nodes that are looked at behind a value.
const BEHIND_MAX: usize = 64;

/// A model that is being turned.
#[derive(Debug, Clone)]
pub struct OnnxModel {
    model: ModelProto,
}

/// What was turned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turned {
    /// Linear layers.
    pub linear: usize,
    /// Tables.
    pub tables: usize,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OnnxModelError {
    /// Not ONNX.
    #[error("file is not an ONNX model: export it again")]
    Decode(#[source] prost::DecodeError),
    /// No graph, or one beyond all measure.
    #[error("ONNX model has {nodes} nodes; allowed are 1 to {NODES_MAX}")]
    Nodes {
        /// How many.
        nodes: usize,
    },
    /// A constant in another file, or with other bytes than its shape needs.
    #[error("constant `{name}` of the ONNX model {what}")]
    Constant {
        /// Its name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// No table that is looked up by `input_ids`.
    #[error(
        "ONNX model looks up no constant table by `input_ids` itself, so its vocabulary cannot be cut: import the safetensors, or leave `--languages` out"
    )]
    NoWords,
    /// A table of words that something else reads too, or with fewer bytes than its shape needs.
    #[error(
        "table of words `{name}` of the ONNX model {what}, so its vocabulary cannot be cut: import the safetensors, or leave `--languages` out"
    )]
    Words {
        /// The constant.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A table with fewer rows than the tokenizer has tokens.
    #[error(
        "table of words has {rows} rows, the tokenizer has the token number {token}: they do not belong together"
    )]
    Rows {
        /// Rows.
        rows: usize,
        /// A token that is kept.
        token: u32,
    },
}

impl OnnxModel {
    /// The model in `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, OnnxModelError> {
        let model = ModelProto::decode(bytes).map_err(OnnxModelError::Decode)?;
        let nodes = model.graph.as_ref().map_or(0, |graph| graph.node.len());
        if !(1..=NODES_MAX).contains(&nodes) {
            return Err(OnnxModelError::Nodes { nodes });
        }
        for constant in model.graph.iter().flat_map(|graph| &graph.initializer) {
            let wrong = |what| OnnxModelError::Constant { name: constant.name.clone(), what };
            if !constant.external_data.is_empty()
                || constant.data_location.is_some_and(|at| at != 0)
            {
                return Err(wrong("lies in another file: export the model into one file"));
            }
            if constant.data_type == DataType::Float as i32 && floats(constant).is_none() {
                return Err(wrong("has other bytes than its shape needs"));
            }
        }
        Ok(Self { model })
    }

    /// Names of its inputs.
    pub fn inputs(&self) -> Vec<&str> {
        let constants: HashSet<&str> =
            self.graph().initializer.iter().map(|constant| constant.name.as_str()).collect();
        let inputs = self.graph().input.iter().map(|input| input.name.as_str());
        inputs.filter(|name| !constants.contains(name)).collect()
    }

    /// Name of each output, with its last size where the file says it, and how many sizes it has.
    pub fn outputs(&self) -> Vec<(&str, Option<usize>, usize)> {
        let outputs = self.graph().output.iter().map(|output| {
            let shape = match output.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
                Some(type_proto::Value::TensorType(tensor)) => tensor.shape.as_ref(),
                None => None,
            };
            let sizes = shape.map_or(&[][..], |shape| &shape.dim);
            let last = match sizes.last().and_then(|last| last.value.as_ref()) {
                Some(Dimension::DimValue(size)) => usize::try_from(*size).ok(),
                Some(Dimension::DimParam(_)) | None => None,
            };
            (output.name.as_str(), last, sizes.len())
        });
        outputs.collect()
    }

    /// How many positions its tables know: the fewest rows of a table as wide as the states, `width`, that is looked up
    /// by something else than an input; none when it has no such table.
    pub fn positions(&self, width: usize) -> Option<usize> {
        let tables = self.graph().node.iter().filter_map(|node| {
            let [table, ids] = lookup(node)?;
            if self.is_input(self.origin(ids)) {
                return None;
            }
            let constants = self.constants_behind(table);
            constants.into_iter().find_map(|constant| match *constant.dims.as_slice() {
                [rows, cols] if usize::try_from(cols) == Ok(width) => usize::try_from(rows).ok(),
                _ => None,
            })
        });
        tables.min()
    }

    /// Keeps only the rows `kept` of what is looked up by `input_ids`: a table, floats or integers with their scales.
    pub fn cut_words(&mut self, kept: &[u32]) -> Result<(), OnnxModelError> {
        let lookups = self.graph().node.iter().filter_map(lookup);
        let tables = lookups.filter(|[_, ids]| self.origin(ids) == "input_ids");
        let constants: Vec<&TensorProto> =
            tables.flat_map(|[table, _]| self.constants_behind(table)).collect();
        let rows = constants.iter().filter(|constant| constant.dims.len() == 2);
        let rows = rows.filter_map(|constant| constant.dims.first().copied()).max();
        let rows = rows.ok_or(OnnxModelError::NoWords)?;
        let by_row: HashSet<String> = constants
            .into_iter()
            .filter(|constant| constant.dims.first() == Some(&rows))
            .map(|constant| constant.name.clone())
            .collect();
        let rows = usize::try_from(rows).unwrap_or_default();
        if let Some(token) = kept.iter().find(|token| **token as usize >= rows) {
            return Err(OnnxModelError::Rows { rows, token: *token });
        }
        let graph = self.graph_mut();
        for name in &by_row {
            let read = graph.node.iter().flat_map(|node| &node.input);
            let returned = graph.output.iter().map(|output| &output.name);
            if read.chain(returned).filter(|read| *read == name).count() != 1 {
                let what = "is read in several places";
                return Err(OnnxModelError::Words { name: name.clone(), what });
            }
        }
        for constant in graph.initializer.iter_mut().filter(|one| by_row.contains(&one.name)) {
            keep_rows(constant, rows, kept)?;
        }
        Ok(())
    }

    /// The constants that `value` is computed from by dequantizing alone.
    fn constants_behind(&self, value: &str) -> Vec<&TensorProto> {
        let (mut found, mut open) = (Vec::new(), vec![value]);
        // A graph without circles ends; one with them is cut off.
        for _ in 0..BEHIND_MAX {
            let Some(value) = open.pop() else { break };
            if let Some(constant) = self.graph().initializer.iter().find(|one| one.name == value) {
                found.push(constant);
            } else if let Some(node) = self.maker(value)
                && DEQUANTIZING.contains(&node.op_type.as_str())
            {
                open.extend(node.input.iter().map(String::as_str));
            }
        }
        found
    }

    /// What `value` is before it was converted or given another shape.
    fn origin<'m>(&'m self, mut value: &'m str) -> &'m str {
        for _ in 0..BEHIND_MAX {
            match self.maker(value) {
                Some(node) if SAME_NUMBERS.contains(&node.op_type.as_str()) => {
                    match node.input.first() {
                        Some(input) => value = input,
                        None => break,
                    }
                }
                Some(_) | None => break,
            }
        }
        value
    }

    fn maker(&self, value: &str) -> Option<&NodeProto> {
        self.graph().node.iter().find(|node| node.output.iter().any(|output| output == value))
    }

    fn is_input(&self, value: &str) -> bool {
        self.graph().input.iter().any(|input| input.name == value)
    }

    /// Turns linear layers and tables that are floats into `format`. `progress` is called with (done, all) over the nodes.
    pub fn turn(&mut self, format: Format, mut progress: impl FnMut(usize, usize)) -> Turned {
        let mut turned = Turned::default();
        if format == Format::F32 {
            return turned;
        }
        let graph = self.graph_mut();
        let mut constants: HashMap<String, TensorProto> = std::mem::take(&mut graph.initializer)
            .into_iter()
            .map(|c| (c.name.clone(), c))
            .collect();
        let order: Vec<String> = constants.keys().cloned().collect();
        let all = graph.node.len();
        let mut added = Vec::new();
        for (at, node) in graph.node.iter_mut().enumerate() {
            if let Some((constants, kind)) = turn_node(node, &constants, format) {
                match kind {
                    Kind::Linear => turned.linear += 1,
                    Kind::Table => turned.tables += 1,
                }
                added.extend(constants);
            }
            progress(at + 1, all);
        }
        // What nothing reads any more goes; what is left keeps a fixed order.
        let read: HashSet<&String> = graph.node.iter().flat_map(|node| &node.input).collect();
        let returned: HashSet<&String> = graph.output.iter().map(|output| &output.name).collect();
        let mut order: Vec<String> = order
            .into_iter()
            .filter(|name| read.contains(name) || returned.contains(name))
            .collect();
        order.sort_unstable();
        graph.initializer.extend(order.iter().filter_map(|name| constants.remove(name)));
        for constant in added {
            if graph.initializer.iter().all(|known| known.name != constant.name) {
                graph.initializer.push(constant);
            }
        }
        let known = self.model.opset_import.iter().any(|set| set.domain == CONTRIB);
        if !known && turned != Turned::default() {
            let set = OperatorSetIdProto { domain: CONTRIB.into(), version: 1 };
            self.model.opset_import.push(set);
        }
        turned
    }

    /// The content of `model.onnx`.
    pub fn encode(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    fn graph(&self) -> &GraphProto {
        static NONE: std::sync::LazyLock<GraphProto> =
            std::sync::LazyLock::new(GraphProto::default);
        self.model.graph.as_ref().unwrap_or(&NONE)
    }

    fn graph_mut(&mut self) -> &mut GraphProto {
        self.model.graph.get_or_insert_with(GraphProto::default)
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Linear,
    Table,
}

fn turn_node(
    node: &mut NodeProto,
    constants: &HashMap<String, TensorProto>,
    format: Format,
) -> Option<(Vec<TensorProto>, Kind)> {
    if !node.domain.is_empty() && node.domain != "ai.onnx" {
        return None;
    }
    match node.op_type.as_str() {
        "MatMul" => {
            let [input, weight] = node.input.as_slice() else { return None };
            let Matrix::Float { rows: inputs, cols: outputs, values } =
                matrix(constants.get(weight)?)?
            else {
                return None;
            };
            if !inputs.is_multiple_of(BLOCK) {
                return None;
            }
            let transposed =
                (0..outputs).flat_map(|col| (0..inputs).map(move |row| row * outputs + col));
            let transposed: Vec<f32> =
                transposed.filter_map(|at| values.get(at).copied()).collect();
            let float = Matrix::Float { rows: outputs, cols: inputs, values: transposed };
            let Matrix::Blocks(blocks) = float.into_format(format, Purpose::Linear) else {
                return None;
            };
            let name = format!("{weight}.blocks");
            let dims = [outputs, inputs / blocks.size(), blocks.size_bytes()];
            let added = write(&name, &blocks, &dims);
            node.input = vec![input.clone(), name.clone(), format!("{name}.scales")];
            "MatMulNBits".clone_into(&mut node.op_type);
            CONTRIB.clone_into(&mut node.domain);
            node.attribute = vec![
                int("K", inputs as i64),
                int("N", outputs as i64),
                int("bits", blocks.bits().count() as i64),
                int("block_size", blocks.size() as i64),
                int("accuracy_level", 4),
            ];
            Some((added, Kind::Linear))
        }
        "Gather" => {
            let [table, ids] = node.input.as_slice() else { return None };
            if node.attribute.iter().any(|attribute| attribute.name == "axis" && attribute.i != 0) {
                return None;
            }
            let float = matrix(constants.get(table)?)?;
            let (rows, _) = float.shape();
            let Matrix::Blocks(blocks) = float.into_format(format, Purpose::Table) else {
                return None;
            };
            if rows < TABLE_ROWS_MIN {
                return None;
            }
            let name = format!("{table}.blocks");
            let added = write(&name, &blocks, &[rows, blocks.codes().len() / rows]);
            node.input = vec![name.clone(), ids.clone(), format!("{name}.scales")];
            "GatherBlockQuantized".clone_into(&mut node.op_type);
            CONTRIB.clone_into(&mut node.domain);
            node.attribute = vec![
                int("bits", blocks.bits().count() as i64),
                int("block_size", blocks.size() as i64),
                int("gather_axis", 0),
                int("quantize_axis", 1),
            ];
            Some((added, Kind::Table))
        }
        _ => None,
    }
}

/// Table and ids of a node that looks up rows.
fn lookup(node: &NodeProto) -> Option<[&str; 2]> {
    let rows = node.attribute.iter().all(|attribute| attribute.name != "axis" || attribute.i == 0);
    match node.input.as_slice() {
        [table, ids] if node.op_type == "Gather" && rows => Some([table, ids]),
        _ => None,
    }
}

/// Leaves the rows `kept` of the `rows` that `constant` has.
fn keep_rows(constant: &mut TensorProto, rows: usize, kept: &[u32]) -> Result<(), OnnxModelError> {
    if constant.raw_data.is_empty() && !constant.float_data.is_empty() {
        let floats = std::mem::take(&mut constant.float_data);
        constant.raw_data = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
    }
    let bytes = &constant.raw_data;
    if bytes.is_empty() || !bytes.len().is_multiple_of(rows) {
        let what = "has other bytes than its shape needs";
        return Err(OnnxModelError::Words { name: constant.name.clone(), what });
    }
    let row_bytes = bytes.len() / rows;
    let row = |id: &u32| bytes.get(*id as usize * row_bytes..(*id as usize + 1) * row_bytes);
    let left: Vec<u8> = kept.iter().filter_map(row).flatten().copied().collect();
    constant.raw_data = left;
    if let Some(first) = constant.dims.first_mut() {
        *first = i64::try_from(kept.len()).unwrap_or(i64::MAX);
    }
    Ok(())
}

fn write(name: &str, blocks: &Blocks, dims: &[usize]) -> Vec<TensorProto> {
    let (rows, cols) = blocks.shape();
    let scales = blocks.scales().iter().flat_map(|scale| scale.to_le_bytes()).collect();
    vec![
        tensor(name, DataType::Uint8, dims, blocks.codes().to_vec()),
        tensor(&format!("{name}.scales"), DataType::Float, &[rows, cols / blocks.size()], scales),
    ]
}

/// The floats of a constant of two axes, neither of them empty.
fn matrix(constant: &TensorProto) -> Option<Matrix> {
    let [rows, cols] = *constant.dims.as_slice() else { return None };
    let (rows, cols) = (usize::try_from(rows).ok()?, usize::try_from(cols).ok()?);
    let values = floats(constant).filter(|values| !values.is_empty())?;
    Some(Matrix::Float { rows, cols, values })
}

/// The floats of a constant, as many as its shape says.
fn floats(constant: &TensorProto) -> Option<Vec<f32>> {
    if constant.data_type != DataType::Float as i32 {
        return None;
    }
    let length = constant
        .dims
        .iter()
        .try_fold(1_usize, |product, size| product.checked_mul(usize::try_from(*size).ok()?))?;
    let values = if constant.raw_data.is_empty() {
        constant.float_data.clone()
    } else {
        reader::f32s(&constant.raw_data)
    };
    (values.len() == length && values.iter().all(|value| value.is_finite())).then_some(values)
}
