//! Brings the two ways of writing a statically quantized model to one, and keeps its rounding where it pays.
//!
//! A quantized model rounds every value, by `QuantizeLinear` and `DequantizeLinear` one after another, because its
//! products are to run on integers. Where a value does not go into a product with constant weights, the rounding saves
//! nothing and only loses accuracy: there it is left out, which changes the result by no more than the rounding did.

use tract_onnx::pb::{NodeProto, TensorProto};

use crate::graph::{
    linears::fake_quantized,
    net::{Net, attribute, int, is_default},
    numbers, weights,
};

const FLOAT: i32 = 1;

/// Writes integer products as products of dequantized values, then leaves out roundings that serve none.
pub(super) fn fuse(net: &mut Net) {
    for at in net.places() {
        let Some(node) = net.node(at) else { continue };
        let found = match node.op_type.as_str() {
            "QLinearMatMul" if is_default(node, "QLinearMatMul") => matmul(net, node),
            "QGemm" if node.domain == "com.microsoft" => gemm(net, node),
            _ => None,
        };
        if let Some((nodes, constants)) = found {
            for constant in constants {
                net.add_constant(constant);
            }
            net.replace(&[at], nodes);
        }
    }
    for at in net.places() {
        let Some(node) = net.node(at).filter(|node| is_default(node, "DequantizeLinear")) else {
            continue;
        };
        let Some(rounded) = node.output.first().cloned() else { continue };
        let Some((exact, _)) = fake_quantized(net, &rounded) else { continue };
        for user in net.users(&rounded) {
            if !is_product(net, user, &rounded) {
                net.rewire(user, &rounded, &exact);
            }
        }
    }
    net.prune();
}

/// Whether the node at `at` multiplies `value` by constant weights that are integers.
fn is_product(net: &Net, at: usize, value: &str) -> bool {
    net.node(at).is_some_and(|node| {
        let product = is_default(node, "MatMul") || is_default(node, "Gemm");
        let [x, w, ..] = node.input.as_slice() else { return false };
        product && x == value && weights::quantized(net, w).is_some()
    })
}

type Written = (Vec<NodeProto>, Vec<TensorProto>);

/// `QLinearMatMul(a, sa, za, b, sb, zb, sy, zy)`.
fn matmul(net: &Net, node: &NodeProto) -> Option<Written> {
    let [a, sa, za, b, sb, zb, sy, zy] = node.input.as_slice() else { return None };
    let output = node.output.first()?;
    // Scales by column belong to axis 1; those by row of the left matrix are not written this way.
    (numbers::len(net.constant(sa)?)? == 1).then_some(())?;
    let name = |part: &str| format!("{output}.{part}");
    let nodes = vec![
        plain("DequantizeLinear", &[a, sa, za], &name("a")),
        plain("DequantizeLinear", &[b, sb, zb], &name("b")),
        plain("MatMul", &[&name("a"), &name("b")], &name("product")),
        plain("QuantizeLinear", &[&name("product"), sy, zy], output),
    ];
    Some((nodes, Vec::new()))
}

/// `QGemm(a, sa, za, b, sb, zb, c, sy, zy)`: without `sy` its output is f32.
fn gemm(net: &Net, node: &NodeProto) -> Option<Written> {
    let given = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
    let (a, sa, za, b, sb, zb) = (given(0)?, given(1)?, given(2)?, given(3)?, given(4)?, given(5)?);
    let whole = attribute(node, "alpha").is_none_or(|found| found.f == 1.0);
    (whole && int(node, "transA", 0) == 0).then_some(())?;
    let output = node.output.first()?;
    let name = |part: &str| format!("{output}.{part}");
    let mut right = vec![plain("DequantizeLinear", &[b, sb, zb], &name("b"))];
    let mut factor = name("b");
    if int(node, "transB", 0) != 0 {
        right.push(plain("Transpose", &[&factor], &name("turned")));
        factor = name("turned");
    }
    let mut nodes = vec![plain("DequantizeLinear", &[a, sa, za], &name("a"))];
    nodes.extend(right);
    let quantized = given(7).zip(given(8));
    let mut constants = Vec::new();
    let mut inputs = vec![name("a"), factor];
    if let Some(c) = given(6) {
        let bias = numbers::ints(net.constant(c)?)?;
        let (sa, sb) = (numbers::float(net.constant(sa)?)?, numbers::floats(net.constant(sb)?)?);
        let scale = |at: usize| sb.get(at).or(sb.first()).map(|sb| sa * sb);
        let bias = bias.iter().enumerate().map(|(at, c)| Some(*c as f32 * scale(at)?));
        let bias: Vec<f32> = bias.collect::<Option<_>>()?;
        constants.push(TensorProto {
            name: name("bias"),
            data_type: FLOAT,
            dims: vec![i64::try_from(bias.len()).ok()?],
            raw_data: bias.iter().flat_map(|number| number.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        inputs.push(name("bias"));
    }
    let product = if quantized.is_some() { name("product") } else { output.clone() };
    let inputs: Vec<&String> = inputs.iter().collect();
    nodes.push(plain("Gemm", &inputs, &product));
    if let Some((sy, zy)) = quantized {
        nodes.push(plain("QuantizeLinear", &[&product, sy, zy], output));
    }
    Some((nodes, constants))
}

fn plain(op_type: &str, inputs: &[&String], output: &str) -> NodeProto {
    NodeProto {
        name: output.to_owned(),
        op_type: op_type.to_owned(),
        input: inputs.iter().map(|name| (*name).clone()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}
