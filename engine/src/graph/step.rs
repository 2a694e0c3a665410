//! One of our operators inside tract's plan, and the memory that they share.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TDim, TValue, TVec, Tensor, TractResult, TypedFact,
    TypedOp, as_op, bail, not_out_of_plan, op_as_typed_op, tvec,
};

use crate::graph::fused::Rule;

/// Tensors kept for later steps; what is larger than this many is let go.
const KEPT_MAX: usize = 16;

/// What a fused node computes, packed for the machine.
pub(super) trait Step: fmt::Debug + Send + Sync {
    /// Computes the output.
    fn run(&self, inputs: &[TValue], pool: &Pool) -> TractResult<TValue>;
}

/// Buffers that were used and may be used again, so that a pass neither clears nor faults in memory at each step.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tokens: usize,
    tensors: Vec<Arc<Tensor>>,
}

impl Pool {
    /// An f32 tensor of this shape that `fill` writes whole; what it holds before is what an earlier step left.
    pub(super) fn floats(
        &self,
        shape: &[usize],
        fill: impl FnOnce(&mut [f32]) -> TractResult<()>,
    ) -> TractResult<TValue> {
        let mut tensor = match self.take(shape) {
            Some(tensor) => tensor,
            None => Arc::new(Tensor::zero::<f32>(shape)?),
        };
        let Some(own) = Arc::get_mut(&mut tensor) else {
            bail!("a buffer that is used was taken for another use");
        };
        own.set_shape(shape)?;
        fill(own.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.tensors.len() >= KEPT_MAX {
            // The oldest one goes; if a step still holds it, it goes when that is done.
            kept.tensors.remove(0);
        }
        kept.tensors.push(Arc::clone(&tensor));
        Ok(TValue::from_const(tensor))
    }

    fn take(&self, shape: &[usize]) -> Option<Arc<Tensor>> {
        let volume: usize = shape.iter().product();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let free = |tensor: &Arc<Tensor>| Arc::strong_count(tensor) == 1 && tensor.len() == volume;
        let at = kept.tensors.iter().position(free)?;
        Some(kept.tensors.remove(at))
    }

    /// Begins a pass over this many tokens: buffers of another length are of no use to it.
    pub(crate) fn begin(&self, tokens: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.tokens != tokens {
            *kept = Kept { tokens, tensors: Vec::new() };
        }
    }
}

/// A [`Step`] as tract's operator.
#[derive(Debug, Clone)]
pub(super) struct StepOp {
    /// What a profile calls it.
    pub(super) name: &'static str,
    /// How the output's shape follows.
    pub(super) rule: Rule,
    /// What computes it.
    pub(super) step: Arc<dyn Step>,
    /// Where its buffers come from.
    pub(super) pool: Arc<Pool>,
}

impl PartialEq for StepOp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.step, &other.step)
    }
}

impl Eq for StepOp {}

impl Op for StepOp {
    fn name(&self) -> StaticName {
        self.name.into()
    }

    op_as_typed_op!();
}

impl EvalOp for StepOp {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(tvec!(self.step.run(&inputs, &self.pool)?))
    }
}

impl TypedOp for StepOp {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shapes: Vec<TVec<TDim>> = inputs.iter().map(|fact| fact.shape.to_tvec()).collect();
        let Some((kind, shape)) = self.rule.output(&shapes) else {
            bail!("{} does not take inputs of shapes {shapes:?}", self.name);
        };
        Ok(tvec!(TypedFact::dt_shape(kind, shape)))
    }
}

/// The f32 numbers of a tensor.
pub(super) fn numbers(value: &TValue) -> TractResult<&[f32]> {
    value.try_as_plain_ram()?.as_slice::<f32>()
}

/// The i64 numbers of a tensor.
pub(super) fn ids(value: &TValue) -> TractResult<&[i64]> {
    value.try_as_plain_ram()?.as_slice::<i64>()
}

/// Where the sequences begin, and where the last one ends, which must be `tokens`.
pub(super) fn segments(value: Option<&TValue>, tokens: usize) -> TractResult<Vec<u32>> {
    let Some(value) = value else { bail!("an operator that needs the segments has none") };
    let starts =
        ids(value)?.iter().map(|start| u32::try_from(*start)).collect::<Result<Vec<_>, _>>()?;
    let rising = starts.windows(2).all(|pair| pair[0] <= pair[1]);
    if !rising
        || starts.first() != Some(&0)
        || starts.last().map(|last| *last as usize) != Some(tokens)
    {
        bail!("the segments {starts:?} do not divide {tokens} tokens");
    }
    Ok(starts)
}
