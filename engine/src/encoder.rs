//! From tokens to one vector, by tract on one core.
//!
//! tract panics, hangs and allocates without bound on a hostile file: this runs in a worker process only. Panics are
//! caught here and become errors, the rest is held by [`crate::worker::limits`] and by the gateway's time-outs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tract_onnx::prelude::{
    Datum, InferenceFact, InferenceModelExt as _, IntoRunnable as _, IntoTensor as _, Tensor,
    ToDim as _, TractError, TractResult, TypedSimplePlan, tvec,
};

use crate::{
    encoder_spec::{EncoderInput, EncoderSpec, Pooling},
    onnx_graph::{self, GraphError},
    pooling, pulse,
    sequence::Sequence,
};

/// Length of the sequence that is run once at load, so that a graph of the wrong shape is refused there.
const PROBE_TOKENS: usize = 5;

/// A graph ready to run.
#[derive(Debug)]
pub struct Encoder {
    plan: Arc<TypedSimplePlan>,
    spec: EncoderSpec,
}

/// Why a graph cannot be used as an encoder.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Refused before tract saw it.
    #[error("reading the model's graph")]
    Graph(#[from] GraphError),
    /// tract refuses it.
    #[error("preparing the model for this machine")]
    Prepare(#[source] TractError),
    /// tract panicked on it.
    #[error("model made the engine panic while loading: {message}")]
    Panic {
        /// What it said.
        message: String,
    },
    /// It does not run, or gives the wrong shape.
    #[error("trying the model on {PROBE_TOKENS} tokens")]
    Probe(#[source] EncodeError),
}

/// Why a sequence has no embedding.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// tract failed.
    #[error("running the model")]
    Run(#[source] TractError),
    /// tract panicked.
    #[error("model made the engine panic: {message}")]
    Panic {
        /// What it said.
        message: String,
    },
    /// Not the output that `model.toml` describes.
    #[error(
        "output `{name}` of the model has shape {shape:?}, model.toml says {expected:?} of f32 for {tokens} tokens"
    )]
    Shape {
        /// Its name.
        name: String,
        /// What came.
        shape: Box<[usize]>,
        /// What was described.
        expected: Box<[usize]>,
        /// Tokens that went in.
        tokens: usize,
    },
    /// The result is infinite or not a number.
    #[error("model computed a value that is not a finite number")]
    NotFinite,
}

impl Encoder {
    /// Prepares the graph in `onnx` for any length of sequence, and tries it once.
    ///
    /// # Errors
    /// The graph is refused, does not run, or does not do what `spec` says.
    pub fn load(onnx: &[u8], nodes_max: usize, spec: &EncoderSpec) -> Result<Self, LoadError> {
        let plan = catch_unwind(AssertUnwindSafe(|| -> Result<_, LoadError> {
            let graph = onnx_graph::read(onnx, nodes_max)?;
            prepare(graph, spec).map_err(LoadError::Prepare)
        }))
        .unwrap_or_else(|panic| Err(LoadError::Panic { message: panic_message(&*panic) }))?;
        let encoder = Self { plan, spec: spec.clone() };
        encoder.encode(Sequence::single(&[1; PROBE_TOKENS])).map_err(LoadError::Probe)?;
        Ok(encoder)
    }

    /// The embedding of one sequence, [`Encoder::dim`] numbers; of length 1 when the package asks for it.
    ///
    /// # Errors
    /// The model failed, panicked, or computed something that is not an embedding.
    pub fn encode(&self, sequence: Sequence<'_>) -> Result<Vec<f32>, EncodeError> {
        pulse::step(sequence.ids.len());
        catch_unwind(AssertUnwindSafe(|| self.run(sequence)))
            .unwrap_or_else(|panic| Err(EncodeError::Panic { message: panic_message(&*panic) }))
    }

    /// The embeddings of sequences that are computed together, in their order.
    ///
    /// # Errors
    /// The model failed, panicked, or computed something that is not an embedding, on any of them.
    pub fn encode_batch(&self, sequences: &[Sequence<'_>]) -> Result<Vec<Vec<f32>>, EncodeError> {
        sequences.iter().map(|sequence| self.encode(*sequence)).collect()
    }

    /// Width of an embedding.
    pub const fn dim(&self) -> usize {
        self.spec.dim as usize
    }

    fn run(&self, sequence: Sequence<'_>) -> Result<Vec<f32>, EncodeError> {
        let tokens = sequence.ids.len();
        let mut inputs = tvec!();
        for input in &self.spec.inputs {
            let row: Vec<i64> = match input {
                EncoderInput::InputIds => sequence.ids.iter().copied().map(i64::from).collect(),
                EncoderInput::AttentionMask => vec![1; tokens],
                EncoderInput::TokenTypeIds => sequence.types().collect(),
                // The description of a text model lists no such input.
                EncoderInput::Bytes => continue,
            };
            let tensor = Tensor::from_shape(&[1, tokens], &row).map_err(EncodeError::Run)?;
            inputs.push(tensor.into());
        }
        let outputs = self.plan.run(inputs).map_err(EncodeError::Run)?;
        let states = outputs.into_iter().next().map(|value| value.into_tensor());
        let shape = states.as_ref().map(|states| states.shape().to_vec()).unwrap_or_default();
        let expected = match self.spec.pooling {
            Pooling::Mean | Pooling::Cls | Pooling::Last => vec![1, tokens, self.dim()],
            Pooling::None => vec![1, self.dim()],
        };
        let wrong = || EncodeError::Shape {
            name: self.spec.output.clone(),
            shape: shape.as_slice().into(),
            expected: expected.as_slice().into(),
            tokens,
        };
        if shape != expected {
            return Err(wrong());
        }
        let states = states.ok_or_else(wrong)?;
        let states = states.to_plain_array_view::<f32>().map_err(|_| wrong())?;
        let states = states.as_slice().ok_or_else(wrong)?;
        let mut vector = match self.spec.pooling {
            Pooling::Mean => pooling::mean(states, self.dim()),
            Pooling::Cls => pooling::cls(states, self.dim()),
            Pooling::Last => pooling::last(states, self.dim()),
            Pooling::None => states.to_vec(),
        };
        if self.spec.normalize {
            pooling::normalize(&mut vector);
        }
        if vector.iter().all(|number| number.is_finite()) {
            Ok(vector)
        } else {
            Err(EncodeError::NotFinite)
        }
    }
}

fn prepare(
    mut graph: tract_onnx::prelude::InferenceModel,
    spec: &EncoderSpec,
) -> TractResult<Arc<TypedSimplePlan>> {
    graph.set_input_names(spec.inputs.iter().map(|input| input.name()))?;
    let tokens = graph.symbols.sym("tokens");
    for at in 0..spec.inputs.len() {
        let shape = [1.to_dim(), tokens.to_dim()];
        graph.set_input_fact(at, InferenceFact::dt_shape(i64::datum_type(), shape))?;
    }
    graph.select_outputs_by_name([&spec.output])?;
    graph.into_typed()?.into_decluttered()?.into_optimized()?.into_runnable()
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").chars().take(300).collect()
}
