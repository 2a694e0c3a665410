//! A graph that takes tensors and gives tensors, whatever they mean: one plan for inputs of given types and shapes.
//!
//! It goes through the same reader, limits and rewrites as an encoder ([`crate::graph`]), and like one it belongs in
//! a worker process: panics are caught here and become errors, the rest is held by [`crate::worker::limits`] and
//! [`crate::worker::hang`].

use std::sync::Arc;

use tract_onnx::prelude::{
    Datum as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, IntoTensor as _, TDim,
    TValue, TVec, Tensor, TractError, TypedSimplePlan,
};

use crate::{
    cause,
    graph::{file::GraphError, plan},
    kernels::threads::Threads,
};

/// A graph ready to run on tensors of the types and shapes it was prepared for.
#[derive(Debug)]
pub struct TensorModel {
    plan: Arc<TypedSimplePlan>,
    inputs: usize,
}

/// What is known of an input before the graph runs.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// Its type and shape are this tensor's.
    Shape(&'a Tensor),
    /// It is always this tensor: many operators take axes, shapes and sizes only so.
    Value(&'a Tensor),
}

/// Why a graph does not run on these tensors.
#[derive(Debug, thiserror::Error)]
pub enum TensorModelError {
    /// Refused by the reader.
    #[error("reading the model's graph")]
    Graph(#[from] GraphError),
    /// It has another number of inputs.
    #[error("model has {wanted} inputs and is given {given} tensors")]
    Inputs {
        /// Tensors that were given.
        given: usize,
        /// Inputs that it has.
        wanted: usize,
    },
    /// tract refuses it.
    #[error("preparing the model for these inputs")]
    Prepare(#[source] TractError),
    /// tract failed on it.
    #[error("running the model")]
    Run(#[source] TractError),
    /// tract panicked on it.
    #[error("model made the engine panic: {message}")]
    Panic {
        /// What it said.
        message: String,
    },
}

impl TensorModel {
    /// Prepares the graph in `onnx`, of at most `nodes_max` nodes, for what is `given`, in the order in which the graph
    /// names its inputs.
    ///
    /// # Errors
    /// The graph is refused, or cannot be prepared for such inputs.
    pub fn load(
        onnx: &[u8],
        nodes_max: usize,
        given: &[Given<'_>],
    ) -> Result<Self, TensorModelError> {
        caught(|| {
            let mut graph = plan::general(onnx, nodes_max, Arc::new(Threads::one()))?;
            let wanted = graph.inputs.len();
            if given.len() != wanted {
                return Err(TensorModelError::Inputs { given: given.len(), wanted });
            }
            let prepared = (|| {
                for (at, given) in given.iter().enumerate() {
                    let fact = match *given {
                        Given::Shape(like) => {
                            InferenceFact::dt_shape(like.datum_type(), like.shape())
                        }
                        Given::Value(value) => InferenceFact::from(value.clone()),
                    };
                    graph.set_input_fact(at, fact)?;
                }
                graph.into_typed()?.into_decluttered()?.into_optimized()?.into_runnable()
            })();
            Ok(Self { plan: prepared.map_err(TensorModelError::Prepare)?, inputs: wanted })
        })
    }

    /// What the graph makes of `inputs`, in the order in which it names its outputs.
    ///
    /// # Errors
    /// The inputs are not those it was prepared for, or it fails on them.
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, TensorModelError> {
        if inputs.len() != self.inputs {
            return Err(TensorModelError::Inputs { given: inputs.len(), wanted: self.inputs });
        }
        caught(|| {
            let inputs: TVec<TValue> = inputs.into_iter().map(Into::into).collect();
            let outputs = self.plan.run(inputs).map_err(TensorModelError::Run)?;
            outputs.into_iter().map(|value| plain(value.into_tensor())).collect()
        })
    }
}

/// tract counts dimensions in a type of its own, which ONNX knows as whole numbers.
fn plain(tensor: Tensor) -> Result<Tensor, TensorModelError> {
    if tensor.datum_type() != TDim::datum_type() {
        return Ok(tensor);
    }
    tensor.cast_to::<i64>().map(|cast| cast.into_owned()).map_err(TensorModelError::Run)
}

fn caught<T>(work: impl FnOnce() -> Result<T, TensorModelError>) -> Result<T, TensorModelError> {
    cause::caught(work).unwrap_or_else(|message| Err(TensorModelError::Panic { message }))
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::tensor1;

    use super::*;

    /// `y = x + x`, as bytes of a ModelProto: one node, one input and one output of `elem_type`, 3 numbers.
    fn doubling(elem_type: u8) -> Vec<u8> {
        let field = |number: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            [&[number << 3 | 2, length], content].concat()
        };
        let shape = field(2, &field(1, &[1 << 3, 3]));
        let value = |name: &str| {
            let tensor = field(1, &[&[1 << 3, elem_type][..], &shape].concat());
            [field(1, name.as_bytes()), field(2, &tensor)].concat()
        };
        let node = [field(1, b"x"), field(1, b"x"), field(2, b"y"), field(4, b"Add")].concat();
        let graph = [field(1, &node), field(11, &value("x")), field(12, &value("y"))].concat();
        [field(7, &graph), field(8, &[2 << 3, 13])].concat()
    }

    #[test]
    fn any_type_of_tensor_goes_through_one_plan() {
        let input = tensor1(&[1.5_f32, -2.0, 0.0]);
        let model = TensorModel::load(&doubling(1), 10, &[Given::Shape(&input)]).unwrap();
        assert_eq!(model.run(vec![input]).unwrap(), [tensor1(&[3.0_f32, -4.0, 0.0])]);
        let input = tensor1(&[1_i64, -2, 0]);
        let model = TensorModel::load(&doubling(7), 10, &[Given::Value(&input)]).unwrap();
        assert_eq!(model.run(vec![input]).unwrap(), [tensor1(&[2_i64, -4, 0])]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_kind() {
        let input = tensor1(&[1_i64, -2, 0]);
        let load =
            |onnx: &[u8], given: &[Given<'_>]| TensorModel::load(onnx, 1, given).unwrap_err();
        let refused = load(b"\xff", &[]);
        assert!(matches!(refused, TensorModelError::Graph(_)), "{refused:?}");
        let refused = load(&doubling(7), &[]);
        assert!(matches!(refused, TensorModelError::Inputs { given: 0, wanted: 1 }), "{refused:?}");
        let model = TensorModel::load(&doubling(7), 1, &[Given::Shape(&input)]).unwrap();
        assert!(model.run(vec![]).is_err());
        assert!(model.run(vec![tensor1(&[1.5_f32; 3])]).is_err());
    }
}
