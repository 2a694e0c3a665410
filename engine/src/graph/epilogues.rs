//! Lets a linear do what comes right after it, lets linears of the same input be one, and lets an attention compute as
//! coarsely as they do.

use crate::{
    graph::{
        fused::{After, Blocks, Fused, Integer, Linear, Weight},
        net::{Net, is_default},
        numbers::Bytes,
        shapes::Shapes,
    },
    kernels::attention::Products,
};

/// Lets attentions whose queries, keys and values come from linears in blocks multiply words: those inputs are known to
/// a part in a hundred, words add a thousandth.
pub(super) fn narrow_attentions(net: &mut Net) {
    for at in net.places() {
        let blocks = |name: &String| match net.fused(name) {
            Some((_, Fused::Linear(linear))) => matches!(linear.weight, Weight::Blocks(_)),
            Some(_) | None => false,
        };
        let narrow = match net.node(at).map(|node| node.input.as_slice()) {
            Some([query, key, value, _]) => [query, key, value].into_iter().all(blocks),
            Some(_) | None => false,
        };
        if let (true, Some(Fused::Attention(attention))) = (narrow, net.fused_mut(at)) {
            attention.products = Products::Words;
        }
    }
}

/// Makes the products that an attention reads one product, where they read the same.
pub(super) fn join_projections(net: &mut Net) {
    for at in net.places() {
        if let Some((places, inputs)) = projections(net, at) {
            join(net, at, &places, inputs);
        }
    }
    net.prune();
}

/// The places of the three linears that the attention at `at` alone uses, and what all of them read.
fn projections(net: &Net, at: usize) -> Option<([usize; 3], Vec<String>)> {
    matches!(net.fused_at(at)?, Fused::Attention(_)).then_some(())?;
    let [query, key, value, _] = net.node(at)?.input.as_slice() else { return None };
    let mut places = [0; 3];
    let mut inputs: Option<Vec<String>> = None;
    for (place, name) in places.iter_mut().zip([query, key, value]) {
        (net.uses(name) == 1).then_some(())?;
        let (found, Fused::Linear(linear)) = net.fused(name)? else { return None };
        (linear.after == After::Nothing).then_some(())?;
        *place = found;
        let reads = net.node(found)?.input.clone();
        (*inputs.get_or_insert_with(|| reads.clone()) == reads).then_some(())?;
    }
    let linear = |place: usize| match net.fused_at(place) {
        Some(Fused::Linear(linear)) => Some(linear),
        Some(_) | None => None,
    };
    let first = linear(places[0])?;
    let joins = |place: &usize| linear(*place).is_some_and(|other| joinable(first, other));
    (places.iter().all(joins)).then_some((places, inputs?))
}

fn joinable(one: &Linear, other: &Linear) -> bool {
    let kind = match (&one.weight, &other.weight) {
        (Weight::Blocks(one), Weight::Blocks(other)) => {
            (one.bits, one.block) == (other.bits, other.block)
        }
        (Weight::Float(_), Weight::Float(_)) => true,
        (Weight::Integer(one), Weight::Integer(other)) => {
            let sign = |integer: &Integer| matches!(integer.q, Bytes::Signed(_));
            one.activation == other.activation && sign(one) == sign(other)
        }
        _ => false,
    };
    kind && one.k == other.k && one.bias.is_some() == other.bias.is_some()
}

fn join(net: &mut Net, at: usize, places: &[usize; 3], inputs: Vec<String>) {
    let mut parts = Vec::new();
    for place in places {
        if let Some(Fused::Linear(linear)) = net.take_fused(*place) {
            parts.push(linear);
        }
    }
    let Some(attention) = net.take_fused(at) else { return };
    let Some((output, segments)) = net
        .node(at)
        .and_then(|node| Some((node.output.first()?.clone(), node.input.last()?.clone())))
    else {
        return;
    };
    let projected = format!("{output}.projected");
    net.put(places, Fused::Linear(side_by_side(parts)), inputs, projected.clone());
    net.put(&[at], attention, vec![projected, segments], output);
}

