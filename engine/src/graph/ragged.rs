//! Whether several sequences may stand one after another in one pass.
//!
//! They may when each operator treats every token by itself, or is one of ours that is told where sequences begin.
//! What is not known to do so makes the whole graph run one sequence at a time.

use std::collections::HashMap;

use tract_onnx::pb::NodeProto;

use crate::graph::{
    fused::{Fused, Rule},
    net::{Net, attribute, int},
    numbers,
    shapes::{Axis, Shapes},
};

/// What a value holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The same whatever the input is.
    Constant,
    /// Something for each token, along this axis; all others are fixed.
    Tokens(usize),
    /// Something for each sequence, along the first axis.
    Sequences,
}

/// What the outputs hold when the graph is ragged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ragged {
    /// Every output has an axis of tokens or of sequences that may hold several sequences.
    Yes,
    /// One sequence at a time.
    No,
}

/// Whether the graph may run several sequences at once.
pub(super) fn of(net: &Net, shapes: &Shapes) -> Ragged {
    let known = |name: &str| net.constant(name).is_some();
    let mut kinds: HashMap<String, Kind> = HashMap::new();
    for input in net.inputs() {
        kinds.insert(input.clone(), Kind::Tokens(1));
    }
    let (order, target) = (net.ancestors_of_all(net.outputs(), &known), net.outputs());
    let Some(order) = order else { return Ragged::No };
    for at in order {
        let Some(node) = net.node(at) else { return Ragged::No };
        let Some(kind) = kind_of(net, shapes, &kinds, at, node) else {
            tracing::debug!(node = node.name, op = node.op_type, "keeps sequences apart");
            return Ragged::No;
        };
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            kinds.insert(output.clone(), kind);
        }
    }
    let per_input =
        |name: &String| matches!(kinds.get(name), Some(Kind::Tokens(1) | Kind::Sequences));
    if target.iter().all(per_input) { Ragged::Yes } else { Ragged::No }
}

fn kind_of(
    net: &Net,
    shapes: &Shapes,
    kinds: &HashMap<String, Kind>,
    at: usize,
    node: &NodeProto,
) -> Option<Kind> {
    let of = |name: &String| {
        if net.constant(name).is_some() {
            return Some(Kind::Constant);
        }
        if name == crate::graph::feeds::SEGMENTS {
            return Some(Kind::Sequences);
        }
        kinds.get(name).copied()
    };
    let inputs = node.input.iter().filter(|name| !name.is_empty());
    let inputs = inputs.map(|name| Some((name, of(name)?))).collect::<Option<Vec<_>>>()?;
    if let Some(fused) = net.fused_at(at) {
        return fused_kind(fused, &inputs);
    }
    if inputs.iter().all(|(_, kind)| *kind == Kind::Constant) {
        return Some(Kind::Constant);
    }
    let standard = node.domain.is_empty() || node.domain == "ai.onnx";
    (standard && node.output.len() == 1).then_some(())?;
    let first = inputs.first()?;
    match node.op_type.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Where" => {
            together(net, shapes, &inputs)
        }
        "Cast" | "Erf" | "Tanh" | "Sqrt" | "Neg" | "Relu" | "Sigmoid" | "Gelu" | "Identity"
        | "Abs" | "Exp" | "Log" | "Reciprocal" | "Softplus" | "HardSwish" | "LeakyRelu" | "Elu" => {
            Some(first.1)
        }
        // One scale for all, or one for each column.
        "QuantizeLinear" | "DequantizeLinear" => {
            let plain = inputs.iter().skip(1).all(|(name, _)| {
                net.constant(name).is_some_and(|found| numbers::len(found) == Some(1))
            });
            plain.then_some(first.1)
        }
        "MatMul" | "Gemm" => {
            let [(_, kind), rest @ ..] = inputs.as_slice() else { return None };
            let constant = rest.iter().all(|(_, kind)| *kind == Kind::Constant);
            let matrix = net.constant(rest.first()?.0)?.dims.len() == 2;
            let rows = matches!(kind, Kind::Tokens(1) if rank(shapes, first.0) == Some(3))
                || *kind == Kind::Sequences;
            (constant && matrix && rows && int(node, "transA", 0) == 0).then_some(*kind)
        }
        "Gather" => {
            let [(_, Kind::Constant), (ids, Kind::Tokens(axis))] = inputs.as_slice() else {
                return None;
            };
            let known = int(node, "axis", 0) == 0 && rank(shapes, ids).is_some();
            known.then_some(Kind::Tokens(*axis))
        }
        "Softmax" | "LogSoftmax" | "LayerNormalization" => {
            let last = int(node, "axis", -1) == -1
                || attribute(node, "axis").map(|axis| axis.i)
                    == rank(shapes, first.0).map(|r| r as i64 - 1);
            let inside = match first.1 {
                Kind::Tokens(axis) => rank(shapes, first.0)? > axis + 1,
                Kind::Sequences => rank(shapes, first.0)? >= 2,
                Kind::Constant => true,
            };
            let rest = inputs.iter().skip(1).all(|(_, kind)| *kind == Kind::Constant);
            (last && inside && rest).then_some(first.1)
        }
        _ => None,
    }
}

