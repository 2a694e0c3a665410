//! Runs a small part of a graph at load time to see what it computes.
//!
//! Exporters write masks, position ids and the splitting into heads in dozens of ways, all of which depend on nothing
//! but the length of the sequence. Rather than know every way, the rewrites run the part on a few lengths and compare
//! it with what it should be.

use std::collections::HashMap;

use tract_onnx::{
    Onnx,
    pb::{ModelProto, TensorProto},
    prelude::{InferenceModelExt as _, IntoRunnable as _, IntoTensor, Tensor, tvec},
};

use crate::graph::{
    feeds::Feeds,
    net::{Net, attribute, int},
    shapes::Shapes,
    translate::{framework, translate},
};

const INT32: i64 = 6;
const INT64: i64 = 7;
/// Most nodes that a part may have.
const NODES_MAX: usize = 256;
/// Most numbers of what a part is given.
const GIVEN_MAX: i64 = 1 << 24;

/// A part's surroundings.
pub(super) struct Probe<'a> {
    pub(super) net: &'a Net,
    pub(super) shapes: &'a Shapes,
    pub(super) feeds: &'a Feeds,
    framework: Onnx,
}

impl<'a> Probe<'a> {
    pub(super) fn new(net: &'a Net, shapes: &'a Shapes, feeds: &'a Feeds) -> Self {
        Self { net, shapes, feeds, framework: framework() }
    }

    /// `target` for a sequence of `tokens`, computed from the values that are `given` and from the attention mask.
    /// `None` when it depends on anything else, or does not run.
    pub(super) fn run(&self, target: &str, tokens: i64, given: Vec<TensorProto>) -> Option<Tensor> {
        self.plan(&self.part(target, tokens, given)?)
    }

    /// The same with integers of 32 bits where the graph casts to 64: tract takes those for symbols, which cannot be
    /// summed up. Only for numbers that are compared afterwards.
    pub(super) fn run_narrow(
        &self,
        target: &str,
        tokens: i64,
        given: Vec<TensorProto>,
    ) -> Option<Tensor> {
        let mut part = self.part(target, tokens, given)?;
        for node in part.graph.iter_mut().flat_map(|graph| &mut graph.node) {
            for attribute in &mut node.attribute {
                if attribute.name == "to" && attribute.i == INT64 {
                    attribute.i = INT32;
                }
            }
        }
        self.plan(&part)
    }

    fn part(&self, target: &str, tokens: i64, given: Vec<TensorProto>) -> Option<ModelProto> {
        let mut given = given;
        if let Some(mask) = &self.feeds.mask {
            let ones = vec![1; usize::try_from(tokens).ok()?];
            given.push(int_constant(mask, &[1, tokens], &ones));
        }
        let is_given = |name: &str| given.iter().any(|tensor| tensor.name == name);
        let cut = |name: &str| is_given(name) || self.shape_of(name, tokens).is_some();
        let places = self.net.ancestors(target, &cut)?;
        (places.len() <= NODES_MAX && !places.is_empty()).then_some(())?;
        let mut constants = Vec::new();
        for at in &places {
            let node = self.net.node(*at)?;
            self.net.fused_at(*at).is_none().then_some(())?;
            let plain =
                node.attribute.iter().all(|found| found.g.is_none() && found.graphs.is_empty());
            (plain && !node.op_type.starts_with("Random")).then_some(())?;
            for input in node.input.iter().filter(|name| !name.is_empty()) {
                if is_given(input) || self.net.constant(input).is_some() {
                    continue;
                }
                match self.shape_of(input, tokens) {
                    Some(shape) => constants.push(shape),
                    // Computed by another of the places, or an input of the graph that is not given.
                    None => drop(self.net.producer(input)?),
                }
            }
        }
        constants.extend(given);
        constants.sort_by(|one, other| one.name.cmp(&other.name));
        constants.dedup_by(|one, other| one.name == other.name);
        let mut model = self.net.model(&places, &[], &[target.to_owned()]);
        model.graph.as_mut()?.initializer.extend(constants);
        Some(model)
    }

    fn plan(&self, part: &ModelProto) -> Option<Tensor> {
        let model = translate(&self.framework, part, &HashMap::new());
        let plan = model.and_then(|model| model.into_typed()?.into_runnable()).ok()?;
        plan.run(tvec!()).ok()?.into_iter().next().map(IntoTensor::into_tensor)
    }

    /// What the `Shape` node that computes `value` gives.
    fn shape_of(&self, value: &str, tokens: i64) -> Option<TensorProto> {
        let (_, node) = self.net.made_by(value, "Shape")?;
        let shape = self.shapes.at(node.input.first()?, tokens)?;
        let rank = i64::try_from(shape.len()).ok()?;
        let bound = |name: &str, default: i64| {
            let given = attribute(node, name).map_or(default, |_| int(node, name, default));
            let given = if given < 0 { given + rank } else { given };
            usize::try_from(given.clamp(0, rank)).ok()
        };
        let (start, end) = (bound("start", 0)?, bound("end", rank)?);
        let shape = shape.get(start..end.max(start))?;
        Some(int_constant(value, &[i64::try_from(shape.len()).ok()?], shape))
    }

    /// Whether `target` depends on `name`, other than by its shape.
    pub(super) fn depends(&self, target: &str, name: &str) -> bool {
        let cut = |value: &str| self.shape_of(value, 1).is_some();
        let Some(places) = self.net.ancestors(target, &cut) else { return true };
        let uses = |at: &usize| {
            self.net.node(*at).is_some_and(|node| node.input.iter().any(|input| input == name))
        };
        target == name || places.iter().any(uses)
    }

    /// The one number that `value` is, whatever the length.
    pub(super) fn scalar(&self, value: &str) -> Option<f32> {
        if let Some(tensor) = self.net.constant(value) {
            return crate::graph::numbers::float(tensor);
        }
        let at = |tokens| {
            let found = self.run(value, tokens, Vec::new())?;
            let found = found.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?.to_vec();
            match *found.as_slice() {
                [number] => Some(number),
                _ => None,
            }
        };
        let (one, other) = (at(3)?, at(8)?);
        (one == other && one.is_finite()).then_some(one)
    }

    /// What `target` is when `base`, of the shape it has for `tokens`, counts up from one.
    pub(super) fn counted(&self, target: &str, base: &str, tokens: i64) -> Option<Tensor> {
        let dims = self.shapes.at(base, tokens)?;
        let count = dims.iter().try_fold(1_i64, |product, dim| product.checked_mul(*dim))?;
        (count <= GIVEN_MAX).then_some(())?;
        let raw_data = (1..=count).flat_map(|number| (number as f32).to_le_bytes()).collect();
        let given = TensorProto {
            name: base.into(),
            data_type: 1,
            dims,
            raw_data,
            ..TensorProto::default()
        };
        self.run(target, tokens, vec![given])
    }
}

/// A constant of integers.
pub(super) fn int_constant(name: &str, dims: &[i64], numbers: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: 7,
        dims: dims.to_vec(),
        raw_data: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}
