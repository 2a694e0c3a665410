//! The yardstick: how many fused products of f32 the machine does at most.

use crate::kernels::isa::{Isa, Level};

/// Sums that are independent of each other: more than what hides the latency of a fused product.
const SUMS: usize = 12;

/// Numbers in a register of `isa`; 1 where the compiler decides.
const fn lanes(isa: Isa) -> usize {
    match isa.level() {
        Level::Portable => 1,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 8,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => 16,
    }
}

/// Computes `rounds` rounds of fused products that stay in registers, and returns how many products that were.
/// `seed`, and the number it adds to `out`, keep them from being computed at compile time or not at all.
pub fn fused(isa: Isa, rounds: usize, seed: f32, out: &mut f32) -> usize {
    *out += match isa.level() {
        Level::Portable => portable(rounds, seed),
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        // SAFETY: an `Isa` of this level exists only where the processor has AVX2 and FMA.
        Level::Avx2 => unsafe { avx2(rounds, seed) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        // SAFETY: an `Isa` of this level exists only where the processor has AVX-512 F.
        Level::Avx512Vnni => unsafe { avx512(rounds, seed) },
    };
    rounds * SUMS * lanes(isa)
}

fn portable(rounds: usize, seed: f32) -> f32 {
    let mut sums = [seed; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sum.mul_add(seed, seed);
        }
    }
    sums.iter().sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rounds: usize, seed: f32) -> f32 {
    use std::arch::x86_64::{_mm256_add_ps, _mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps};
    let factor = _mm256_set1_ps(seed);
    let mut sums = [factor; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, factor, factor);
        }
    }
    _mm256_cvtss_f32(sums.into_iter().fold(factor, |a, b| _mm256_add_ps(a, b)))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rounds: usize, seed: f32) -> f32 {
    use std::arch::x86_64::{_mm512_add_ps, _mm512_cvtss_f32, _mm512_fmadd_ps, _mm512_set1_ps};
    let factor = _mm512_set1_ps(seed);
    let mut sums = [factor; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, factor);
        }
    }
    _mm512_cvtss_f32(sums.into_iter().fold(factor, |a, b| _mm512_add_ps(a, b)))
}
