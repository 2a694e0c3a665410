//! Linears in blocks.

use engine::kernels::{
    isa::Isa,
    linear::{
        block::{BlockLinear, BlockWeights},
        epilogue::Epilogue,
        packed::{Bits, WeightsError},
    },
    threads::Threads,
};
use proptest::prelude::*;

use crate::numbers::{Numbers, Stored, bits};

/// What the quantized product is, summed exactly in integers and then in f64, and how far an f32 sum may be from it.
fn expected(stored: &Stored, row: &[f32], column: usize) -> (f64, f64) {
    let (mut value, mut magnitude) = (f64::from(stored.bias[column]), 0.0);
    for (block, x) in row.chunks_exact(stored.block).enumerate() {
        let most = x.iter().fold(0_f32, |most, x| most.max(x.abs()));
        if most < 1e-30 {
            continue;
        }
        let sum: i64 = x
            .iter()
            .enumerate()
            .map(|(at, x)| {
                let code = (x * (127.0 / most)).round_ties_even() as i64;
                code * i64::from(stored.code(column, block * stored.block + at))
            })
            .sum();
        let scale = f64::from(most / 127.0) * f64::from(stored.scale(column, block * stored.block));
        value += sum as f64 * scale;
        magnitude += (sum as f64 * scale).abs();
    }
    let steps = (stored.k / stored.block + 4) as f64;
    (value, steps * f64::from(f32::EPSILON) * (magnitude + value.abs()) + 1e-37)
}

fn run(linear: &BlockLinear, x: &[f32], epilogue: Epilogue<'_>) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / linear.k() * linear.n()];
    linear.run(x, epilogue, &Threads::one(), &mut out);
    out
}

