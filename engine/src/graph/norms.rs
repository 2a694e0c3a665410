//! Finds LayerNorm, as one operator and as the ten that older exporters write.

use tract_onnx::pb::NodeProto;

use crate::graph::{
    fused::{Fused, Norm},
    net::{Net, attribute, int, is_default},
    numbers,
};

/// Replaces every LayerNorm over the last axis.
pub(super) fn fuse(net: &mut Net) {
    for at in net.places() {
        let Some(node) = net.node(at) else { continue };
        let found = if is_default(node, "LayerNormalization") {
            whole(net, node)
        } else if is_default(node, "Add") {
            spelled_out(net, node)
        } else {
            None
        };
        if let Some((norm, x, output)) = found {
            net.put(&[at], Fused::Norm(norm), vec![x], output);
        }
    }
    net.prune();
}

fn whole(net: &Net, node: &NodeProto) -> Option<(Norm, String, String)> {
    (int(node, "axis", -1) == -1 && int(node, "stash_type", 1) == 1).then_some(())?;
    let mut others = node.output.iter().skip(1);
    others.all(|other| net.uses(other) == 0).then_some(())?;
    let gamma = row(net, node.input.get(1)?)?;
    let beta = match node.input.get(2).filter(|name| !name.is_empty()) {
        None => vec![0.0; gamma.len()],
        Some(name) => row(net, name)?,
    };
    let epsilon = attribute(node, "epsilon").map_or(1e-5, |found| found.f);
    norm(gamma, beta, epsilon, node.input.first()?, node)
}

/// `d / √(mean(d²) + ε) · γ + β`, where `d = x - mean(x)`.
fn spelled_out(net: &Net, add: &NodeProto) -> Option<(Norm, String, String)> {
    let (product, beta) = constant_side(net, add)?;
    let (_, product) = net.made_by(product, "Mul")?;
    let (quotient, gamma) = constant_side(net, product)?;
    let (_, quotient) = net.made_by(quotient, "Div")?;
    let [centred, deviation] = quotient.input.as_slice() else { return None };
    let (_, root) = net.made_by(deviation, "Sqrt")?;
    let (_, shifted) = net.made_by(root.input.first()?, "Add")?;
    let (variance, epsilon) = constant_side(net, shifted)?;
    let epsilon = numbers::float(net.constant(epsilon)?)?;
    let square = mean_over_last(net, variance)?;
    let squared = match net.made_by(square, "Pow") {
        Some((_, power)) => {
            let exponent = net.constant(power.input.get(1)?)?;
            (numbers::float(exponent)? == 2.0).then_some(power.input.first()?)?
        }
        None => {
            let (_, product) = net.made_by(square, "Mul")?;
            let [left, right] = product.input.as_slice() else { return None };
            (left == right).then_some(left)?
        }
    };
    // Some exporters write the subtraction twice; identical nodes have been merged before.
    (squared == centred).then_some(())?;
    let (_, difference) = net.made_by(centred, "Sub")?;
    let [x, mean] = difference.input.as_slice() else { return None };
    (mean_over_last(net, mean)? == x).then_some(())?;
    norm(row(net, gamma)?, row(net, beta)?, epsilon, x, add)
}

fn norm(
    gamma: Vec<f32>,
    beta: Vec<f32>,
    epsilon: f32,
    x: &str,
    last: &NodeProto,
) -> Option<(Norm, String, String)> {
    let fits =
        !gamma.is_empty() && gamma.len() == beta.len() && epsilon.is_finite() && epsilon >= 0.0;
    fits.then_some((Norm { gamma, beta, epsilon }, x.to_owned(), last.output.first()?.clone()))
}

fn row(net: &Net, value: &str) -> Option<Vec<f32>> {
    let tensor = net.constant(value)?;
    (tensor.dims.len() == 1).then_some(())?;
    numbers::floats(tensor)
}

/// The input that is computed, and the one that is constant.
fn constant_side<'a>(net: &Net, node: &'a NodeProto) -> Option<(&'a str, &'a str)> {
    let [left, right] = node.input.as_slice() else { return None };
    match (net.constant(left).is_some(), net.constant(right).is_some()) {
        (false, true) => Some((left, right)),
        (true, false) => Some((right, left)),
        _ => None,
    }
}

/// What `value` is the mean of, over the last axis, which is kept.
fn mean_over_last<'a>(net: &'a Net, value: &str) -> Option<&'a str> {
    let (_, node) = net.made_by(value, "ReduceMean")?;
    (int(node, "keepdims", 1) == 1).then_some(())?;
    let last = match node.input.get(1).filter(|name| !name.is_empty()) {
        Some(axes) => numbers::ints(net.constant(axes)?)? == [-1],
        None => attribute(node, "axes")?.ints == [-1],
    };
    last.then_some(node.input.first()?.as_str())
}
