//! The numbers in a constant of an ONNX file, by type, and only when there are as many as its shape says.

use tract_onnx::pb::TensorProto;

const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT8: i32 = 3;
const INT32: i32 = 6;
const INT64: i32 = 7;
const FLOAT16: i32 = 10;

/// How many numbers the shape of `tensor` says, if that can be.
pub(super) fn len(tensor: &TensorProto) -> Option<usize> {
    tensor
        .dims
        .iter()
        .try_fold(1_usize, |product, dim| product.checked_mul(usize::try_from(*dim).ok()?))
}

/// The shape of `tensor`.
pub(super) fn shape(tensor: &TensorProto) -> Option<Vec<usize>> {
    tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect()
}

/// Numbers of type f32, or f16 widened.
pub(super) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let found: Vec<f32> = match tensor.data_type {
        FLOAT if tensor.raw_data.is_empty() => tensor.float_data.clone(),
        FLOAT => {
            let (numbers, rest) = tensor.raw_data.as_chunks::<4>();
            rest.is_empty().then_some(())?;
            numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        FLOAT16 if !tensor.raw_data.is_empty() => {
            let (numbers, rest) = tensor.raw_data.as_chunks::<2>();
            rest.is_empty().then_some(())?;
            numbers.iter().map(|bytes| widened(u16::from_le_bytes(*bytes))).collect()
        }
        _ => return None,
    };
    (found.len() == len(tensor)?).then_some(found)
}

/// One number of type f32 in a tensor of one element.
pub(super) fn float(tensor: &TensorProto) -> Option<f32> {
    match *floats(tensor)?.as_slice() {
        [number] => Some(number),
        _ => None,
    }
}

/// Numbers of type i64 or i32.
pub(super) fn ints(tensor: &TensorProto) -> Option<Vec<i64>> {
    let found: Vec<i64> = match tensor.data_type {
        INT64 if tensor.raw_data.is_empty() => tensor.int64_data.clone(),
        INT64 => {
            let (numbers, rest) = tensor.raw_data.as_chunks::<8>();
            rest.is_empty().then_some(())?;
            numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
        }
        INT32 if tensor.raw_data.is_empty() => {
            tensor.int32_data.iter().copied().map(i64::from).collect()
        }
        INT32 => {
            let (numbers, rest) = tensor.raw_data.as_chunks::<4>();
            rest.is_empty().then_some(())?;
            numbers.iter().map(|bytes| i64::from(i32::from_le_bytes(*bytes))).collect()
        }
        _ => return None,
    };
    (found.len() == len(tensor)?).then_some(found)
}

/// Numbers of 8 bits, and whether they have a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bytes {
    /// Type i8.
    Signed(Vec<i8>),
    /// Type u8.
    Unsigned(Vec<u8>),
}

impl Bytes {
    /// As wide integers.
    pub(super) fn wide(&self) -> Vec<i32> {
        match self {
            Self::Signed(numbers) => numbers.iter().copied().map(i32::from).collect(),
            Self::Unsigned(numbers) => numbers.iter().copied().map(i32::from).collect(),
        }
    }
}

/// Numbers of type i8 or u8.
pub(super) fn bytes(tensor: &TensorProto) -> Option<Bytes> {
    let narrow = |number: &i32| u8::try_from(number & 0xff).unwrap_or(0);
    let raw: Vec<u8> = match tensor.data_type {
        INT8 | UINT8 if tensor.raw_data.is_empty() => {
            tensor.int32_data.iter().map(narrow).collect()
        }
        INT8 | UINT8 => tensor.raw_data.clone(),
        _ => return None,
    };
    if raw.len() != len(tensor)? {
        return None;
    }
    Some(match tensor.data_type {
        INT8 => Bytes::Signed(raw.into_iter().map(u8::cast_signed).collect()),
        _ => Bytes::Unsigned(raw),
    })
}

/// IEEE 754 half precision to single.
fn widened(half: u16) -> f32 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((half >> 10) & 0x1f);
    let fraction = f32::from(half & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * 2.0_f32.powi(exponent - 15),
    }
}
