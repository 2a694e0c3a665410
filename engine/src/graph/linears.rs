//! Finds matrix products with constant weights, and makes each one fused linear.

use tract_onnx::pb::NodeProto;

use crate::graph::{
    blocks::{self, Layout, Padding},
    feeds::SEGMENTS,
    file::GraphError,
    fused::{Activation, After, BLOCK_MAX, Bits, Fused, Linear, Weight},
    net::{Net, attribute, int, is_default},
    numbers,
    weights::{self, Quantized},
};

/// Replaces every product with constant weights, its bias included.
///
/// # Errors
/// A block-quantized product whose constants do not fit its attributes: nothing else would read it rightly.
pub(super) fn fuse(net: &mut Net) -> Result<(), GraphError> {
    for at in net.places() {
        let Some(node) = net.node(at) else { continue };
        let Some(found) = find(net, node)? else { continue };
        let bias = if found.linear.bias.is_none() {
            bias(net, &found.output, found.linear.n)
        } else {
            None
        };
        let Found { mut linear, mut inputs, mut output, mut dead } = found;
        dead.push(at);
        if let Some((add, numbers, sum)) = bias {
            linear.bias = Some(numbers);
            dead.push(add);
            output = sum;
        }
        if linear.needs_segments() {
            inputs.push(SEGMENTS.to_owned());
        }
        net.put(&dead, Fused::Linear(linear), inputs, output);
    }
    net.prune();
    Ok(())
}

struct Found {
    linear: Linear,
    inputs: Vec<String>,
    output: String,
    dead: Vec<usize>,
}

fn find(net: &Net, node: &NodeProto) -> Result<Option<Found>, GraphError> {
    let microsoft = node.domain == "com.microsoft";
    Ok(match node.op_type.as_str() {
        "MatMulNBits" if microsoft => {
            Some(n_bits(net, node).ok_or_else(|| GraphError::Constants {
                op: "MatMulNBits",
                node: node.name.clone(),
            })?)
        }
        "MatMul" if is_default(node, "MatMul") => product(net, node),
        "Gemm" if is_default(node, "Gemm") => gemm(net, node),
        "MatMulInteger" if is_default(node, "MatMulInteger") => integer(net, node),
        _ => None,
    })
}

fn linear(k: usize, n: usize, weight: Weight, bias: Option<Vec<f32>>) -> Linear {
    Linear { n, k, weight, bias, after: After::Nothing }
}

fn n_bits(net: &Net, node: &NodeProto) -> Option<Found> {
    let size = |name: &str| usize::try_from(int(node, name, 0)).ok();
    let (k, n) = (size("K")?, size("N")?);
    let given = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
    given(4).is_none().then_some(())?;
    let layout = Layout {
        rows: n,
        width: k,
        bits: Bits::of(int(node, "bits", 4))?,
        block: size("block_size")?,
    };
    let zeros = match given(3) {
        Some(name) => Some(net.constant(name)?),
        None => None,
    };
    let (codes, scales) = (net.constant(given(1)?)?, net.constant(given(2)?)?);
    let weight = match blocks::read(layout, BLOCK_MAX, codes, scales, zeros, Padding::WholeBlocks)?
    {
        blocks::Quantized::Blocks(blocks) => Weight::Blocks(blocks),
        blocks::Quantized::Floats(floats) => Weight::Float(weights::transposed(&floats, n, k)),
    };
    let bias = match given(5) {
        Some(name) => Some(numbers::floats(net.constant(name)?).filter(|bias| bias.len() == n)?),
        None => None,
    };
    Some(Found {
        linear: linear(k, n, weight, bias),
        inputs: vec![given(0)?.clone()],
        output: node.output.first()?.clone(),
        dead: Vec::new(),
    })
}

fn product(net: &Net, node: &NodeProto) -> Option<Found> {
    let [x, w] = node.input.as_slice() else { return None };
    let output = node.output.first()?.clone();
    let (x, k, n, weight) = operands(net, x, w)?;
    Some(Found { linear: linear(k, n, weight, None), inputs: vec![x], output, dead: Vec::new() })
}

/// The input of a product, its width, the product's width and its weights.
fn operands(net: &Net, x: &str, w: &str) -> Option<(String, usize, usize, Weight)> {
    if let Some(floats) = weights::floats(net, w) {
        return Some((x.to_owned(), floats.k, floats.n, Weight::Float(floats.w)));
    }
    let found = weights::quantized(net, w)?;
    let (k, n) = (found.k, found.n);
    if let Some((source, activation)) = fake_quantized(net, x) {
        return Some((source, k, n, Weight::Integer(found.integer(activation))));
    }
    let weight = found.weight()?;
    Some((x.to_owned(), k, n, weight))
}

/// What `value` was before `QuantizeLinear` and `DequantizeLinear` with one scale, and that scale.
pub(super) fn fake_quantized(net: &Net, value: &str) -> Option<(String, Activation)> {
    let (_, dequantize) = net.made_by(value, "DequantizeLinear")?;
    let (_, quantize) = net.made_by(dequantize.input.first()?, "QuantizeLinear")?;
    let same = |at: usize| {
        let (one, other) = (dequantize.input.get(at), quantize.input.get(at));
        one == other
            || matches!((one, other), (Some(one), Some(other))
                if net.constant(one).map(|t| (&t.dims, &t.data_type, &t.raw_data, &t.float_data, &t.int32_data))
                    == net.constant(other).map(|t| (&t.dims, &t.data_type, &t.raw_data, &t.float_data, &t.int32_data))
                    && net.constant(one).is_some())
    };
    (same(1) && same(2)).then_some(())?;
    let scale = numbers::float(net.constant(quantize.input.get(1)?)?)?;
    (scale.is_finite() && scale > 0.0).then_some(())?;
    let zero = match quantize.input.get(2).filter(|name| !name.is_empty()) {
        None => numbers::Bytes::Unsigned(vec![0]),
        Some(name) => numbers::bytes(net.constant(name)?)?,
    };
    let [number] = *zero.wide().as_slice() else { return None };
    let signed = matches!(zero, numbers::Bytes::Signed(_));
    Some((quantize.input.first()?.clone(), Activation::Static { scale, zero: number, signed }))
}

