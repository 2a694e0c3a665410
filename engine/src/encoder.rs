//! From tokens to vectors, by tract with our operators.
//!
//! tract panics, hangs and allocates without bound on a hostile file: this runs in a worker process only. Panics are
//! caught here and become errors, the rest is held by [`crate::worker::limits`] and by the gateway's time-outs.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use tract_onnx::{
    prelude::{TValue, TVec, Tensor, TractError, tvec},
    tract_core::internal::{EvalContext, OpState, TypedNode},
};

use crate::{
    cause::caught,
    encoder_spec::{EncoderInput, EncoderSpec, Pooling},
    graph::{
        feeds::{Feeds, SEGMENTS},
        file::GraphError,
        plan::{self, Prepared},
    },
    kernels::{
        self,
        isa::Isa,
        pooling::Row,
        threads::{Threads, ThreadsError},
    },
    pulse,
    sequence::Sequence,
    weight_form::WeightForm,
};

/// Length of the sequence that is run once at load, so that a graph of the wrong shape is refused there.
const PROBE_TOKENS: usize = 5;

/// A graph ready to run.
#[derive(Debug)]
pub struct Encoder {
    prepared: Prepared,
    spec: EncoderSpec,
    isa: Isa,
    threads: Arc<Threads>,
}

/// How long one operator of the plan took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Name of the node.
    pub name: String,
    /// Kind of the operator.
    pub op: String,
    /// How long.
    pub took: Duration,
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
    /// No threads to compute on.
    #[error("preparing to compute")]
    Threads(#[from] ThreadsError),
    /// The graph needs something that nobody gives.
    #[error(
        "model needs an input `{name}` that model.toml does not list: export it with input_ids, attention_mask and token_type_ids only"
    )]
    Input {
        /// Its name.
        name: String,
    },
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
    /// Prepares the graph in `onnx` for any number of sequences of any length, and tries it.
    ///
    /// # Errors
    /// The graph is refused, does not run, or does not do what `spec` says.
    pub fn load(
        onnx: &[u8],
        nodes_max: usize,
        spec: &EncoderSpec,
        threads: NonZeroUsize,
    ) -> Result<Self, LoadError> {
        let threads = Arc::new(Threads::new(threads)?);
        let feeds = Feeds {
            ids: EncoderInput::InputIds.name().to_owned(),
            mask: spec
                .inputs
                .contains(&EncoderInput::AttentionMask)
                .then(|| EncoderInput::AttentionMask.name().to_owned()),
        };
        let prepared = caught(|| -> Result<_, LoadError> {
            Ok(plan::encoder(onnx, nodes_max, &feeds, &spec.output, Arc::clone(&threads))?)
        })
        .unwrap_or_else(|message| Err(LoadError::Panic { message }))?;
        for name in &prepared.inputs {
            let fed = name == SEGMENTS || spec.inputs.iter().any(|input| input.name() == name);
            if !fed {
                return Err(LoadError::Input { name: name.clone() });
            }
        }
        let encoder = Self { prepared, spec: spec.clone(), isa: Isa::best(), threads };
        encoder.encode(Sequence::single(&[1; PROBE_TOKENS])).map_err(LoadError::Probe)?;
        Ok(encoder)
    }

    /// The embedding of one sequence, [`Encoder::dim`] numbers; of length 1 when the package asks for it.
    ///
    /// # Errors
    /// The model failed, panicked, or computed something that is not an embedding.
    pub fn encode(&self, sequence: Sequence<'_>) -> Result<Vec<f32>, EncodeError> {
        let mut all = self.encode_batch(&[sequence])?;
        all.pop().ok_or(EncodeError::NotFinite)
    }

    /// The embeddings of several sequences, none of them empty; each is what [`Encoder::encode`] gives for it alone.
    ///
    /// # Errors
    /// As [`Encoder::encode`]; one failure is a failure of all.
    pub fn encode_batch(&self, sequences: &[Sequence<'_>]) -> Result<Vec<Vec<f32>>, EncodeError> {
        if sequences.is_empty() {
            return Ok(Vec::new());
        }
        let run = |group: &[Sequence<'_>]| {
            pulse::step(group.iter().map(|sequence| sequence.ids.len()).sum());
            caught(|| self.run(group)).unwrap_or_else(|message| Err(EncodeError::Panic { message }))
        };
        if self.is_ragged() {
            return run(sequences);
        }
        let mut vectors = Vec::with_capacity(sequences.len());
        for sequence in sequences.chunks(1) {
            vectors.extend(run(sequence)?);
        }
        Ok(vectors)
    }

    /// Whether several sequences are computed in one pass; otherwise they are computed one after another.
    pub const fn is_ragged(&self) -> bool {
        self.prepared.ragged
    }

    /// In which form its weights are; none when it has no linear layer that was recognised.
    pub const fn weight_form(&self) -> Option<WeightForm> {
        self.prepared.form
    }

    /// Width of an embedding.
    pub const fn dim(&self) -> usize {
        self.spec.dim as usize
    }

    /// The plan's operators in order, each with the time by `now` that it took in one pass over `sequences`.
    ///
    /// # Errors
    /// As [`Encoder::encode_batch`].
    pub fn profile(
        &self,
        sequences: &[Sequence<'_>],
        now: &dyn Fn() -> Duration,
    ) -> Result<Vec<Timing>, EncodeError> {
        let inputs = self.inputs(sequences)?;
        let mut timings = Vec::new();
        let mut state = self.prepared.plan.spawn().map_err(EncodeError::Run)?;
        let timed = |context: &EvalContext<'_>,
                     op_state: Option<&mut (dyn OpState + 'static)>,
                     node: &TypedNode,
                     inputs: TVec<TValue>| {
            let before = now();
            let found = tract_onnx::tract_core::plan::eval(context, op_state, node, inputs);
            let (name, op) = (node.name.clone(), node.op.name().into_owned());
            timings.push(Timing { name, op, took: now().saturating_sub(before) });
            found
        };
        state.run_plan_with_eval(inputs, timed).map_err(EncodeError::Run)?;
        Ok(timings)
    }

    fn inputs(&self, sequences: &[Sequence<'_>]) -> Result<TVec<TValue>, EncodeError> {
        let tokens: usize = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let mut inputs = tvec!();
        for name in &self.prepared.inputs {
            let numbers: Vec<i64> = if name == SEGMENTS {
                let mut end = 0;
                let ends = sequences.iter().map(|sequence| {
                    end += sequence.ids.len() as i64;
                    end
                });
                std::iter::once(0).chain(ends).collect()
            } else {
                let kind = self.spec.inputs.iter().find(|input| input.name() == name);
                let of = |sequence: &Sequence<'_>| -> Vec<i64> {
                    let length = sequence.ids.len();
                    match kind {
                        Some(EncoderInput::InputIds) => {
                            sequence.ids.iter().copied().map(i64::from).collect()
                        }
                        Some(EncoderInput::AttentionMask) => vec![1; length],
                        Some(EncoderInput::TokenTypeIds) => sequence.types().collect(),
                        // The description of a text model lists no such input.
                        Some(EncoderInput::Bytes) | None => vec![0; length],
                    }
                };
                sequences.iter().flat_map(of).collect()
            };
            let tensor = if name == SEGMENTS {
                Tensor::from_shape(&[numbers.len()], &numbers)
            } else {
                Tensor::from_shape(&[1, tokens], &numbers)
            };
            inputs.push(tensor.map_err(EncodeError::Run)?.into());
        }
        Ok(inputs)
    }

    /// All of `sequences` in one pass.
    fn run(&self, sequences: &[Sequence<'_>]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let tokens: usize = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        self.prepared.pool.begin(tokens);
        let inputs = self.inputs(sequences)?;
        // Splitting work is cheap for a thread of the pool, and dear for one outside it.
        let outputs = self.threads.enter(|| self.prepared.plan.run(inputs));
        let outputs = outputs.map_err(EncodeError::Run)?;
        let states = outputs.into_iter().next();
        let shape = states.as_ref().map(|states| states.shape().to_vec()).unwrap_or_default();
        let dim = self.dim();
        let expected = match self.spec.pooling {
            Pooling::Mean | Pooling::Cls | Pooling::Last => vec![1, tokens, dim],
            Pooling::None => vec![sequences.len(), dim],
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
        let plain = states.try_as_plain_ram().map_err(|_| wrong())?;
        let states = plain.as_slice::<f32>().map_err(|_| wrong())?;
        let mut starts = vec![0_u32];
        let mut end = 0_usize;
        for sequence in sequences {
            end += sequence.ids.len();
            starts.push(u32::try_from(end).map_err(|_| wrong())?);
        }
        let mut rows = vec![0.0; sequences.len() * dim];
        match self.spec.pooling {
            Pooling::Mean => kernels::pooling::mean(self.isa, states, dim, &starts, &mut rows),
            Pooling::Cls => kernels::pooling::pick(states, dim, Row::First, &starts, &mut rows),
            Pooling::Last => kernels::pooling::pick(states, dim, Row::Last, &starts, &mut rows),
            Pooling::None => rows.copy_from_slice(states),
        }
        if self.spec.normalize {
            kernels::pooling::normalize(self.isa, &mut rows, dim);
        }
        if rows.iter().all(|number| number.is_finite()) {
            Ok(rows.chunks_exact(dim.max(1)).map(<[f32]>::to_vec).collect())
        } else {
            Err(EncodeError::NotFinite)
        }
    }
}
