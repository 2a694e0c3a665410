//! The shapes of all values of a graph, by tract's own analysis, for one sequence of a length that stays a symbol.

use std::collections::HashMap;

use tract_onnx::{
    Onnx,
    prelude::{
        Datum as _, InferenceFact, InferenceModel, InferenceModelExt as _, OutletId, Symbol,
        SymbolValues, TDim, TVec, ToDim as _, TractResult,
    },
    tract_core::internal::DimLike as _,
    tract_hir::infer::Factoid as _,
};

use crate::graph::{
    feeds::SEGMENTS,
    net::Net,
    translate::{Stand, translate},
};

/// Shapes by the name of the value.
#[derive(Debug)]
pub(super) struct Shapes {
    tokens: Symbol,
    found: HashMap<String, TVec<TDim>>,
}

/// One axis of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// As long as the sequence.
    Tokens,
    /// Always this long.
    Fixed(usize),
}

impl Shapes {
    /// Finds what can be found; a value whose shape stays unknown is left out.
    pub(super) fn find(framework: &Onnx, net: &Net) -> TractResult<Self> {
        let mut inputs = net.inputs().to_vec();
        inputs.push(SEGMENTS.to_owned());
        let stands =
            net.fused_nodes().map(|(name, fused)| (name.clone(), Stand::Shape(fused.rule())));
        let model = net.model(&net.places(), &inputs, net.outputs());
        let mut model = translate(framework, &model, &stands.collect())?;
        let tokens = declare(&mut model, &inputs, Sequences::One)?;
        // What stays unknown is reported when the model is prepared; here it only is not rewritten.
        let _complete: bool = model.analyse(true).is_ok();
        let mut found = HashMap::new();
        for node in model.nodes() {
            for (slot, output) in node.outputs.iter().enumerate() {
                let name = model.outlet_label(OutletId::new(node.id, slot)).unwrap_or(&node.name);
                if let Some(shape) = output.fact.shape.concretize() {
                    found.insert(name.to_owned(), shape);
                }
            }
        }
        Ok(Self { tokens, found })
    }

    /// The axes of `value`; `None` when they are unknown, or depend on the length otherwise than by being it.
    pub(super) fn axes(&self, value: &str) -> Option<Vec<Axis>> {
        let axis = |dim: &TDim| {
            if *dim == self.tokens.to_dim() {
                return Some(Axis::Tokens);
            }
            dim.to_usize().ok().map(Axis::Fixed)
        };
        self.found.get(value)?.iter().map(axis).collect()
    }

    /// The lengths of the axes of `value` for a sequence of `tokens`.
    pub(super) fn at(&self, value: &str, tokens: i64) -> Option<Vec<i64>> {
        let values = SymbolValues::default().with(&self.tokens, tokens);
        self.found.get(value)?.iter().map(|dim| dim.eval(&values).to_i64().ok()).collect()
    }
}

/// How many sequences a declared model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sequences {
    /// One, so that shapes are those of one.
    One,
    /// Any number.
    Any,
}

/// Says type and shape of the inputs: tokens whose number is a symbol, and the boundaries of the sequences.
pub(super) fn declare(
    model: &mut InferenceModel,
    inputs: &[String],
    sequences: Sequences,
) -> TractResult<Symbol> {
    let tokens = model.symbols.sym("tokens");
    let boundaries = match sequences {
        Sequences::One => 2.to_dim(),
        Sequences::Any => model.symbols.sym("boundaries").to_dim(),
    };
    for (at, name) in inputs.iter().enumerate() {
        let shape: TVec<TDim> = if name == SEGMENTS {
            [boundaries.clone()].into_iter().collect()
        } else {
            [1.to_dim(), tokens.to_dim()].into_iter().collect()
        };
        model.set_input_fact(at, InferenceFact::dt_shape(i64::datum_type(), shape))?;
    }
    Ok(tokens)
}
