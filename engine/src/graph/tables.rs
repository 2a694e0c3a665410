//! Makes lookups in quantized tables read single rows: the table stays as it is in the file.
//!
//! A graph that keeps its embedding table as int8 dequantizes all of it before it looks rows up. The rows are looked
//! up first instead, which gives the same bits.

use tract_onnx::pb::NodeProto;

use crate::graph::{
    blocks::{self, Layout, Padding},
    file::GraphError,
    fused::{BLOCK, Bits, Blocks, Fused, Table},
    net::{Net, int, is_default},
    numbers::{self, Bytes},
};

/// Replaces every lookup in a quantized table that the kernels can hold.
///
/// # Errors
/// A block-quantized table whose constants do not fit its attributes.
pub(super) fn fuse(net: &mut Net) -> Result<(), GraphError> {
    for at in net.places() {
        let Some(node) = net.node(at) else { continue };
        let found = if node.op_type == "GatherBlockQuantized" && node.domain == "com.microsoft" {
            let wrong =
                || GraphError::Constants { op: "GatherBlockQuantized", node: node.name.clone() };
            Some(block_quantized(net, node).ok_or_else(wrong)?)
        } else {
            dequantized(net, node)
        };
        if let Some((table, ids, output)) = found {
            net.put(&[at], Fused::Table(table), vec![ids], output);
        }
    }
    net.prune();
    Ok(())
}

fn block_quantized(net: &Net, node: &NodeProto) -> Option<(Table, String, String)> {
    let bits = Bits::of(int(node, "bits", 4))?;
    let block = usize::try_from(int(node, "block_size", 128)).ok()?;
    let quantize_axis = int(node, "quantize_axis", 1);
    (int(node, "gather_axis", 0) == 0 && matches!(quantize_axis, 1 | -1)).then_some(())?;
    let codes = net.constant(node.input.first()?)?;
    let ids = node.input.get(1)?.clone();
    let scales = net.constant(node.input.get(2)?)?;
    let zeros = match node.input.get(3).filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => Some(net.constant(name)?),
    };
    let [rows, row_bytes] = *numbers::shape(codes)?.as_slice() else { return None };
    let width = match bits {
        Bits::Eight => row_bytes,
        Bits::Four => row_bytes.checked_mul(2)?,
    };
    let layout = Layout { rows, width, bits, block };
    match blocks::read(layout, BLOCK, codes, scales, zeros, Padding::No)? {
        blocks::Quantized::Blocks(blocks) => {
            Some((Table { rows, width, blocks }, ids, node.output.first()?.clone()))
        }
        blocks::Quantized::Floats(_) => None,
    }
}

/// `Gather(Mul(Cast(q), scale), ids)` and `Gather(DequantizeLinear(q, scale, zero), ids)`.
fn dequantized(net: &Net, node: &NodeProto) -> Option<(Table, String, String)> {
    (is_default(node, "Gather") && int(node, "axis", 0) == 0).then_some(())?;
    let [table, ids] = node.input.as_slice() else { return None };
    let (q, scale) = match net.made_by(table, "DequantizeLinear") {
        Some((_, node)) => {
            (int(node, "block_size", 0) == 0).then_some(())?;
            let zeros = node.input.get(2).filter(|name| !name.is_empty());
            if let Some(zeros) = zeros {
                let zeros = numbers::bytes(net.constant(zeros)?)?;
                let Bytes::Signed(zeros) = zeros else { return None };
                zeros.iter().all(|zero| *zero == 0).then_some(())?;
            }
            let scale = net.constant(node.input.get(1)?)?;
            // One scale for a row stands along axis 0; the default axis is 1.
            let by_row = numbers::len(scale)? == 1 || int(node, "axis", 1) == 0;
            by_row.then_some((node.input.first()?.clone(), node.input.get(1)?.clone()))?
        }
        None => {
            let (_, multiply) = net.made_by(table, "Mul")?;
            let [left, right] = multiply.input.as_slice() else { return None };
            match (net.made_by(left, "Cast"), net.made_by(right, "Cast")) {
                (Some((_, cast)), None) if int(cast, "to", 0) == 1 => {
                    (cast.input.first()?.clone(), right.clone())
                }
                (None, Some((_, cast))) if int(cast, "to", 0) == 1 => {
                    (cast.input.first()?.clone(), left.clone())
                }
                _ => return None,
            }
        }
    };
    let q = net.constant(&q)?;
    let [rows, width] = *numbers::shape(q)?.as_slice() else { return None };
    (rows > 0 && width > 0 && width.is_multiple_of(BLOCK)).then_some(())?;
    let scale = net.constant(&scale)?;
    let by_row = match *numbers::shape(scale)?.as_slice() {
        [] | [1] | [1, 1] => false,
        [down] | [down, 1] if down == rows => true,
        _ => return None,
    };
    // A vector as long as a row would scale columns where it is multiplied.
    if by_row
        && numbers::shape(scale)?.len() == 1
        && net.made_by(table, "DequantizeLinear").is_none()
    {
        return None;
    }
    let scale = numbers::floats(scale)?;
    scale.iter().all(|scale| scale.is_finite()).then_some(())?;
    let Bytes::Signed(q) = numbers::bytes(q)? else { return None };
    let codes = q.into_iter().map(|q| q.cast_unsigned() ^ 0x80).collect();
    let scales = (0..rows)
        .flat_map(|row| {
            let scale = scale.get(if by_row { row } else { 0 }).copied().unwrap_or(0.0);
            std::iter::repeat_n(scale, width / BLOCK)
        })
        .collect();
    let blocks = Blocks { bits: Bits::Eight, block: BLOCK, codes, scales };
    Some((Table { rows, width, blocks }, ids.clone(), node.output.first()?.clone()))
}
