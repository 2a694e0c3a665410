//! Finds the exact GELU, `x/2 · (1 + erf(x/√2))`, as one operator and as a product of its factors in any order.

use crate::graph::{
    fused::Fused,
    net::{Net, attribute, is_default},
    numbers,
};

/// Most factors of a product that is looked at.
const FACTORS_MAX: usize = 4;

/// Replaces every exact GELU.
pub(super) fn fuse(net: &mut Net) {
    for at in net.places() {
        let Some(node) = net.node(at) else { continue };
        let microsoft = node.domain == "com.microsoft" && node.op_type == "Gelu";
        let exact = attribute(node, "approximate").is_none_or(|found| found.s == b"none");
        let x = if microsoft || (is_default(node, "Gelu") && exact) {
            node.input.first().cloned()
        } else if is_default(node, "Mul") {
            node.output.first().and_then(|output| spelled_out(net, output))
        } else {
            None
        };
        if let (Some(x), Some(output)) = (x, node.output.first().cloned()) {
            net.put(&[at], Fused::Gelu, vec![x], output);
        }
    }
    net.prune();
}

/// `x`, when `product` is its GELU.
fn spelled_out(net: &Net, product: &str) -> Option<String> {
    let mut factors = vec![product.to_owned()];
    let mut leaves = Vec::new();
    let mut first = true;
    while let Some(value) = factors.pop() {
        let product =
            if first { net.made_by(&value, "Mul") } else { net.made_for_one(&value, "Mul") };
        first = false;
        match product {
            Some((_, node)) => factors.extend(node.input.iter().cloned()),
            None => leaves.push(value),
        }
        if factors.len() + leaves.len() > FACTORS_MAX {
            return None;
        }
    }
    let mut half = false;
    let (mut x, mut bell) = (None, None);
    for leaf in leaves {
        if let Some(tensor) = net.constant(&leaf) {
            (!half && numbers::float(tensor)? == 0.5).then_some(())?;
            half = true;
        } else if let Some(inner) = one_plus_erf(net, &leaf) {
            bell.is_none().then_some(())?;
            bell = Some(inner);
        } else {
            x.is_none().then_some(())?;
            x = Some(leaf);
        }
    }
    (half && x == bell).then_some(())?;
    x
}

/// `x`, when `value` is `1 + erf(x/√2)`.
fn one_plus_erf(net: &Net, value: &str) -> Option<String> {
    let (_, add) = net.made_by(value, "Add")?;
    let [left, right] = add.input.as_slice() else { return None };
    let (erf, one) = if net.constant(left).is_some() { (right, left) } else { (left, right) };
    (numbers::float(net.constant(one)?)? == 1.0).then_some(())?;
    let (_, erf) = net.made_by(erf, "Erf")?;
    let inner = erf.input.first()?;
    let near = |found: f32, expected: f32| (found - expected).abs() <= 1e-5 * expected;
    if let Some((_, quotient)) = net.made_by(inner, "Div") {
        let [x, root] = quotient.input.as_slice() else { return None };
        let root = numbers::float(net.constant(root)?)?;
        return near(root, std::f32::consts::SQRT_2).then(|| x.clone());
    }
    let (_, product) = net.made_by(inner, "Mul")?;
    let [left, right] = product.input.as_slice() else { return None };
    let (x, factor) = if net.constant(left).is_some() { (right, left) } else { (left, right) };
    let factor = numbers::float(net.constant(factor)?)?;
    near(factor, std::f32::consts::FRAC_1_SQRT_2).then(|| x.clone())
}
