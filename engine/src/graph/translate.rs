//! From a rewritten file to tract's model: where a fused node stands, our operator is put.

use std::collections::HashMap;

use tract_onnx::{
    Onnx,
    pb::ModelProto,
    prelude::{Framework as _, InferenceFact, InferenceModel, TVec, TractResult},
    tract_core::internal::{
        EvalContext, EvalOp, Op, OutletId, SpecialOps as _, StaticName, TDim, TValue, TypedModel,
        TypedOp, bail, not_a_typed_op, not_out_of_plan,
    },
    tract_hir::infer::{Factoid as _, InferenceNode, InferenceOp},
};

use crate::graph::{fused::Rule, net::FUSED, step::StepOp};

/// What stands for a fused node.
#[derive(Debug, Clone)]
pub(super) enum Stand {
    /// Enough to find the shapes of the graph.
    Shape(Rule),
    /// Enough to run it.
    Step(StepOp),
}

/// A fused node for tract's analysis of types and shapes.
#[derive(Debug, Clone)]
struct FusedOp(Stand);

/// tract's reader of ONNX.
pub(super) fn framework() -> Onnx {
    // Shapes that the exporter wrote down name its own symbols, which do not unify with ours; tract infers them anyway.
    tract_onnx::onnx().with_ignore_value_info(true)
}

/// tract's model of `model`, in which `stands` replace the fused nodes by their names.
pub(super) fn translate(
    framework: &Onnx,
    model: &ModelProto,
    stands: &HashMap<String, Stand>,
) -> TractResult<InferenceModel> {
    let mut found = framework.model_for_proto_model(model)?;
    for node in found.nodes_mut() {
        if let Some(stand) = stands.get(&node.name) {
            node.op = Box::new(FusedOp(stand.clone()));
        } else if node.op.name() == FUSED {
            bail!("node `{}` is fused and nothing computes it", node.name);
        }
    }
    Ok(found)
}

impl FusedOp {
    fn rule(&self) -> Rule {
        match &self.0 {
            Stand::Shape(rule) => *rule,
            Stand::Step(step) => step.rule,
        }
    }
}

impl Op for FusedOp {
    fn name(&self) -> StaticName {
        FUSED.into()
    }

    not_a_typed_op!();
}

impl PartialEq for FusedOp {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

impl Eq for FusedOp {}

impl EvalOp for FusedOp {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, _: TVec<TValue>) -> TractResult<TVec<TValue>> {
        bail!("a fused node runs in a typed model only")
    }
}

impl InferenceOp for FusedOp {
    fn infer_facts(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        let shapes: Option<Vec<TVec<TDim>>> =
            inputs.iter().map(|fact| fact.shape.concretize()).collect();
        let mut found: TVec<InferenceFact> = outputs.into_iter().cloned().collect();
        if let (Some(shapes), [found]) = (shapes, found.as_mut_slice()) {
            let Some((kind, shape)) = self.rule().output(&shapes) else {
                bail!("{:?} does not take inputs of shapes {shapes:?}", self.rule());
            };
            *found = InferenceFact::dt_shape(kind, shape);
        }
        let own = |facts: TVec<&InferenceFact>| facts.into_iter().cloned().collect();
        Ok((own(inputs), found, own(observed)))
    }

    fn as_op(&self) -> &dyn Op {
        self
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self
    }

    fn to_typed(
        &self,
        _: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        let Stand::Step(step) = &self.0 else {
            bail!("node `{}` is known by its shape only", node.name);
        };
        let inputs: Option<TVec<OutletId>> =
            node.inputs.iter().map(|inlet| mapping.get(inlet).copied()).collect();
        let Some(inputs) = inputs else { bail!("node `{}` lacks an input", node.name) };
        target.wire_node(node.name.as_str(), step.clone(), &inputs)
    }
}