fn any_bits() -> impl Strategy<Value = Bits> {
    prop_oneof![Just(Bits::Eight), Just(Bits::Four)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_form_is_right_and_all_give_the_same_bits(
        seed: u64, m in 0..15_usize, n in 1..70_usize, blocks in 1..6_usize, bits_of in any_bits(),
        block in prop_oneof![Just(32_usize), Just(64), Just(128), Just(256)],
    ) {
        let k = blocks * block;
        let mut numbers = Numbers::of(seed);
        let stored = Stored::in_blocks(&mut numbers, bits_of, block, (n, k));
        let x = numbers.wild_floats(m * k);
        let first = run(&stored.packed(Isa::portable()), &x, Epilogue::None);
        for (row, out) in x.chunks_exact(k).zip(first.chunks_exact(n)) {
            for (column, got) in out.iter().enumerate() {
                let (value, tolerance) = expected(&stored, row, column);
                let off = (f64::from(*got) - value).abs();
                prop_assert!(off <= tolerance, "{got} for {value}, allowed {tolerance}");
            }
        }
        for isa in Isa::available() {
            let got = run(&stored.packed(isa), &x, Epilogue::None);
            prop_assert_eq!(bits(&got), bits(&first), "{} differs from portable", isa.name());
        }
    }

    #[test]
    fn an_epilogue_is_the_same_as_doing_it_after(seed: u64, m in 1..9_usize, n in 1..40_usize) {
        let mut numbers = Numbers::of(seed);
        let stored = Stored::of(&mut numbers, Bits::Eight, n, 64);
        let (x, residual) = (numbers.floats(m * 64, 2.0), numbers.floats(m * n, 2.0));
        for isa in Isa::available() {
            let linear = stored.packed(isa);
            let plain = run(&linear, &x, Epilogue::None);
            let added = run(&linear, &x, Epilogue::Residual(&residual));
            for ((added, plain), residual) in added.iter().zip(&plain).zip(&residual) {
                let off = (f64::from(*added) - f64::from(*plain) - f64::from(*residual)).abs();
                prop_assert!(off <= 1e-5 * (1.0 + f64::from(plain.abs())), "{added} for {plain} + {residual}");
            }
            let portable = run(&stored.packed(Isa::portable()), &x, Epilogue::Residual(&residual));
            prop_assert_eq!(bits(&added), bits(&portable));
            let mut bent = plain.clone();
            engine::kernels::gelu::gelu(isa, &mut bent);
            prop_assert_eq!(bits(&run(&linear, &x, Epilogue::Gelu)), bits(&bent));
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let mut numbers = Numbers::of(7);
    let stored = Stored::of(&mut numbers, Bits::Eight, 384, 384);
    let (x, residual) = (numbers.floats(131 * 384, 1.0), numbers.floats(131 * 384, 1.0));
    let linear = stored.packed(Isa::best());
    let one = run(&linear, &x, Epilogue::Residual(&residual));
    for count in [2, 3] {
        let threads = Threads::new(std::num::NonZeroUsize::new(count).unwrap()).unwrap();
        let mut out = vec![0.0; 131 * 384];
        linear.run(&x, Epilogue::Residual(&residual), &threads, &mut out);
        assert_eq!(bits(&out), bits(&one), "{count} threads");
    }
}

#[test]
fn the_extremes_of_codes_do_not_overflow() {
    for isa in Isa::available() {
        for code in [0_u8, 1, 128, 255] {
            for sign in [1.0_f32, -1.0] {
                for block in [32, 256] {
                    let (codes, scales) = (vec![code; 512], vec![1.0; 512 / block]);
                    let weights = BlockWeights {
                        bits: Bits::Eight,
                        block,
                        n: 1,
                        k: 512,
                        codes: &codes,
                        scales: &scales,
                        bias: None,
                    };
                    let linear = BlockLinear::new(isa, weights).unwrap();
                    let got = run(&linear, &[127.0 * sign; 512], Epilogue::None);
                    let expected = 512.0 * 127.0 * sign * (f32::from(code) - 128.0);
                    assert_eq!(got, [expected], "{} {block}", isa.name());
                }
            }
        }
    }
}

#[test]
fn a_number_that_is_not_finite_spoils_its_row_and_no_other() {
    let mut numbers = Numbers::of(3);
    let stored = Stored::of(&mut numbers, Bits::Eight, 33, 96);
    for isa in Isa::available() {
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = numbers.floats(3 * 96, 1.0);
            x[96 + 40] = poison;
            let out = run(&stored.packed(isa), &x, Epilogue::None);
            assert!(out[33..66].iter().all(|value| value.is_nan()), "{} {poison}", isa.name());
            assert!(out[..33].iter().chain(&out[66..]).all(|value| value.is_finite()));
        }
    }
}

#[test]
fn four_bits_stay_four_bits_in_memory() {
    let mut numbers = Numbers::of(5);
    let eight = Stored::of(&mut numbers, Bits::Eight, 384, 384).packed(Isa::best());
    let four = Stored::of(&mut numbers, Bits::Four, 384, 384).packed(Isa::best());
    assert_eq!(eight.bytes() - four.bytes(), 384 * 384 / 2);
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let check = |(n, k, block), codes: usize, scales: &[f32], bias: Option<&[f32]>, expected| {
        let codes = vec![0; codes];
        let weights = BlockWeights { bits: Bits::Eight, block, n, k, codes: &codes, scales, bias };
        assert_eq!(BlockLinear::new(Isa::best(), weights).unwrap_err(), expected);
    };
    let length = |what, needed, got| WeightsError::Length { rows: 2, width: 32, what, needed, got };
    check((2, 33, 32), 66, &[1.0; 2], None, WeightsError::Ragged { width: 33, block: 32 });
    for block in [0, 1, 16, 96, 512] {
        check((2, 960, block), 0, &[], None, WeightsError::Ragged { width: 960, block });
    }
    check((2, 96, 64), 192, &[1.0; 4], None, WeightsError::Ragged { width: 96, block: 64 });
    check((0, 32, 32), 0, &[], None, WeightsError::Sides { rows: 0, width: 32 });
    check((2, 0, 32), 0, &[], None, WeightsError::Sides { rows: 2, width: 0 });
    check((2, 32, 32), 63, &[1.0; 2], None, length("bytes of codes", 64, 63));
    check((2, 32, 32), 64, &[1.0; 3], None, length("scales", 2, 3));
    check((2, 32, 32), 64, &[1.0; 2], Some(&[1.0]), length("biases", 2, 1));
    let nan = [1.0, f32::NAN];
    check((2, 32, 32), 64, &nan, None, WeightsError::NotFinite { what: "scale", index: 1 });
    let huge = usize::MAX / 32 * 32;
    check((huge, 32, 32), 0, &[], None, WeightsError::Sides { rows: huge, width: 32 });
}