fn gemm(net: &Net, node: &NodeProto) -> Option<Found> {
    let factor = |name: &str| attribute(node, name).is_none_or(|found| found.f == 1.0);
    (factor("alpha") && factor("beta") && int(node, "transA", 0) == 0).then_some(())?;
    let (x, w) = (node.input.first()?, node.input.get(1)?);
    let turned = int(node, "transB", 0) != 0;
    let (x, k, n, weight) = if turned {
        let floats = weights::floats(net, w)?;
        let (n, k) = (floats.k, floats.n);
        (x.clone(), k, n, Weight::Float(weights::transposed(&floats.w, n, k)))
    } else {
        operands(net, x, w)?
    };
    let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => Some(row(net, name, n)?),
    };
    let output = node.output.first()?.clone();
    Some(Found { linear: linear(k, n, weight, bias), inputs: vec![x], output, dead: Vec::new() })
}

/// `Mul(Cast(MatMulInteger(q, w, zx, zw)), Mul(sx, sw))`, where q, sx and zx are `DynamicQuantizeLinear(x)`.
fn integer(net: &Net, node: &NodeProto) -> Option<Found> {
    let at_of = |value: &str| net.sole_user(value);
    let (q, w) = (node.input.first()?, node.input.get(1)?);
    let dynamic =
        net.node(net.producer(q)?).filter(|node| is_default(node, "DynamicQuantizeLinear"))?;
    let [q_out, scale_out, zero_out] = dynamic.output.as_slice() else { return None };
    (q == q_out && node.input.get(2)? == zero_out).then_some(())?;
    let cast_at = at_of(node.output.first()?)?;
    let cast =
        net.node(cast_at).filter(|node| is_default(node, "Cast") && int(node, "to", 0) == 1)?;
    let product_at = at_of(cast.output.first()?)?;
    let product = net.node(product_at).filter(|node| is_default(node, "Mul"))?;
    let [left, right] = product.input.as_slice() else { return None };
    let scale = if Some(left) == cast.output.first() { right } else { left };
    let (_, scales) = net.made_by(scale, "Mul")?;
    let [left, right] = scales.input.as_slice() else { return None };
    let weight_scale = if left == scale_out {
        right
    } else if right == scale_out {
        left
    } else {
        return None;
    };
    let tensor = net.constant(w)?;
    let [k, n] = *numbers::shape(tensor)?.as_slice() else { return None };
    let scales = numbers::floats(net.constant(weight_scale)?)?;
    let zeros = match node.input.get(3).filter(|name| !name.is_empty()) {
        None => vec![0],
        Some(name) => numbers::bytes(net.constant(name)?)?.wide(),
    };
    let fits = |count: usize| count == 1 || count == n;
    (k > 0 && n > 0 && fits(scales.len()) && fits(zeros.len())).then_some(())?;
    scales.iter().all(|scale| scale.is_finite()).then_some(())?;
    let found = Quantized { k, n, q: numbers::bytes(tensor)?, scales, zeros };
    Some(Found {
        linear: linear(k, n, Weight::Integer(found.integer(Activation::Dynamic)), None),
        inputs: vec![dynamic.input.first()?.clone()],
        output: product.output.first()?.clone(),
        dead: vec![cast_at, product_at],
    })
}

/// The `Add` that alone uses `value` and adds a constant row to it: its place, the row and its output.
fn bias(net: &Net, value: &str, n: usize) -> Option<(usize, Vec<f32>, String)> {
    let at = net.sole_user(value)?;
    let node = net.node(at).filter(|node| is_default(node, "Add"))?;
    let [left, right] = node.input.as_slice() else { return None };
    let other = if left == value { right } else { left };
    Some((at, row(net, other, n)?, node.output.first()?.clone()))
}

/// A constant of `n` numbers that is a row, also one kept as 32-bit integers with a scale.
fn row(net: &Net, value: &str, n: usize) -> Option<Vec<f32>> {
    if let Some((_, node)) = net.made_by(value, "DequantizeLinear") {
        let q = numbers::ints(net.constant(node.input.first()?)?)?;
        let scales = numbers::floats(net.constant(node.input.get(1)?)?)?;
        let zero = match node.input.get(2).filter(|name| !name.is_empty()) {
            None => true,
            Some(name) => numbers::ints(net.constant(name)?)?.iter().all(|zero| *zero == 0),
        };
        (zero && q.len() == n && (scales.len() == 1 || scales.len() == n)).then_some(())?;
        let scale = |at: usize| scales.get(at).or(scales.first()).copied().unwrap_or(0.0);
        return Some(q.iter().enumerate().map(|(at, q)| *q as f32 * scale(at)).collect());
    }
    let tensor = net.constant(value)?;
    let shape = numbers::shape(tensor)?;
    let (last, leading) = shape.split_last()?;
    (*last == n && leading.iter().all(|dim| *dim == 1)).then_some(())?;
    // A bias of more axes than the product would add some to it.
    (shape.len() <= 2).then_some(())?;
    numbers::floats(tensor)
}