fn fused_kind(fused: &Fused, inputs: &[(&String, Kind)]) -> Option<Kind> {
    let kind = inputs.first()?.1;
    match fused.rule() {
        Rule::Last { .. } | Rule::Same => {
            let states = inputs.iter().filter(|(name, _)| *name != crate::graph::feeds::SEGMENTS);
            let mut others = states.skip(1).map(|(_, kind)| *kind);
            // A dynamic product is cut along the tokens.
            let cut = matches!(fused, Fused::Linear(linear) if linear.needs_segments());
            let fits = matches!(kind, Kind::Tokens(1)) || (kind == Kind::Sequences && !cut);
            (fits && others.all(|other| other == kind)).then_some(kind)
        }
        Rule::Append(_) => matches!(kind, Kind::Tokens(_)).then_some(kind),
        Rule::Heads(_) => (kind == Kind::Tokens(1)).then_some(kind),
        Rule::Positions { batched } => {
            (kind == Kind::Tokens(1)).then_some(Kind::Tokens(usize::from(batched)))
        }
        Rule::FirstTokens => (kind == Kind::Tokens(1)).then_some(Kind::Sequences),
    }
}

fn rank(shapes: &Shapes, name: &str) -> Option<usize> {
    shapes.axes(name).map(|axes| axes.len())
}

/// What an operator that works number by number makes of its inputs, when broadcasting mixes no tokens.
fn together(net: &Net, shapes: &Shapes, inputs: &[(&String, Kind)]) -> Option<Kind> {
    let axes_of = |name: &String| match net.constant(name) {
        Some(tensor) => Some(numbers::shape(tensor)?.into_iter().map(Axis::Fixed).collect()),
        None => shapes.axes(name),
    };
    // Axes are counted from the last one, where broadcasting begins.
    let mut found: Option<(usize, Kind)> = None;
    let mut rank_max = 0;
    for (name, kind) in inputs {
        let rank = axes_of(name)?.len();
        rank_max = rank_max.max(rank);
        let from_last = match kind {
            Kind::Constant => continue,
            Kind::Tokens(axis) => rank.checked_sub(axis + 1)?,
            Kind::Sequences => rank.checked_sub(1)?,
        };
        let sequences = *kind == Kind::Sequences;
        match found {
            None => found = Some((from_last, *kind)),
            Some((known, before)) => {
                let both = (before == Kind::Sequences) == sequences;
                (known == from_last && both).then_some(())?;
            }
        }
    }
    let (from_last, kind) = found?;
    for (name, kind) in inputs {
        if *kind == Kind::Constant {
            let axes = axes_of(name)?;
            let across = axes.len().checked_sub(from_last + 1).and_then(|at| axes.get(at));
            across.is_none_or(|axis| *axis == Axis::Fixed(1)).then_some(())?;
        }
    }
    Some(match kind {
        Kind::Tokens(_) => Kind::Tokens(rank_max.checked_sub(from_last + 1)?),
        Kind::Sequences => (rank_max == from_last + 1).then_some(Kind::Sequences)?,
        Kind::Constant => Kind::Constant,
    })
}
