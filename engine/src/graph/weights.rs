//! The weights of a matrix product as exporters write them: floats, integers dequantized before use, either transposed.

use tract_onnx::pb::NodeProto;

use crate::graph::{
    fused::{Activation, BLOCK, Bits, Blocks, Integer, Weight},
    net::{Net, attribute, int},
    numbers::{self, Bytes},
};

/// Integers with their scales and zero points, `k × n` row-major as a product reads them.
#[derive(Debug)]
pub(super) struct Quantized {
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) q: Bytes,
    /// One, or `n`.
    pub(super) scales: Vec<f32>,
    /// One, or `n`.
    pub(super) zeros: Vec<i32>,
}

/// Floats, `k × n` row-major.
#[derive(Debug)]
pub(super) struct Floats {
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) w: Vec<f32>,
}

/// The f32 matrix that `value` is.
pub(super) fn floats(net: &Net, value: &str) -> Option<Floats> {
    if let Some((_, node)) = net.made_by(value, "Transpose") {
        swaps(node).then_some(())?;
        let Floats { k, n, w } = floats(net, node.input.first()?)?;
        return Some(Floats { k: n, n: k, w: transposed(&w, k, n) });
    }
    let tensor = net.constant(value)?;
    let [k, n] = *numbers::shape(tensor)?.as_slice() else { return None };
    (k > 0 && n > 0).then_some(())?;
    Some(Floats { k, n, w: numbers::floats(tensor)? })
}

/// The matrix that `value` is after dequantizing constants.
pub(super) fn quantized(net: &Net, value: &str) -> Option<Quantized> {
    if let Some((_, node)) = net.made_by(value, "Transpose") {
        swaps(node).then_some(())?;
        let found = quantized(net, node.input.first()?)?;
        // Scales by row become scales by column only when there is one of them.
        (found.scales.len() == 1 && found.zeros.len() == 1).then_some(())?;
        let Quantized { k, n, q, scales, zeros } = found;
        return Some(Quantized { k: n, n: k, q: transposed_bytes(&q, k, n), scales, zeros });
    }
    if let Some((_, node)) = net.made_by(value, "DequantizeLinear") {
        return dequantized(net, node);
    }
    let (_, multiply) = net.made_by(value, "Mul")?;
    let [left, right] = multiply.input.as_slice() else { return None };
    cast_and_scaled(net, left, right).or_else(|| cast_and_scaled(net, right, left))
}

/// `Mul(Cast(q), scale)`, `Mul(Sub(Cast(q), zero), scale)`.
fn cast_and_scaled(net: &Net, cast: &str, scale: &str) -> Option<Quantized> {
    let (cast, zero) = match net.made_by(cast, "Sub") {
        Some((_, node)) => (node.input.first()?.clone(), node.input.get(1)),
        None => (cast.to_owned(), None),
    };
    let (_, cast) = net.made_by(&cast, "Cast")?;
    (int(cast, "to", 0) == 1).then_some(())?;
    let (k, n, q) = matrix(net, cast.input.first()?)?;
    let scales = by_column(net, scale, n)?;
    let zeros = match zero {
        None => vec![0],
        Some(zero) => {
            let zeros = by_column(net, zero, n)?;
            let whole = zeros.iter().all(|zero| zero.fract() == 0.0 && zero.abs() <= 255.0);
            whole.then_some(())?;
            zeros.iter().map(|zero| *zero as i32).collect()
        }
    };
    Some(Quantized { k, n, q, scales, zeros })
}

/// Floats of which one belongs to each column, or one to all.
fn by_column(net: &Net, value: &str, n: usize) -> Option<Vec<f32>> {
    let tensor = net.constant(value)?;
    match *numbers::shape(tensor)?.as_slice() {
        [] | [1] | [1, 1] => numbers::floats(tensor),
        [across] | [1, across] if across == n => numbers::floats(tensor),
        _ => None,
    }
}

fn matrix(net: &Net, value: &str) -> Option<(usize, usize, Bytes)> {
    let tensor = net.constant(value)?;
    let [k, n] = *numbers::shape(tensor)?.as_slice() else { return None };
    (k > 0 && n > 0).then_some(())?;
    Some((k, n, numbers::bytes(tensor)?))
}

fn dequantized(net: &Net, node: &NodeProto) -> Option<Quantized> {
    (int(node, "block_size", 0) == 0).then_some(())?;
    let (k, n, q) = matrix(net, node.input.first()?)?;
    let scales = numbers::floats(net.constant(node.input.get(1)?)?)?;
    let zeros = match node.input.get(2).filter(|name| !name.is_empty()) {
        None => vec![0],
        Some(zeros) => numbers::bytes(net.constant(zeros)?)?.wide(),
    };
    let by_column = matches!(int(node, "axis", 1), 1 | -1);
    let fits = |count: usize| count == 1 || (count == n && by_column);
    (fits(scales.len()) && fits(zeros.len())).then_some(Quantized { k, n, q, scales, zeros })
}

/// Whether a `Transpose` swaps the two axes of a matrix.
fn swaps(node: &NodeProto) -> bool {
    attribute(node, "perm").is_none_or(|perm| perm.ints == [1, 0])
}

impl Quantized {
    /// For float activations: in blocks where 8 bits around zero hold the numbers, else as floats.
    pub(super) fn weight(&self) -> Option<Weight> {
        let Self { k, n, q, scales, zeros } = self;
        let (k, n) = (*k, *n);
        scales.iter().all(|scale| scale.is_finite()).then_some(())?;
        let wide = q.wide();
        let zero = |column: usize| *zeros.get(column).or(zeros.first()).unwrap_or(&0);
        let scale = |column: usize| *scales.get(column).or(scales.first()).unwrap_or(&0.0);
        let mut centred = vec![0_i32; n * k];
        for (row, line) in wide.chunks_exact(n).enumerate() {
            for (column, number) in line.iter().enumerate() {
                *centred.get_mut(column * k + row)? = number - zero(column);
            }
        }
        let narrow = centred.iter().all(|number| (-128..=127).contains(number));
        if narrow && k.is_multiple_of(BLOCK) {
            let code = |number: &i32| u8::try_from(number + 128).unwrap_or(0);
            let codes = centred.iter().map(code).collect();
            let scales = (0..n).flat_map(|column| vec![scale(column); k / BLOCK]).collect();
            return Some(Weight::Blocks(Blocks { bits: Bits::Eight, block: BLOCK, codes, scales }));
        }
        let mut floats = Vec::with_capacity(n * k);
        for line in wide.chunks_exact(n) {
            let line = line.iter().enumerate();
            floats.extend(line.map(|(column, q)| (q - zero(column)) as f32 * scale(column)));
        }
        Some(Weight::Float(floats))
    }

    /// For integer activations.
    pub(super) fn integer(self, activation: Activation) -> Integer {
        Integer { q: self.q, zeros: self.zeros, scales: self.scales, activation }
    }
}

/// `columns × rows`, from `rows × columns`.
pub(super) fn transposed<T: Copy + Default>(from: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut to = vec![T::default(); from.len()];
    for (row, line) in from.chunks_exact(columns.max(1)).enumerate() {
        for (column, number) in line.iter().enumerate() {
            if let Some(place) = to.get_mut(column * rows + row) {
                *place = *number;
            }
        }
    }
    to
}

fn transposed_bytes(from: &Bytes, rows: usize, columns: usize) -> Bytes {
    match from {
        Bytes::Signed(from) => Bytes::Signed(transposed(from, rows, columns)),
        Bytes::Unsigned(from) => Bytes::Unsigned(transposed(from, rows, columns)),
    }
}
