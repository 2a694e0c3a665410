//! Reductions along a row in one order, whatever the width of the registers.
//!
//! A row is reduced in 16 lanes side by side, which are then folded in halves. The last, partial chunk is filled up
//! with what changes nothing. The compiler takes such loops apart into single numbers, so that here, unlike in the
//! other kernels of rows, the vectors are spelt out.

use crate::kernels::isa::{Isa, Level};

/// Numbers that are reduced side by side.
pub(in crate::kernels) const LANES: usize = 16;

/// `rest`, at most a chunk, and `fill` up to a whole one.
#[inline(always)]
pub(in crate::kernels) fn filled(rest: &[f32], fill: f32) -> [f32; LANES] {
    let mut chunk = [fill; LANES];
    chunk[..rest.len()].copy_from_slice(rest);
    chunk
}

/// The sum of all lanes, halves onto halves.
#[inline(always)]
pub(in crate::kernels) fn folded(lanes: [f32; LANES]) -> f32 {
    halved(lanes, |a, b| a + b)
}

#[inline(always)]
fn halved(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES;
    while half > 1 {
        half /= 2;
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

/// The larger of two numbers, `b` when one is NaN: what the vector instruction does.
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The sum of a row.
pub(in crate::kernels) fn sum(isa: Isa, row: &[f32]) -> f32 {
    folded(match isa.level() {
        Level::Portable => portable(row, 0.0, 0.0, |sum, value| sum + value),
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        // SAFETY: an `Isa` of this level exists only where the processor has AVX2.
        Level::Avx2 => unsafe { avx2::sum(row) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        // SAFETY: an `Isa` of this level exists only where the processor has AVX-512 F.
        Level::Avx512Vnni => unsafe { avx512::sum(row) },
    })
}

/// The sum of the squares of what is left of a row without `mean`.
pub(in crate::kernels) fn squares_around(isa: Isa, row: &[f32], mean: f32) -> f32 {
    folded(match isa.level() {
        Level::Portable => portable(row, 0.0, mean, |sum, value| {
            let off = value - mean;
            off.mul_add(off, sum)
        }),
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        // SAFETY: an `Isa` of this level exists only where the processor has AVX2 and FMA.
        Level::Avx2 => unsafe { avx2::squares_around(row, mean) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        // SAFETY: an `Isa` of this level exists only where the processor has AVX-512 F.
        Level::Avx512Vnni => unsafe { avx512::squares_around(row, mean) },
    })
}

/// The largest number of a row, -∞ of none. Whether NaN is passed over is left open.
pub(in crate::kernels) fn largest(isa: Isa, row: &[f32]) -> f32 {
    let lanes = match isa.level() {
        Level::Portable => portable(row, f32::NEG_INFINITY, f32::NEG_INFINITY, larger),
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        // SAFETY: an `Isa` of this level exists only where the processor has AVX2.
        Level::Avx2 => unsafe { avx2::largest(row) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        // SAFETY: an `Isa` of this level exists only where the processor has AVX-512 F.
        Level::Avx512Vnni => unsafe { avx512::largest(row) },
    };
    halved(lanes, larger)
}

fn portable(row: &[f32], start: f32, fill: f32, join: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [start; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks.iter().chain([&filled(rest, fill)]) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = join(*lane, *value);
        }
    }
    lanes
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! Two registers of 8 lanes.

    use std::arch::x86_64::{
        __m256, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_storeu_ps, _mm256_sub_ps,
    };

    use super::{LANES, filled};

    type Pair = [__m256; 2];

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(chunk: &[f32; LANES]) -> Pair {
        #[expect(unsafe_code, reason = "loads vector registers")]
        // SAFETY: the chunk has 16 numbers.
        unsafe {
            [_mm256_loadu_ps(chunk.as_ptr()), _mm256_loadu_ps(chunk.as_ptr().add(8))]
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn stored(pair: Pair) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        #[expect(unsafe_code, reason = "stores vector registers")]
        // SAFETY: there are 16 numbers.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), pair[0]);
            _mm256_storeu_ps(lanes.as_mut_ptr().add(8), pair[1]);
        }
        lanes
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn sum(row: &[f32]) -> [f32; LANES] {
        let mut sums = [_mm256_setzero_ps(); 2];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks.iter().chain([&filled(rest, 0.0)]) {
            let values = load(chunk);
            sums = [_mm256_add_ps(sums[0], values[0]), _mm256_add_ps(sums[1], values[1])];
        }
        stored(sums)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn squares_around(row: &[f32], mean: f32) -> [f32; LANES] {
        let (mut sums, means) = ([_mm256_setzero_ps(); 2], _mm256_set1_ps(mean));
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks.iter().chain([&filled(rest, mean)]) {
            let [low, high] = load(chunk);
            let (low, high) = (_mm256_sub_ps(low, means), _mm256_sub_ps(high, means));
            sums = [_mm256_fmadd_ps(low, low, sums[0]), _mm256_fmadd_ps(high, high, sums[1])];
        }
        stored(sums)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn largest(row: &[f32]) -> [f32; LANES] {
        let mut most = [_mm256_set1_ps(f32::NEG_INFINITY); 2];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks.iter().chain([&filled(rest, f32::NEG_INFINITY)]) {
            let values = load(chunk);
            most = [_mm256_max_ps(most[0], values[0]), _mm256_max_ps(most[1], values[1])];
        }
        stored(most)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    //! One register of 16 lanes.

    use std::arch::x86_64::{
        __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
    };

    use super::{LANES, filled};

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(chunk: &[f32; LANES]) -> __m512 {
        #[expect(unsafe_code, reason = "loads a vector register")]
        // SAFETY: the chunk has 16 numbers.
        unsafe {
            _mm512_loadu_ps(chunk.as_ptr())
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn stored(register: __m512) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        #[expect(unsafe_code, reason = "stores a vector register")]
        // SAFETY: there are 16 numbers.
        unsafe {
            _mm512_storeu_ps(lanes.as_mut_ptr(), register);
        }
        lanes
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum(row: &[f32]) -> [f32; LANES] {
        let mut sums = _mm512_setzero_ps();
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks.iter().chain([&filled(rest, 0.0)]) {
            sums = _mm512_add_ps(sums, load(chunk));
        }
        stored(sums)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn squares_around(row: &[f32], mean: f32) -> [f32; LANES] {
        let (mut sums, means) = (_mm512_setzero_ps(), _mm512_set1_ps(mean));
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks.iter().chain([&filled(rest, mean)]) {
            let off = _mm512_sub_ps(load(chunk), means);
            sums = _mm512_fmadd_ps(off, off, sums);
        }
        stored(sums)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn largest(row: &[f32]) -> [f32; LANES] {
        let mut most = _mm512_set1_ps(f32::NEG_INFINITY);
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks.iter().chain([&filled(rest, f32::NEG_INFINITY)]) {
            most = _mm512_max_ps(most, load(chunk));
        }
        stored(most)
    }
}
