//! Finds multi-head attention: softmax over the product of queries and keys, times the values.
//!
//! What surrounds the two products – splitting into heads, transposing, masks – is not matched by its form but run on
//! numbers that tell where each one went ([`crate::graph::probe`]).

use std::collections::HashMap;

use tract_onnx::prelude::Tensor;

use crate::{
    graph::{
        feeds::{Feeds, SEGMENTS},
        fused::{Attention, Fused},
        net::{Net, int, is_default},
        probe::Probe,
        shapes::{Axis, Shapes},
    },
    kernels::attention::Products,
};

/// Lengths on which the splitting into heads is tried.
const LAYOUT_TOKENS: [i64; 2] = [5, 7];
/// Lengths on which a mask must let everything through: a window or a causal mask shows at one of them.
const MASK_TOKENS: [i64; 4] = [1, 2, 37, 600];
/// Most nodes between two products.
const CHAIN_MAX: usize = 16;

/// What was found around one softmax.
struct Found {
    attention: Attention,
    query: String,
    key: String,
    value: String,
    output: String,
    last: usize,
}

/// Replaces every attention whose mask does nothing for sequences without padding.
pub(super) fn fuse(net: &mut Net, shapes: &Shapes, feeds: &Feeds) {
    let mut masks = HashMap::new();
    let mut all = Vec::new();
    {
        let probe = Probe::new(net, shapes, feeds);
        for at in net.places() {
            if net.node(at).is_some_and(|node| is_default(node, "MatMul")) {
                all.extend(find(&probe, &mut masks, at));
            }
        }
    }
    for found in all {
        let Found { attention, query, key, value, output, last } = found;
        let inputs = vec![query, key, value, SEGMENTS.to_owned()];
        net.put(&[last], Fused::Attention(attention), inputs, output);
    }
    net.prune();
}

/// The attention whose second product is the node at `at`.
fn find(probe: &Probe<'_>, masks: &mut HashMap<String, Option<Mask>>, at: usize) -> Option<Found> {
    let net = probe.net;
    let product = net.node(at)?;
    let [weights, value] = product.input.as_slice() else { return None };
    let context = product.output.first()?;
    let softmax = after_softmax(net, weights)?;
    let (_, softmax) = net.made_by(&softmax, "Softmax")?;
    let scores = softmax.input.first()?;
    let axes = probe.shapes.axes(scores)?;
    let [Axis::Fixed(1), Axis::Fixed(heads), Axis::Tokens, Axis::Tokens] = *axes.as_slice() else {
        return None;
    };
    matches!(int(softmax, "axis", -1), -1 | 3).then_some(())?;
    let (scale, query, key) = before_softmax(probe, masks, scores)?;
    let axes = probe.shapes.axes(&query)?;
    let [.., Axis::Fixed(head_dim)] = *axes.as_slice() else { return None };
    let (query, query_factor) = heads_of(probe, &query, heads, head_dim, Order::TokensFirst)?;
    let (key, key_factor) = heads_of(probe, &key, heads, head_dim, Order::WidthFirst)?;
    let (value, value_factor) = heads_of(probe, value, heads, head_dim, Order::TokensFirst)?;
    (value_factor == 1.0).then_some(())?;
    let (last, output) = joined(probe, context, heads, head_dim)?;
    let scale = scale * query_factor * key_factor;
    (scale.is_finite() && scale > 0.0).then_some(())?;
    let attention = Attention { heads, head_dim, scale, products: Products::Floats };
    Some(Found { attention, query, key, value, output, last })
}

/// The softmax behind `weights`, past what does nothing to it: a guard against rows without any token, dropout.
fn after_softmax(net: &Net, weights: &str) -> Option<String> {
    let mut value = weights.to_owned();
    for _ in 0..CHAIN_MAX {
        if net.made_by(&value, "Softmax").is_some() {
            return Some(value);
        }
        if let Some((_, node)) = net.made_by(&value, "Where") {
            let [is_nan, zero, kept] = node.input.as_slice() else { return None };
            let (_, guard) = net.made_by(is_nan, "IsNaN")?;
            let zero = crate::graph::numbers::float(net.constant(zero)?)?;
            (zero == 0.0 && guard.input.first() == Some(kept)).then_some(())?;
            value.clone_from(kept);
        } else {
            let (_, node) = net.made_by(&value, "Dropout")?;
            (node.input.len() == 1).then_some(())?;
            value.clone_from(node.input.first()?);
        }
    }
    None
}

/// Factor, left and right operand of the product behind the scores, past masks and factors.
fn before_softmax(
    probe: &Probe<'_>,
    masks: &mut HashMap<String, Option<Mask>>,
    scores: &str,
) -> Option<(f32, String, String)> {
    let net = probe.net;
    let (mut value, mut scale) = (scores.to_owned(), 1.0_f32);
    for _ in 0..CHAIN_MAX {
        let node = net.node(net.producer(&value)?)?;
        let (left, right) = (node.input.first()?, node.input.get(1));
        if is_default(node, "MatMul") {
            return Some((scale, left.clone(), right?.clone()));
        }
        let mut mask =
            |name: &str| *masks.entry(name.to_owned()).or_insert_with(|| mask_of(probe, name));
        value = if is_default(node, "Add") {
            if mask(right?) == Some(Mask::Zeros) {
                left.clone()
            } else if mask(left) == Some(Mask::Zeros) {
                right?.clone()
            } else {
                return None;
            }
        } else if is_default(node, "Where") {
            match mask(left)? {
                Mask::True => right?.clone(),
                Mask::False => node.input.get(2)?.clone(),
                Mask::Zeros => return None,
            }
        } else if is_default(node, "Mul") {
            let (kept, factor) = match probe.scalar(right?) {
                Some(factor) => (left, factor),
                None => (right?, probe.scalar(left)?),
            };
            scale *= factor;
            kept.clone()
        } else if is_default(node, "Div") {
            scale /= probe.scalar(right?)?;
            left.clone()
        } else {
            return None;
        };
    }
    None
}

