//! Which tensors a model takes and gives, by its task, and how that is told.

use engine::{package::Task, worker::message::ModelInfo};
use serde::Serialize;

use crate::serve::kserve::exchange::{BYTES, FP32};

/// The input of every model of texts.
pub const TEXT: &str = "text";
/// What a reranker compares the texts with.
pub const QUERY: &str = "query";
/// The input of a model of bytes: each element is a file.
pub const FILE: &str = "file";
/// The label of each input.
pub const LABEL: &str = "label";
/// Scores of all labels of each input.
pub const SCORES: &str = "scores";
/// How relevant each text is.
pub const SCORE: &str = "score";
/// The output of an encoder.
pub const EMBEDDING: &str = "embedding";
/// What runs the models.
pub const PLATFORM: &str = "socle_tract_onnx";
/// The same, as Triton's model configuration names it.
pub const BACKEND: &str = "socle";

/// Metadata of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// The versions there are: one.
    pub versions: Vec<String>,
    /// What runs it.
    pub platform: &'static str,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub datatype: &'static str,
    /// Shape; -1 is any number.
    pub shape: Vec<i64>,
}

impl Port {
    const fn new(name: &'static str, datatype: &'static str, shape: Vec<i64>) -> Self {
        Self { name, datatype, shape }
    }

    /// The type's name in a model configuration.
    pub fn config_type(&self) -> &'static str {
        if self.datatype == FP32 { "TYPE_FP32" } else { "TYPE_STRING" }
    }
}

/// What `model` takes.
pub fn inputs(model: &ModelInfo) -> Vec<Port> {
    match model.task {
        Task::Embedding | Task::Assistant | Task::Classification => {
            vec![Port::new(TEXT, BYTES, vec![-1])]
        }
        Task::Rerank => {
            vec![Port::new(QUERY, BYTES, vec![1]), Port::new(TEXT, BYTES, vec![-1])]
        }
        Task::Bytes => vec![Port::new(FILE, BYTES, vec![-1])],
    }
}

/// What `model` gives.
pub fn outputs(model: &ModelInfo) -> Vec<Port> {
    match model.task {
        Task::Embedding | Task::Assistant => {
            vec![Port::new(EMBEDDING, FP32, vec![-1, i64::from(model.dim)])]
        }
        Task::Classification | Task::Bytes => {
            let labels = i64::try_from(model.labels.len()).unwrap_or(-1);
            vec![Port::new(LABEL, BYTES, vec![-1]), Port::new(SCORES, FP32, vec![-1, labels])]
        }
        Task::Rerank => vec![Port::new(SCORE, FP32, vec![-1])],
    }
}

/// Metadata of `model`.
pub fn metadata(model: &ModelInfo) -> Metadata {
    Metadata {
        name: model.name.clone(),
        versions: vec![model.version.clone()],
        platform: PLATFORM,
        inputs: inputs(model),
        outputs: outputs(model),
    }
}

/// Ports in the words of an error: `` `text` (BYTES, shape [n]) ``.
pub fn described(ports: &[Port]) -> String {
    let one = |port: &Port| {
        let shape: Vec<String> = port
            .shape
            .iter()
            .map(|size| if *size < 0 { "n".to_owned() } else { size.to_string() })
            .collect();
        format!("`{}` ({}, shape [{}])", port.name, port.datatype, shape.join(", "))
    };
    ports.iter().map(one).collect::<Vec<_>>().join(" and ")
}
