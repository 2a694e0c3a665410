//! The int8 of ONNX, against its definition.

use engine::kernels::{
    isa::Isa,
    linear::{
        affine::{AffineLinear, AffineWeights, Codes, InputScale},
        epilogue::Epilogue,
        packed::WeightsError,
    },
    quantize::{self, Affine},
    threads::Threads,
};
use proptest::prelude::*;

use crate::numbers::{Numbers, bits};

fn value(codes: Codes<'_>, at: usize) -> i64 {
    match codes {
        Codes::Signed(codes) => i64::from(codes[at]),
        Codes::Unsigned(codes) => i64::from(codes[at]),
    }
}

fn codes(bytes: &[u8], signed: bool, as_signed: &mut Vec<i8>) -> bool {
    as_signed.clear();
    as_signed.extend(bytes.iter().map(|byte| byte.cast_signed()));
    signed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn products_are_whole_numbers_and_exact(
        seed: u64, m in 0..14_usize, n in 1..70_usize, k in 1..90_usize,
        signed_input: bool, signed_weights: bool, per_column: bool,
    ) {
        let mut numbers = Numbers::of(seed);
        let (input, weights) = (numbers.bytes(m * k), numbers.bytes(k * n));
        let (mut input_signed, mut weights_signed) = (Vec::new(), Vec::new());
        let input = if codes(&input, signed_input, &mut input_signed) { Codes::Signed(&input_signed) } else { Codes::Unsigned(&input) };
        let weights = if codes(&weights, signed_weights, &mut weights_signed) { Codes::Signed(&weights_signed) } else { Codes::Unsigned(&weights) };
        let zero = |numbers: &mut Numbers, signed: bool| numbers.below(256) as i32 - if signed { 128 } else { 0 };
        let input_zero = zero(&mut numbers, signed_input);
        let count = if per_column { n } else { 1 };
        let zero_points: Vec<i32> = (0..count).map(|_| zero(&mut numbers, signed_weights)).collect();
        let expected: Vec<i64> = (0..m * n)
            .map(|at| {
                let (row, column) = (at / n, at % n);
                let weight_zero = i64::from(zero_points[if per_column { column } else { 0 }]);
                (0..k)
                    .map(|at| (value(input, row * k + at) - i64::from(input_zero)) * (value(weights, at * n + column) - weight_zero))
                    .sum()
            })
            .collect();
        for isa in Isa::available() {
            let stored = AffineWeights { k, n, codes: weights, zero_points: &zero_points, scales: &[1.0], bias: None };
            let linear = AffineLinear::new(isa, stored).unwrap();
            let mut out = vec![i32::MIN; m * n];
            linear.products(input, input_zero, &Threads::one(), &mut out);
            let out: Vec<i64> = out.into_iter().map(i64::from).collect();
            prop_assert_eq!(&out, &expected, "{}", isa.name());
        }
    }

    #[test]
    fn a_dynamic_linear_is_its_four_onnx_nodes(seed: u64, m in 1..9_usize, n in 1..40_usize, k in 1..50_usize) {
        let mut numbers = Numbers::of(seed);
        let (x, weights) = (numbers.floats(m * k, 3.0), numbers.bytes(k * n));
        let (scales, bias) = (numbers.floats(n, 0.1), numbers.floats(n, 1.0));
        let zero_points = [117];
        let affine = quantize::affine_of(Isa::portable(), &x);
        let quantized: Vec<i64> = x
            .iter()
            .map(|x| ((x / affine.scale).round_ties_even() as i64 + i64::from(affine.zero_point)).clamp(0, 255))
            .collect();
        for isa in Isa::available() {
            let stored = AffineWeights { k, n, codes: Codes::Unsigned(&weights), zero_points: &zero_points, scales: &scales, bias: Some(&bias) };
            let linear = AffineLinear::new(isa, stored).unwrap();
            let mut out = vec![f32::NAN; m * n];
            linear.run(&x, InputScale::Dynamic, Epilogue::None, &Threads::one(), &mut out);
            let mut fixed = vec![f32::NAN; m * n];
            linear.run(&x, InputScale::Static(affine), Epilogue::None, &Threads::one(), &mut fixed);
            prop_assert_eq!(bits(&fixed), bits(&out));
            for (at, got) in out.iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let sum: i64 = (0..k)
                    .map(|at| (quantized[row * k + at] - i64::from(affine.zero_point)) * (i64::from(weights[at * n + column]) - 117))
                    .sum();
                let expected = sum as f32 * (affine.scale * scales[column]) + bias[column];
                prop_assert_eq!(got.to_bits(), expected.to_bits(), "{}: {} for {}", isa.name(), got, expected);
            }
        }
    }

    #[test]
    fn codes_follow_onnx_and_saturate(seed: u64, zero_point: u8, count in 0..70_usize) {
        let mut numbers = Numbers::of(seed);
        let (x, factors) = (numbers.wild_floats(count), numbers.floats(count.max(1), 1e-3));
        let affine = Affine { scale: 0.37, zero_point };
        let sums: Vec<i32> = (0..count).map(|_| numbers.next() as i32 >> 8).collect();
        let saturated = |steps: f32| (f64::from(steps).round_ties_even() + f64::from(zero_point)).clamp(0.0, 255.0) as u8;
        let expected: Vec<u8> = x.iter().map(|x| saturated(x / affine.scale)).collect();
        let scaled: Vec<u8> = sums.iter().zip(&factors).map(|(sum, factor)| saturated(*sum as f32 * factor)).collect();
        for isa in Isa::available() {
            let mut codes = vec![7; count];
            quantize::to_u8(isa, &x, affine, &mut codes);
            prop_assert_eq!(&codes, &expected);
            quantize::requantize(isa, &sums, &factors[..count.max(1)], zero_point, &mut codes);
            prop_assert_eq!(&codes, &scaled);
        }
    }
}

#[test]
fn the_range_of_a_tensor_holds_zero() {
    let check = |x: &[f32], scale: f32, zero_point: u8| {
        for isa in Isa::available() {
            assert_eq!(quantize::affine_of(isa, x), Affine { scale, zero_point }, "{x:?}");
        }
    };
    check(&[0.0, 255.0], 1.0, 0);
    check(&[5.0, 510.0], 2.0, 0);
    check(&[-255.0, -1.0], 1.0, 255);
    check(&[-100.0, 155.0], 1.0, 100);
    check(&[0.0; 20], 1.0, 0);
    check(&[], 1.0, 0);
    for poison in [f32::NAN, f32::INFINITY] {
        assert!(quantize::affine_of(Isa::best(), &[1.0, poison]).scale.is_nan());
    }
    assert!(quantize::affine_of(Isa::best(), &[f32::MAX, f32::MIN]).scale.is_nan());
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let refused = |codes: usize, zero_points: &[i32], scales: &[f32]| {
        let codes = vec![0; codes];
        let stored = AffineWeights {
            k: 2,
            n: 3,
            codes: Codes::Unsigned(&codes),
            zero_points,
            scales,
            bias: None,
        };
        match AffineLinear::new(Isa::best(), stored).unwrap_err() {
            WeightsError::Length { what, .. } | WeightsError::NotFinite { what, .. } => what,
            WeightsError::Sides { .. } | WeightsError::Ragged { .. } => "shape",
        }
    };
    assert_eq!(refused(5, &[0], &[1.0]), "codes");
    assert_eq!(refused(6, &[0, 0], &[1.0]), "zero points");
    assert_eq!(refused(6, &[0], &[1.0; 2]), "scales");
    assert_eq!(refused(6, &[0], &[f32::NAN]), "scale");
}
