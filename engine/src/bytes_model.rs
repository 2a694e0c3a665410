//! A model that looks at numbers of a fixed width: one plan for each number of rows that is computed at once.

use std::sync::Arc;

use tract_onnx::prelude::{
    Datum, InferenceFact, InferenceModelExt as _, IntoRunnable as _, IntoTensor as _, Tensor,
    TractResult, TypedSimplePlan, tvec,
};

use crate::{
    cause::caught,
    encoder::{EncodeError, LoadError},
    encoder_spec::EncoderSpec,
    graph::plan,
    kernels::threads::Threads,
    pulse,
};

/// How many rows are computed at once. What is left over goes through the smaller ones, so nothing is padded.
pub const BUCKETS: [usize; 3] = [16, 4, 1];

/// A graph ready to run.
#[derive(Debug)]
pub struct BytesModel {
    /// One for each of [`BUCKETS`].
    plans: Vec<(usize, Arc<TypedSimplePlan>)>,
    output: String,
    window: usize,
    dim: usize,
}

impl BytesModel {
    /// Prepares the graph in `onnx` for rows of `window` numbers, and tries it once.
    ///
    /// # Errors
    /// The graph is refused, does not run, or does not do what `spec` says.
    pub fn load(
        onnx: &[u8],
        nodes_max: usize,
        spec: &EncoderSpec,
        window: usize,
    ) -> Result<Self, LoadError> {
        let plans = caught(|| {
            let plan = |rows| -> Result<_, LoadError> {
                let graph = plan::general(onnx, nodes_max, Arc::new(Threads::one()))?;
                let plan = prepare(graph, spec, [rows, window]).map_err(LoadError::Prepare)?;
                Ok((rows, plan))
            };
            BUCKETS.into_iter().map(plan).collect()
        })
        .unwrap_or_else(|message| Err(LoadError::Panic { message }))?;
        let dim = spec.dim as usize;
        let model = Self { plans, output: spec.output.clone(), window, dim };
        for bucket in BUCKETS {
            let row = vec![0; window];
            model.compute(&vec![row.as_slice(); bucket]).map_err(LoadError::Probe)?;
        }
        Ok(model)
    }

    /// What the model gives for each of `rows`, which have [`BytesModel::window`] numbers each.
    ///
    /// # Errors
    /// The model failed, panicked, or computed something else than it should.
    pub fn compute(&self, rows: &[&[i32]]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let mut outputs = Vec::with_capacity(rows.len());
        let mut rest = rows;
        while !rest.is_empty() {
            let plan = self.plans.iter().find(|(bucket, _)| *bucket <= rest.len());
            // The smallest bucket is 1.
            let Some((bucket, plan)) = plan else { break };
            let (now, later) = rest.split_at(*bucket);
            pulse::step(bucket * self.window);
            let computed = caught(|| self.run(plan, now))
                .unwrap_or_else(|message| Err(EncodeError::Panic { message }))?;
            outputs.extend(computed);
            rest = later;
        }
        Ok(outputs)
    }

    /// How many numbers a row has.
    pub const fn window(&self) -> usize {
        self.window
    }

    fn run(
        &self,
        plan: &Arc<TypedSimplePlan>,
        rows: &[&[i32]],
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let numbers = rows.concat();
        let input =
            Tensor::from_shape(&[rows.len(), self.window], &numbers).map_err(EncodeError::Run)?;
        let outputs = plan.run(tvec!(input.into())).map_err(EncodeError::Run)?;
        let output = outputs.into_iter().next().map(|value| value.into_tensor());
        let shape = output.as_ref().map(|output| output.shape().to_vec()).unwrap_or_default();
        let expected = [rows.len(), self.dim];
        let wrong = || EncodeError::Shape {
            name: self.output.clone(),
            shape: shape.as_slice().into(),
            expected: expected.as_slice().into(),
            tokens: numbers.len(),
        };
        if shape != expected {
            return Err(wrong());
        }
        let output = output.ok_or_else(wrong)?;
        let output = output.to_plain_array_view::<f32>().map_err(|_| wrong())?;
        let output = output.as_slice().ok_or_else(wrong)?;
        if output.iter().any(|number| !number.is_finite()) {
            return Err(EncodeError::NotFinite);
        }
        Ok(output.chunks_exact(self.dim.max(1)).map(<[f32]>::to_vec).collect())
    }
}

fn prepare(
    mut graph: tract_onnx::prelude::InferenceModel,
    spec: &EncoderSpec,
    shape: [usize; 2],
) -> TractResult<Arc<TypedSimplePlan>> {
    graph.set_input_names(spec.inputs.iter().map(|input| input.name()))?;
    graph.set_input_fact(0, InferenceFact::dt_shape(i32::datum_type(), shape))?;
    graph.select_outputs_by_name([&spec.output])?;
    graph.into_typed()?.into_decluttered()?.into_optimized()?.into_runnable()
}