/// One linear whose output is the outputs of `parts`, side by side.
fn side_by_side(parts: Vec<Linear>) -> Linear {
    let k = parts.first().map_or(0, |part| part.k);
    let n = parts.iter().map(|part| part.n).sum();
    let widths: Vec<usize> = parts.iter().map(|part| part.n).collect();
    let mut bias: Option<Vec<f32>> = None;
    let (mut blocks, mut floats, mut integers) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        if let Some(numbers) = part.bias {
            bias.get_or_insert_default().extend(numbers);
        }
        match part.weight {
            Weight::Blocks(part) => blocks.push(part),
            Weight::Float(part) => floats.push(part),
            Weight::Integer(part) => integers.push(part),
        }
    }
    let weight = if let Some((bits, block)) = blocks.first().map(|part| (part.bits, part.block)) {
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for part in blocks {
            codes.extend(part.codes);
            scales.extend(part.scales);
        }
        Weight::Blocks(Blocks { bits, block, codes, scales })
    } else if let Some(activation) = integers.first().map(|part| part.activation) {
        let per_column = |pick: &dyn Fn(&Integer, usize) -> Option<i32>| -> Vec<i32> {
            let columns = integers.iter().zip(&widths);
            columns.flat_map(|(part, n)| (0..*n).filter_map(|at| pick(part, at))).collect()
        };
        let zeros = per_column(&|part, at| part.zeros.get(at).or(part.zeros.first()).copied());
        let columns = integers.iter().zip(&widths);
        let scale = |part: &Integer, at| part.scales.get(at).or(part.scales.first()).copied();
        let scales =
            columns.flat_map(|(part, n)| (0..*n).filter_map(move |at| scale(part, at))).collect();
        Weight::Integer(Integer { q: joined_bytes(&integers, &widths), zeros, scales, activation })
    } else {
        Weight::Float(joined_rows(&floats, &widths))
    };
    Linear { n, k, weight, bias, after: After::Nothing }
}

/// Matrices of `widths` columns side by side.
fn joined_rows<T: Copy>(parts: &[Vec<T>], widths: &[usize]) -> Vec<T> {
    let mut rows: Vec<_> =
        parts.iter().zip(widths).map(|(part, width)| part.chunks_exact((*width).max(1))).collect();
    let mut joined = Vec::with_capacity(parts.iter().map(Vec::len).sum());
    while let Some(line) = rows.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>() {
        if line.is_empty() {
            break;
        }
        for part in line {
            joined.extend_from_slice(part);
        }
    }
    joined
}

fn joined_bytes(parts: &[Integer], widths: &[usize]) -> Bytes {
    let (mut signed, mut unsigned) = (Vec::new(), Vec::new());
    for part in parts {
        match &part.q {
            Bytes::Signed(q) => signed.push(q.clone()),
            Bytes::Unsigned(q) => unsigned.push(q.clone()),
        }
    }
    if unsigned.is_empty() {
        Bytes::Signed(joined_rows(&signed, widths))
    } else {
        Bytes::Unsigned(joined_rows(&unsigned, widths))
    }
}

/// Gives each linear the GELU or the residual that alone uses its output.
pub(super) fn absorb(net: &mut Net, shapes: &Shapes) {
    for at in net.places() {
        let Some(Fused::Linear(linear)) = net.fused_at(at) else { continue };
        if linear.after != After::Nothing {
            continue;
        }
        let Some((user, after, residual)) = follower(net, shapes, at) else { continue };
        let Some(output) = net.node(user).and_then(|node| node.output.first().cloned()) else {
            continue;
        };
        let Some(mut inputs) = net.node(at).map(|node| node.input.clone()) else { continue };
        let Some(Fused::Linear(mut linear)) = net.take_fused(at) else { continue };
        linear.after = after;
        if let Some(residual) = residual {
            inputs.insert(1, residual);
        }
        net.put(&[at, user], Fused::Linear(linear), inputs, output);
    }
    net.prune();
}

/// Makes what is left of sums of two values of the same shape ours: the embeddings of words, types and places.
pub(super) fn take_sums(net: &mut Net, shapes: &Shapes) {
    for at in net.places() {
        let Some(node) = net.node(at).filter(|node| is_default(node, "Add")) else { continue };
        let (inputs, Some(output)) = (node.input.clone(), node.output.first().cloned()) else {
            continue;
        };
        let computed = inputs.iter().all(|name| net.producer(name).is_some());
        // Operators of ours give floats, but for position ids; an Add has one type.
        let floats = |name: &String| match net.fused(name) {
            Some((_, fused)) => !matches!(fused, Fused::Positions(_)),
            None => false,
        };
        let axes: Vec<_> = inputs.iter().map(|name| shapes.axes(name)).collect();
        if let (true, [Some(left), Some(right)]) = (computed, axes.as_slice())
            && left == right
            && inputs.iter().any(floats)
        {
            net.put(&[at], Fused::Sum, inputs, output);
        }
    }
}

/// The node that alone uses the output of the linear at `at`, what it does, and what it adds.
fn follower(net: &Net, shapes: &Shapes, at: usize) -> Option<(usize, After, Option<String>)> {
    let value = net.node(at)?.output.first()?;
    let user = net.sole_user(value)?;
    if let Some(fused) = net.fused_at(user) {
        return matches!(fused, Fused::Gelu).then_some((user, After::Gelu, None));
    }
    let node = net.node(user).filter(|node| is_default(node, "Add"))?;
    let [left, right] = node.input.as_slice() else { return None };
    let other = if left == value { right } else { left };
    // Something of another shape would be repeated, or would repeat the product.
    let axes = shapes.axes(value)?;
    (other != value && net.producer(other).is_some()).then_some(())?;
    (shapes.axes(other)? == axes).then_some(())?;
    Some((user, After::Residual, Some(other.clone())))
}
