//! `linear_q8.wgsl` against the oracle, and what its launch refuses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adapter;

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use adapter::WAIT;
use gpu_kernels::device::{DeviceError, Gpu};
use gpu_kernels::linear_q8::{LaunchError, LinearQ8, ResidentLinear};
use gpu_kernels::oracle::{linear_q8, relative_error};
use gpu_kernels::q8_weights::{BLOCK, Q8Weights};
use proptest::prelude::{Just, Strategy, any};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

const ROOM: u64 = 512 << 20;

static KERNEL: LazyLock<(Gpu, LinearQ8)> = LazyLock::new(|| {
    let gpu = adapter::opened(ROOM);
    let kernel = LinearQ8::compile(&gpu).unwrap();
    (gpu, kernel)
});

/// Sides of a product, in blocks along k.
#[derive(Clone, Copy, Debug)]
struct Sides {
    m: usize,
    blocks: usize,
    n: usize,
}

/// Numbers that depend on nothing but the seed (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In -1..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn byte(&mut self) -> i8 {
        self.next().to_le_bytes()[7] as i8
    }
}

/// Runs one product on the GPU, holds every number to the oracle, and returns the whole error.
fn check(sides: Sides, largest: f32, biased: bool, seed: u64) -> Result<f64, String> {
    let (gpu, kernel) = &*KERNEL;
    let Sides { m, blocks, n } = sides;
    let mut noise = Noise(seed);
    let scales = (0..blocks * n).map(|_| noise.unit() / 64.0).collect();
    let quants = (0..blocks * BLOCK * n).map(|_| noise.byte()).collect();
    let weights = Q8Weights::new(blocks * BLOCK, n, scales, quants).unwrap();
    let input: Vec<f32> = (0..m * blocks * BLOCK).map(|_| noise.unit() * largest).collect();
    let bias: Option<Vec<f32>> = biased.then(|| (0..n).map(|_| noise.unit() * largest).collect());

    let resident = ResidentLinear::upload(gpu, &weights, bias.as_deref()).unwrap();
    let got = kernel.run(gpu, &resident, &input, WAIT).unwrap();
    let expected = linear_q8(&input, &weights, bias.as_deref());
    assert_eq!(got.len(), expected.len());
    match got.iter().zip(&expected).position(|(got, expected)| !expected.allows(*got)) {
        Some(at) => Err(format!(
            "{sides:?}, bias {biased}, seed {seed}: row {}, column {} is {}, expected {} ± {}",
            at / n,
            at % n,
            got[at],
            expected[at].value,
            expected[at].tolerance()
        )),
        None => Ok(relative_error(&got, &expected)),
    }
}

#[test]
fn every_odd_or_extreme_shape_agrees_with_the_oracle() {
    let sides = [
        (1, 1, 1),       // the smallest there is
        (16, 1, 64),     // exactly one narrow tile
        (17, 1, 65),     // one row and one column too many
        (64, 2, 64),     // exactly one wide tile
        (65, 2, 63),     // a row too many, a column too few
        (1, 1, 4097),    // one row, many columns
        (2049, 1, 1),    // one column, many rows
        (3, 512, 2),     // k = 16384
        (7, 48, 384),    // MiniLM's second feed-forward layer, a short text
        (128, 12, 384),  // MiniLM's projections at 128 tokens
        (128, 12, 1536), // and its first feed-forward layer
    ];
    for (m, blocks, n) in sides {
        for biased in [false, true] {
            let error = check(Sides { m, blocks, n }, 1.0, biased, 7).unwrap();
            println!(
                "{m:>5} × {:>5} × {n:>4}, bias {biased:<5}: relative error {error:.1e}",
                blocks * BLOCK
            );
            assert!(error < 2e-6, "{m} × {} × {n}: relative error {error:.1e}", blocks * BLOCK);
        }
    }
}

#[test]
fn any_shape_and_any_magnitude_agrees_with_the_oracle() {
    let seed = std::env::var("SOCLE_TEST_SEED").map_or_else(
        |_| RandomState::new().hash_one("linear_q8"),
        |given| given.parse().expect("SOCLE_TEST_SEED is a number"),
    );
    println!("seed {seed}; repeat with SOCLE_TEST_SEED={seed}");
    let config = Config {
        cases: 48,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let sides =
        (1usize..100, 1usize..9, 1usize..150).prop_map(|(m, blocks, n)| Sides { m, blocks, n });
    let largest = proptest::sample::select(vec![1e-30f32, 1e-3, 1.0, 1e4, 1e20]);
    TestRunner::new(config)
        .run(&(sides, largest, any::<bool>(), Just(seed)), |(sides, largest, biased, seed)| {
            check(sides, largest, biased, seed).map(drop).map_err(TestCaseError::fail)
        })
        .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
}

#[test]
fn an_infinity_stays_in_its_own_row() {
    let (gpu, kernel) = &*KERNEL;
    let weights = Q8Weights::new(32, 3, vec![1.0; 3], vec![1; 96]).unwrap();
    let resident = ResidentLinear::upload(gpu, &weights, None).unwrap();
    let mut input = vec![1.0; 5 * 32];
    input[2 * 32 + 9] = f32::INFINITY;
    let got = kernel.run(gpu, &resident, &input, WAIT).unwrap();
    for (row, values) in got.chunks(3).enumerate() {
        assert_eq!(values.iter().all(|value| *value == 32.0), row != 2, "row {row}: {values:?}");
    }
}

#[test]
fn wrong_lengths_are_refused_by_name() {
    let (gpu, kernel) = &*KERNEL;
    let weights = Q8Weights::new(64, 3, vec![1.0; 6], vec![1; 192]).unwrap();
    let refused = ResidentLinear::upload(gpu, &weights, Some(&[0.0; 2])).unwrap_err();
    assert!(matches!(refused, LaunchError::Bias { length: 2, n: 3 }), "{refused}");

    let resident = ResidentLinear::upload(gpu, &weights, Some(&[0.0; 3])).unwrap();
    for length in [0, 1, 63, 65] {
        let refused = kernel.run(gpu, &resident, &vec![1.0; length], WAIT).unwrap_err();
        assert!(
            matches!(refused, LaunchError::Input { length: got, k: 64 } if got == length),
            "{length}: {refused}"
        );
    }
    assert_eq!(kernel.run(gpu, &resident, &[1.0; 64], WAIT).unwrap(), [64.0; 3]);
}

#[test]
fn a_lost_device_gives_no_result() {
    let gpu = adapter::opened(ROOM);
    let kernel = LinearQ8::compile(&gpu).unwrap();
    let weights = Q8Weights::new(32, 1, vec![1.0], vec![1; 32]).unwrap();
    let resident = ResidentLinear::upload(&gpu, &weights, None).unwrap();
    assert_eq!(kernel.run(&gpu, &resident, &[1.0; 32], WAIT).unwrap(), [32.0]);
    gpu.abandon();
    let lost = kernel.run(&gpu, &resident, &[1.0; 32], WAIT).unwrap_err();
    assert!(matches!(lost, LaunchError::Device { source: DeviceError::Lost { .. } }), "{lost:?}");
}
