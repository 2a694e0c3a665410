//! Linears in f32.

use engine::kernels::{
    isa::Isa,
    linear::{epilogue::Epilogue, float::FloatLinear, packed::WeightsError},
    threads::Threads,
};
use proptest::prelude::*;

use crate::numbers::{Numbers, bits};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_form_is_right_and_all_give_the_same_bits(
        seed: u64, m in 0..30_usize, n in 1..70_usize, k in 1..80_usize,
    ) {
        let mut numbers = Numbers::of(seed);
        let (x, weights) = (numbers.wild_floats(m * k), numbers.wild_floats(k * n));
        let bias = numbers.floats(n, 1.0);
        let mut first: Option<Vec<f32>> = None;
        for isa in Isa::available() {
            let linear = FloatLinear::new(isa, k, n, &weights, Some(&bias)).unwrap();
            let mut out = vec![f32::NAN; m * n];
            linear.run(&x, Epilogue::None, &Threads::one(), &mut out);
            for (at, got) in out.iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let terms = (0..k).map(|at| f64::from(x[row * k + at]) * f64::from(weights[at * n + column]));
                let (mut value, mut magnitude) = (f64::from(bias[column]), 0.0);
                for term in terms {
                    value += term;
                    magnitude += term.abs();
                }
                let tolerance = (k + 2) as f64 * f64::from(f32::EPSILON) * (magnitude + 1.0);
                prop_assert!((f64::from(*got) - value).abs() <= tolerance, "{got} for {value}");
            }
            match &first {
                Some(first) => prop_assert_eq!(bits(&out), bits(first), "{}", isa.name()),
                None => first = Some(out),
            }
        }
    }
}

#[test]
fn threads_and_epilogues_change_no_other_bit() {
    let mut numbers = Numbers::of(9);
    let (x, weights) = (numbers.floats(131 * 384, 1.0), numbers.floats(384 * 384, 0.1));
    let residual = numbers.floats(131 * 384, 1.0);
    let linear = FloatLinear::new(Isa::best(), 384, 384, &weights, None).unwrap();
    let run = |threads: &Threads, epilogue: Epilogue<'_>| {
        let mut out = vec![0.0; 131 * 384];
        linear.run(&x, epilogue, threads, &mut out);
        out
    };
    let (one, two) = (Threads::one(), Threads::new(2.try_into().unwrap()).unwrap());
    let plain = run(&one, Epilogue::None);
    assert_eq!(bits(&run(&two, Epilogue::None)), bits(&plain));
    let sums: Vec<f32> = plain.iter().zip(&residual).map(|(a, b)| a + b).collect();
    assert_eq!(bits(&run(&two, Epilogue::Residual(&residual))), bits(&sums));
}

#[test]
fn a_number_that_is_not_finite_spoils_its_row_and_no_other() {
    for isa in Isa::available() {
        let linear = FloatLinear::new(isa, 8, 3, &[1.0; 24], None).unwrap();
        let mut x = [1.0; 24];
        x[9] = f32::NAN;
        let mut out = [0.0; 9];
        linear.run(&x, Epilogue::None, &Threads::one(), &mut out);
        assert!(out[3..6].iter().all(|value| value.is_nan()));
        assert_eq!((&out[..3], &out[6..]), (&[8.0; 3][..], &[8.0; 3][..]));
    }
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let refused =
        |k, n, weights: &[f32]| FloatLinear::new(Isa::best(), k, n, weights, None).unwrap_err();
    assert_eq!(refused(0, 1, &[]), WeightsError::Sides { rows: 0, width: 1 });
    assert_eq!(
        refused(1, 1, &[f32::INFINITY]),
        WeightsError::NotFinite { what: "weight", index: 0 }
    );
    assert!(matches!(refused(2, 2, &[1.0; 3]), WeightsError::Length { needed: 4, got: 3, .. }));
}
