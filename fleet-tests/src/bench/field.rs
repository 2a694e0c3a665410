//! Who takes part: our engine and its peers, each with each form of the model.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Serialize;

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// Our engine.
    Socle,
    /// Our engine, asked with texts.
    SocleTexts,
    /// onnxruntime.
    Onnxruntime,
    /// OpenVINO, in the precision it takes by itself.
    Openvino,
    /// OpenVINO, held to f32.
    OpenvinoF32,
    /// fastembed, which takes texts.
    Fastembed,
}

/// A runtime with one form of the model.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Entrant {
    /// What computes.
    pub runtime: Runtime,
    /// The model, by its file's name.
    pub form: &'static str,
    /// How exact its arithmetic is meant to be.
    pub class: Class,
    /// Whether it is worth its time in the long measurements.
    pub throughput: bool,
}

/// Forms that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Float weights.
    Float,
    /// 8-bit or smaller weights.
    Quantized,
}

/// Where programs and models lie.
#[derive(Clone, Debug)]
pub struct Ground {
    /// This benchmark's own program.
    pub own: PathBuf,
    /// A Python with the peers.
    pub python: PathBuf,
    /// `resident.py`.
    pub script: PathBuf,
    /// The forms of the model, and its tokenizer.
    pub models: PathBuf,
    /// Width of an embedding.
    pub dim: u32,
}

const fn entrant(runtime: Runtime, form: &'static str, class: Class, throughput: bool) -> Entrant {
    Entrant { runtime, form, class, throughput }
}

/// Everyone.
pub const FIELD: [Entrant; 21] = [
    entrant(Runtime::Socle, "f32", Class::Float, true),
    entrant(Runtime::Socle, "q8", Class::Quantized, true),
    entrant(Runtime::Socle, "q4", Class::Quantized, true),
    entrant(Runtime::Socle, "weight8", Class::Quantized, false),
    entrant(Runtime::Socle, "dynamic8", Class::Quantized, false),
    entrant(Runtime::Socle, "qdq8", Class::Quantized, false),
    entrant(Runtime::SocleTexts, "q8", Class::Quantized, true),
    entrant(Runtime::Onnxruntime, "f32", Class::Float, true),
    entrant(Runtime::Onnxruntime, "dynamic8", Class::Quantized, true),
    entrant(Runtime::Onnxruntime, "dynamic8c", Class::Quantized, true),
    entrant(Runtime::Onnxruntime, "dynamic8f", Class::Quantized, false),
    entrant(Runtime::Onnxruntime, "qdq8", Class::Quantized, false),
    entrant(Runtime::Onnxruntime, "q8", Class::Quantized, false),
    entrant(Runtime::Onnxruntime, "q4", Class::Quantized, false),
    entrant(Runtime::Onnxruntime, "weight8", Class::Quantized, false),
    entrant(Runtime::OpenvinoF32, "f32", Class::Float, false),
    entrant(Runtime::Openvino, "f32", Class::Float, true),
    entrant(Runtime::Openvino, "openvino8", Class::Quantized, true),
    entrant(Runtime::Openvino, "qdq8", Class::Quantized, false),
    entrant(Runtime::Fastembed, "f32", Class::Float, true),
    entrant(Runtime::Fastembed, "dynamic8", Class::Quantized, true),
];

impl Runtime {
    /// Its name in tables, and on the command line of `resident.py`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Socle => "socle",
            Self::SocleTexts => "socle-texts",
            Self::Onnxruntime => "onnxruntime",
            Self::Openvino => "openvino",
            Self::OpenvinoF32 => "openvino-f32",
            Self::Fastembed => "fastembed",
        }
    }

    /// Whether it is ours.
    pub const fn is_ours(self) -> bool {
        match self {
            Self::Socle | Self::SocleTexts => true,
            Self::Onnxruntime | Self::Openvino | Self::OpenvinoF32 | Self::Fastembed => false,
        }
    }
}

impl Entrant {
    /// Its name in tables.
    pub fn name(&self) -> String {
        format!("{} {}", self.runtime.name(), self.form)
    }

    /// The file of its model.
    pub fn model(&self, models: &Path) -> PathBuf {
        let kind = if self.form == "openvino8" { "xml" } else { "onnx" };
        models.join(format!("{}.{kind}", self.form))
    }

    /// How it is started as a resident.
    pub fn command(&self, ground: &Ground, threads: NonZeroUsize) -> Command {
        let model = self.model(&ground.models);
        let tokenizer = ground.models.join("tokenizer.json");
        if self.runtime.is_ours() {
            let from = if self.runtime == Runtime::SocleTexts { "texts" } else { "ids" };
            let mut command = Command::new(&ground.own);
            command.arg("resident").arg(model).arg(tokenizer);
            command.args(["--threads", &threads.to_string(), "--from", from]);
            command.args(["--dim", &ground.dim.to_string()]);
            return command;
        }
        let mut command = Command::new(&ground.python);
        command.arg(&ground.script).arg(self.runtime.name()).arg(model).arg(tokenizer);
        command.arg(threads.to_string());
        // Nothing beside the runtime may start threads of its own, and nothing may look for a network.
        for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"] {
            command.env(name, threads.to_string());
        }
        for name in ["HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM"] {
            command.env(name, if name == "TOKENIZERS_PARALLELISM" { "false" } else { "1" });
        }
        command
    }
}
