//! Attention over ragged sequences.

use engine::kernels::{
    attention::{Attention, Products, Qkv},
    isa::Isa,
    linear::panels::Strided,
    threads::Threads,
};
use proptest::prelude::*;

use crate::numbers::{Numbers, bits};

/// One matrix of queries, keys and values side by side.
struct Rows {
    data: Vec<f32>,
    width: usize,
}

impl Rows {
    fn of(numbers: &mut Numbers, rows: usize, width: usize, size: f32) -> Self {
        Self { data: numbers.floats(rows * width * 3, size), width }
    }

    fn qkv(&self) -> Qkv<'_> {
        let part = |at: usize| Strided {
            data: self.data.get(at * self.width..).unwrap_or_default(),
            stride: 3 * self.width,
        };
        Qkv { queries: part(0), keys: part(1), values: part(2) }
    }

    fn at(&self, part: usize, row: usize, column: usize) -> f64 {
        f64::from(self.data[(row * 3 + part) * self.width + column])
    }
}

fn expected(attention: Attention, rows: &Rows, segments: &[u32], row: usize, column: usize) -> f64 {
    let head = column / attention.head_dim * attention.head_dim;
    let own = segments.windows(2).find(|pair| (pair[0]..pair[1]).contains(&(row as u32))).unwrap();
    let sequence = own[0] as usize..own[1] as usize;
    let scores: Vec<f64> = sequence
        .clone()
        .map(|other| {
            let dot: f64 = (head..head + attention.head_dim)
                .map(|at| rows.at(0, row, at) * rows.at(1, other, at))
                .sum();
            dot * f64::from(attention.scale)
        })
        .collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let total: f64 = powers.iter().sum();
    sequence.zip(powers).map(|(other, power)| power / total * rows.at(2, other, column)).sum()
}

/// Numbers as they are, and words with how far these may be from them.
const BOTH: [(Products, f64); 2] = [(Products::Floats, 2e-5), (Products::Words, 2e-2)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_sequence_attends_to_itself_alone(
        seed: u64, heads in 1..4_usize, head_dim in 1..70_usize,
        lengths in proptest::collection::vec(0..45_u32, 0..5),
    ) {
        let mut numbers = Numbers::of(seed);
        let mut segments = vec![0];
        segments.extend(lengths.iter().scan(0, |end, length| { *end += length; Some(*end) }));
        let (count, width) = (*segments.last().unwrap() as usize, heads * head_dim);
        let rows = Rows::of(&mut numbers, count, width, 2.0);
        for (products, most) in BOTH {
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::available() {
                let scale = 1.0 / (head_dim as f32).sqrt();
                let attention = Attention { isa, heads, head_dim, scale, products };
                let mut out = vec![f32::NAN; count * width];
                attention.ragged(rows.qkv(), &segments, &Threads::one(), &mut out);
                if let Some(first) = &first {
                    prop_assert_eq!(bits(&out), bits(first), "{} differs from portable", isa.name());
                    continue;
                }
                let mut squares = 0.0;
                for (at, got) in out.iter().enumerate() {
                    let value = expected(attention, &rows, &segments, at / width, at % width);
                    let off = (f64::from(*got) - value).abs();
                    prop_assert!(off <= most, "{got} for {value} by {products:?}");
                    squares += off * off;
                }
                let typical = (squares / out.len().max(1) as f64).sqrt();
                prop_assert!(typical <= most / 10.0, "{typical} off by {products:?}");
                first = Some(out);
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let mut numbers = Numbers::of(21);
    let (rows, segments) = (Rows::of(&mut numbers, 300, 384, 1.0), [0, 5, 5, 201, 300]);
    for (products, _) in BOTH {
        let attention =
            Attention { isa: Isa::best(), heads: 12, head_dim: 32, scale: 0.2, products };
        let run = |threads: &Threads| {
            let mut out = vec![0.0; 300 * 384];
            attention.ragged(rows.qkv(), &segments, threads, &mut out);
            bits(&out)
        };
        let one = run(&Threads::one());
        for count in [2, 3, 4] {
            let count = std::num::NonZeroUsize::new(count).unwrap();
            assert!(run(&Threads::new(count).unwrap()) == one, "{products:?}");
        }
    }
}

#[test]
fn sums_of_many_equal_keys_do_not_overflow() {
    // Weights and values of the largest codes, over more keys than their sum has room for as an integer.
    for isa in Isa::available() {
        for (products, _) in BOTH {
            let attention = Attention { isa, heads: 1, head_dim: 32, scale: 1.0, products };
            let rows = Rows { data: vec![-3.0; 600 * 32 * 3], width: 32 };
            let mut out = vec![0.0; 600 * 32];
            attention.ragged(rows.qkv(), &[0, 600], &Threads::one(), &mut out);
            let off = out.iter().map(|value| (value + 3.0).abs()).fold(0.0, f32::max);
            assert!(off <= 1e-5, "{} {products:?}: {off}", isa.name());
        }
    }
}

#[test]
fn scores_far_apart_do_not_overflow_and_nan_stays_in_its_sequence() {
    let mut numbers = Numbers::of(4);
    for (isa, (products, _)) in
        Isa::available().into_iter().flat_map(|isa| BOTH.map(|both| (isa, both)))
    {
        let attention = Attention { isa, heads: 1, head_dim: 32, scale: 1.0, products };
        for size in [0.0, 1e-36, 1e4, 1e15] {
            let mut rows = Rows::of(&mut numbers, 20, 32, size);
            let mut out = vec![0.0; 20 * 32];
            attention.ragged(rows.qkv(), &[0, 10, 20], &Threads::one(), &mut out);
            assert!(out.iter().all(|value| value.abs() <= size * 1.001), "{size} {products:?}");
            rows.data[3 * 32 * 3 + 7] = f32::NAN;
            attention.ragged(rows.qkv(), &[0, 10, 20], &Threads::one(), &mut out);
            assert!(out[3 * 32..4 * 32].iter().all(|value| value.is_nan()));
            assert!(out[10 * 32..].iter().all(|value| value.is_finite()));
        }
    }
}