/// What a mask is when there is no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mask {
    Zeros,
    True,
    False,
}

/// What `value` is at every length, if it is one thing everywhere and does not depend on the ids.
fn mask_of(probe: &Probe<'_>, value: &str) -> Option<Mask> {
    let mut found = None;
    for tokens in MASK_TOKENS {
        let tensor = probe.run(value, tokens, Vec::new())?;
        let same = uniform(&tensor)?;
        if *found.get_or_insert(same) != same {
            return None;
        }
    }
    found
}

fn uniform(tensor: &Tensor) -> Option<Mask> {
    let plain = tensor.try_as_plain_ram().ok()?;
    if let Ok(numbers) = plain.as_slice::<f32>() {
        return numbers.iter().all(|number| *number == 0.0).then_some(Mask::Zeros);
    }
    let bools = plain.as_slice::<bool>().ok()?;
    if bools.iter().all(|bool| *bool) {
        return Some(Mask::True);
    }
    bools.iter().all(|bool| !bool).then_some(Mask::False)
}

/// How the numbers of one head lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `heads × tokens × width`.
    TokensFirst,
    /// `heads × width × tokens`.
    WidthFirst,
}

/// The value of shape `1 × tokens × (heads · width)` of which `split` is the heads, and the factor between them.
fn heads_of(
    probe: &Probe<'_>,
    split: &str,
    heads: usize,
    width: usize,
    order: Order,
) -> Option<(String, f32)> {
    let net = probe.net;
    let mut base = split.to_owned();
    for _ in 0..CHAIN_MAX {
        let node = net.producer(&base).and_then(|at| net.node(at))?;
        let left = node.input.first()?;
        base = match node.op_type.as_str() {
            "Reshape" | "Transpose" | "Unsqueeze" | "Squeeze" => left.clone(),
            "Mul" | "Div" if is_default(node, &node.op_type) => {
                let right = node.input.get(1)?;
                match probe.scalar(right) {
                    Some(_) => left.clone(),
                    None if node.op_type == "Mul" => {
                        probe.scalar(left)?;
                        right.clone()
                    }
                    None => return None,
                }
            }
            _ => return None,
        };
        let whole = [Axis::Fixed(1), Axis::Tokens, Axis::Fixed(heads.checked_mul(width)?)];
        if probe.shapes.axes(&base).is_some_and(|axes| axes == whole) {
            let mut factor = None;
            for tokens in LAYOUT_TOKENS {
                let found = probe.counted(split, &base, tokens)?;
                let this = factor_of(&found, tokens, heads, width, order)?;
                if *factor.get_or_insert(this) != this {
                    return None;
                }
            }
            return Some((base, factor?));
        }
    }
    None
}

/// The factor by which `found` is the heads of numbers that count up from one.
fn factor_of(found: &Tensor, tokens: i64, heads: usize, width: usize, order: Order) -> Option<f32> {
    let tokens = usize::try_from(tokens).ok()?;
    let shape = match order {
        Order::TokensFirst => [1, heads, tokens, width],
        Order::WidthFirst => [1, heads, width, tokens],
    };
    (found.shape() == shape).then_some(())?;
    let numbers = found.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?.to_vec();
    let factor = *numbers.first()?;
    let mut numbers = numbers.into_iter();
    for head in 0..heads {
        for place in 0..tokens * width {
            let (token, column) = match order {
                Order::TokensFirst => (place / width, place % width),
                Order::WidthFirst => (place % tokens, place / tokens),
            };
            let expected = (token * heads * width + head * width + column + 1) as f32 * factor;
            let number = numbers.next()?;
            ((number - expected).abs() <= 1e-5 * expected.abs()).then_some(())?;
        }
    }
    (factor.is_finite() && factor > 0.0).then_some(factor)
}

/// The place of the node after which the heads of `context` stand side by side again, and that value.
fn joined(probe: &Probe<'_>, context: &str, heads: usize, width: usize) -> Option<(usize, String)> {
    let net = probe.net;
    let mut value = context.to_owned();
    for _ in 0..CHAIN_MAX {
        let at = net.sole_user(&value)?;
        let node = net.node(at)?;
        matches!(node.op_type.as_str(), "Reshape" | "Transpose" | "Unsqueeze" | "Squeeze")
            .then_some(())?;
        (node.input.first() == Some(&value)).then_some(())?;
        value.clone_from(node.output.first()?);
        let whole = [Axis::Fixed(1), Axis::Tokens, Axis::Fixed(heads.checked_mul(width)?)];
        if probe.shapes.axes(&value).is_some_and(|axes| axes == whole) {
            for tokens in LAYOUT_TOKENS {
                let found = probe.counted(&value, context, tokens)?;
                is_joined(&found, tokens, heads, width)?;
            }
            return Some((at, value));
        }
    }
    None
}

fn is_joined(found: &Tensor, tokens: i64, heads: usize, width: usize) -> Option<()> {
    let tokens = usize::try_from(tokens).ok()?;
    (found.shape() == [1, tokens, heads * width]).then_some(())?;
    let found = found.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?.to_vec();
    let expected = (0..tokens).flat_map(|token| {
        (0..heads * width).map(move |column| {
            let (head, column) = (column / width, column % width);
            (head * tokens * width + token * width + column + 1) as f32
        })
    });
    found.into_iter().eq(expected).then_some(())
}
