//! The tensors of a test's files, and whether two of them are the same.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use tract_onnx::{
    data_resolver,
    prelude::{DatumType, Tensor},
    tensor::{load_tensor, proto_from_reader},
};

/// Largest difference, apart from what grows with the value: as ONNX's own test runner allows.
const ABSOLUTE: f64 = 1e-7;
/// What grows with the value.
const RELATIVE: f64 = 1e-3;
/// Largest file of one tensor.
const BYTES_MAX: u64 = 64 << 20;

/// The tensor in the file at `path`.
pub fn read(path: &Path) -> anyhow::Result<Tensor> {
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let bytes = file.metadata()?.len();
    ensure!(bytes <= BYTES_MAX, "{} has {bytes} bytes", path.display());
    let proto = proto_from_reader(file)?;
    load_tensor(&*data_resolver::default(), &proto, None)
}

/// Makes sure that `found` is `expected`: same type, same shape, same values but for roundings.
pub fn same(found: &Tensor, expected: &Tensor) -> anyhow::Result<()> {
    let types = (found.datum_type(), expected.datum_type());
    ensure!(types.0 == types.1, "type {:?}, expected {:?}", types.0, types.1);
    let shapes = (found.shape(), expected.shape());
    ensure!(shapes.0 == shapes.1, "shape {:?}, expected {:?}", shapes.0, shapes.1);
    if !matches!(types.0, DatumType::F16 | DatumType::F32 | DatumType::F64) {
        ensure!(found == expected, "values differ");
        return Ok(());
    }
    let (found, expected) = (numbers(found)?, numbers(expected)?);
    for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
        if !near(*found, *expected) {
            bail!("number {at} is {found}, expected {expected}");
        }
    }
    Ok(())
}

fn numbers(tensor: &Tensor) -> anyhow::Result<Vec<f64>> {
    let tensor = tensor.cast_to::<f64>()?;
    Ok(tensor.to_plain_array_view::<f64>()?.iter().copied().collect())
}

fn near(found: f64, expected: f64) -> bool {
    // Beside an infinity every difference is within what grows with the value.
    found == expected
        || found.is_nan() && expected.is_nan()
        || expected.is_finite() && (found - expected).abs() <= ABSOLUTE + RELATIVE * expected.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::prelude::{tensor1, tensor2};

    #[test]
    fn roundings_are_the_same_and_all_else_is_not() {
        let one = tensor1(&[1.0_f32, f32::NAN, f32::INFINITY]);
        let check = |other: Tensor, expected| {
            assert_eq!(same(&other, &one).is_ok(), expected, "{other:?}");
        };
        check(tensor1(&[1.0009_f32, f32::NAN, f32::INFINITY]), true);
        check(tensor1(&[1.0011_f32, f32::NAN, f32::INFINITY]), false);
        check(tensor1(&[1.0_f32, 0.0, f32::INFINITY]), false);
        check(tensor1(&[1.0_f32, f32::NAN, f32::NEG_INFINITY]), false);
        check(tensor2(&[[1.0_f32, f32::NAN, f32::INFINITY]]), false);
        check(tensor1(&[1.0_f64, f64::NAN, f64::INFINITY]), false);
        assert!(same(&tensor1(&[1_i64, 2]), &tensor1(&[1_i64, 2])).is_ok());
        assert!(same(&tensor1(&[1_i64, 2]), &tensor1(&[1_i64, 3])).is_err());
    }
}
