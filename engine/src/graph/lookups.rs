//! Looks rows up before it dequantizes them.
//!
//! A graph that keeps its embedding table as integers dequantizes all of it and then looks rows up. Constant folding
//! leaves a table of that size alone, so it would be dequantized at every call. Dequantizing works number by number:
//! the rows may be looked up first, which gives the same bits. What `tables` can hold itself never comes here.

use tract_onnx::pb::NodeProto;

use crate::graph::{
    net::{Net, int, is_default},
    numbers,
};

/// Moves every lookup of a dequantized table in front of the dequantizing.
pub(super) fn first(net: &mut Net) {
    for at in net.places() {
        let Some(node) = net.node(at) else { continue };
        let axis = int(node, "axis", 0);
        if !is_default(node, "Gather") || axis != 0 {
            continue;
        }
        if let Some(nodes) = rounded(net, node).or_else(|| scaled(net, node)) {
            net.replace(&[at], nodes);
        }
    }
    net.prune();
}

/// `Gather(DequantizeLinear(q, scale, zero), ids)` with one scale.
fn rounded(net: &Net, gather: &NodeProto) -> Option<Vec<NodeProto>> {
    let [table, ids] = gather.input.as_slice() else { return None };
    let (_, dequantize) = net.made_by(table, "DequantizeLinear")?;
    let q = dequantize.input.first()?;
    net.constant(q)?;
    let single = |name: &String| net.constant(name).and_then(numbers::len) == Some(1);
    dequantize.input.iter().skip(1).filter(|name| !name.is_empty()).all(single).then_some(())?;
    let output = gather.output.first()?;
    let rows = format!("{output}.rows");
    let mut dequantize = dequantize.clone();
    *dequantize.input.first_mut()? = rows.clone();
    // An axis means nothing to one scale, and may not be there any more.
    dequantize.attribute.retain(|attribute| attribute.name != "axis");
    Some(vec![lookup(q, ids, &rows), renamed(dequantize, output)])
}

/// `Gather(Mul(Cast(q), scale), ids)`.
fn scaled(net: &Net, gather: &NodeProto) -> Option<Vec<NodeProto>> {
    let [table, ids] = gather.input.as_slice() else { return None };
    let (_, multiply) = net.made_by(table, "Mul")?;
    let [left, right] = multiply.input.as_slice() else { return None };
    let (cast, scale) = match (net.made_by(left, "Cast"), net.made_by(right, "Cast")) {
        (Some((_, cast)), None) => (cast, right),
        (None, Some((_, cast))) => (cast, left),
        _ => return None,
    };
    let q = cast.input.first()?;
    let [down, across] = *numbers::shape(net.constant(q)?)?.as_slice() else { return None };
    let by_row = match *numbers::shape(net.constant(scale)?)?.as_slice() {
        [] | [1] => false,
        [width] => {
            (width == across).then_some(())?;
            false
        }
        [height, width] => {
            (height == 1 || height == down).then_some(())?;
            (width == 1 || width == across).then_some(())?;
            height == down
        }
        _ => return None,
    };
    let output = gather.output.first()?;
    let (rows, exact) = (format!("{output}.rows"), format!("{output}.exact"));
    let mut cast = cast.clone();
    *cast.input.first_mut()? = rows.clone();
    let mut nodes = vec![lookup(q, ids, &rows), renamed(cast, &exact)];
    let mut scale = scale.clone();
    if by_row {
        let own = format!("{output}.scale");
        nodes.push(lookup(&scale, ids, &own));
        scale = own;
    }
    let mut multiply = multiply.clone();
    multiply.input = vec![exact, scale];
    nodes.push(renamed(multiply, output));
    Some(nodes)
}

fn lookup(table: &str, ids: &str, output: &str) -> NodeProto {
    let node = NodeProto {
        op_type: "Gather".to_owned(),
        input: vec![table.to_owned(), ids.to_owned()],
        ..NodeProto::default()
    };
    renamed(node, output)
}

fn renamed(node: NodeProto, output: &str) -> NodeProto {
    NodeProto { name: output.to_owned(), output: vec![output.to_owned()], ..node }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, ModelProto};

    use super::*;
    use crate::graph::{
        sample::{Writer, int},
        tests::stock,
    };

    /// Three rows of two int8 numbers, a scale of shape `dims`, and rows looked up.
    fn table(dims: &[usize], axis: i64) -> ModelProto {
        let mut writer = Writer::new(1);
        let q = writer.tensor("q", 3, &[3, 2], vec![1, 2, 3, 4, 5, 251]);
        let scales: Vec<f32> = (0..dims.iter().product()).map(|at| 0.1 + at as f32).collect();
        let scale = writer.floats("s", dims, &scales);
        let exact = writer.with("Cast", &[&q], "f", vec![int("to", 1)]);
        let all = writer.node("Mul", &[&exact, &scale], "w");
        let axis: Vec<AttributeProto> =
            if axis == 0 { Vec::new() } else { vec![int("axis", axis)] };
        let rows = writer.with("Gather", &[&all, "input_ids"], "y", axis);
        writer.finish(&rows)
    }

    fn moved(model: &ModelProto) -> (Vec<String>, ModelProto) {
        let mut net = Net::new(model.clone());
        first(&mut net);
        let order = net.ancestors_of_all(net.outputs(), &|_| false).unwrap();
        let ops = order.iter().map(|at| net.node(*at).unwrap().op_type.clone()).collect();
        let inputs = ["input_ids", "attention_mask", "token_type_ids"].map(str::to_owned);
        (ops, net.finish(&inputs).0)
    }

    #[test]
    fn looking_up_first_gives_the_same_bits() {
        for dims in [&[3, 1][..], &[3, 2], &[1, 2], &[1, 1], &[2], &[1], &[]] {
            let before = table(dims, 0);
            let (ops, after) = moved(&before);
            assert_eq!(ops[0], "Gather", "{dims:?}: {ops:?}");
            assert_eq!(stock(&after, &[2, 0, 2]), stock(&before, &[2, 0, 2]), "{dims:?}");
        }
    }

    #[test]
    fn another_axis_or_an_odd_scale_stays() {
        assert_eq!(moved(&table(&[3, 1], 1)).0, ["Cast", "Mul", "Gather"]);
        assert_eq!(moved(&table(&[3], 0)).0, ["Cast", "Mul", "Gather"]);
    }
}
