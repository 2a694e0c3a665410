//! exp, erf and tanh of one number, in a form that the compiler can vectorise and that gives the same bits everywhere.
//!
//! Each is polynomials over fused products; the coefficients were fitted for this file by weighted least squares on
//! Chebyshev nodes, in f64. Figures of error are over the whole range, against f64, and tested.

/// 1.5 · 2²³: adding it leaves the nearest integer, ties to even, in the low bits of the sum.
pub(in crate::kernels) const ROUND: f32 = 12_582_912.0;

/// Beyond it erf(x/√2) differs from ±1 by less than 4e-8.
const ERF_END: f32 = 5.5;
/// erf(x/√2) = x · P(x²) / Q(x²) for |x| ≤ [`ERF_END`].
const ERF_P: [f32; 6] =
    [0.797_884_46, 0.067_700_17, 0.009_354_188, 0.000_337_597_07, 1.270_367_5e-5, 4.550_156e-8];
const ERF_Q: [f32; 6] =
    [1.0, 0.251_515_5, 0.028_644_38, 0.001_884_291_3, 7.363_833e-5, 1.197_524_9e-6];

/// Beyond it Φ(x), which GELU is x times, differs from 0 or 1 by less than 3e-7.
pub(in crate::kernels) const PHI_END: f32 = 5.0;
/// What takes the square of a number up to [`PHI_END`] to between 0 and 2.
pub(in crate::kernels) const PHI_FACTOR: f32 = 2.0 / (PHI_END * PHI_END);
/// erf(x/√2) = x · P(2x²/25 - 1) for |x| ≤ [`PHI_END`]: coarser than the quotient above, but enough for GELU, and
/// without the division that costs as much as ten products.
pub(in crate::kernels) const PHI_P: [f32; 13] = [
    0.28272757,
    -0.14059329,
    0.10304287,
    -0.08086626,
    0.062852345,
    -0.046670496,
    0.032994516,
    -0.021955976,
    0.012335943,
    -0.0058184597,
    0.003994956,
    -0.0030344764,
    0.0009906838,
];

/// eʳ = 1 + r + r² · P(r) for |r| ≤ ln 2 / 2.
const EXP_P: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_719, 0.001_381_458_6];
/// Below it eˣ is taken for 0; the smallest normal number is e^-87.34.
const EXP_LOW: f32 = -87.3;
/// Above it eˣ is taken for infinite, 1.4 times too early: 2¹²⁸ is no f32.
const EXP_HIGH: f32 = 88.37;
/// ln 2 in two parts; the product of the first with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -0.000_212_194_44;

/// eˣ, relative error ≤ 2e-7; 0 below -87.3, infinite above 88.37, NaN for NaN.
#[inline(always)]
pub(in crate::kernels) fn exp(x: f32) -> f32 {
    let bounded = if x > EXP_HIGH { EXP_HIGH } else { x };
    let value = exp_of_negative(bounded);
    if x > EXP_HIGH { f32::INFINITY } else { value }
}

/// [`exp`] of a number that is not above [`EXP_HIGH`].
#[inline(always)]
pub(in crate::kernels) fn exp_of_negative(x: f32) -> f32 {
    let bounded = if x < EXP_LOW { EXP_LOW } else { x };
    let shifted = bounded.mul_add(std::f32::consts::LOG2_E, ROUND);
    let exponent = shifted - ROUND;
    let r = exponent.mul_add(-LN_2_HIGH, bounded);
    let r = exponent.mul_add(-LN_2_LOW, r);
    let tail = polynomial(&EXP_P, r);
    let mantissa = (r * r).mul_add(tail, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < EXP_LOW { 0.0 } else { mantissa * power }
}

/// erf(x/√2), absolute error ≤ 4e-7; exactly ±1 beyond ±5.5, NaN for NaN.
#[inline(always)]
pub(in crate::kernels) fn erf_of_half_root(x: f32) -> f32 {
    let bounded = if x < -ERF_END { -ERF_END } else { x };
    let bounded = if bounded > ERF_END { ERF_END } else { bounded };
    let square = bounded * bounded;
    let value = bounded * polynomial(&ERF_P, square) / polynomial(&ERF_Q, square);
    let value = if x > ERF_END { 1.0 } else { value };
    if x < -ERF_END { -1.0 } else { value }
}

/// x/2 · (1 + erf(x/√2)), absolute error ≤ 2e-6 for |x| ≤ 16 and relative 3e-7 above. Not finite when `x` is not.
#[inline(always)]
pub(in crate::kernels) fn gelu(x: f32) -> f32 {
    let bounded = if x < -PHI_END { -PHI_END } else { x };
    let bounded = if bounded > PHI_END { PHI_END } else { bounded };
    let at = (bounded * bounded).mul_add(PHI_FACTOR, -1.0);
    let erf = bounded * polynomial(&PHI_P, at);
    let erf = if x > PHI_END { 1.0 } else { erf };
    let erf = if x < -PHI_END { -1.0 } else { erf };
    let half = 0.5 * x;
    half.mul_add(erf, half)
}

/// tanh x, absolute error ≤ 3e-7; NaN for NaN.
#[inline(always)]
pub(in crate::kernels) fn tanh(x: f32) -> f32 {
    let twice = 2.0 * x.abs();
    let size = 1.0 - 2.0 / (exp(twice) + 1.0);
    size.copysign(x)
}

/// Σ coefficients[n] · xⁿ, fused.
#[inline(always)]
pub(in crate::kernels) fn polynomial<const N: usize>(coefficients: &[f32; N], x: f32) -> f32 {
    let mut value = coefficients[N - 1];
    let mut at = N - 1;
    while at > 0 {
        at -= 1;
        value = value.mul_add(x, coefficients[at]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Σ (-1)ⁿ z²ⁿ⁺¹ / (n! (2n+1)) · 2/√π in f64; below 6 its cancellation leaves more than ten digits for z ≤ 3,
    /// and above that the continued fraction of erfc converges.
    fn erf(z: f64) -> f64 {
        let size = z.abs();
        let value = if size < 3.0 {
            let (mut term, mut sum, mut n) = (size, size, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= -size * size / n;
                sum += term / (2.0 * n + 1.0);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let fraction = (1..=80).rev().fold(size, |tail, n| size + f64::from(n) / 2.0 / tail);
            1.0 - (-size * size).exp() / (fraction * std::f64::consts::PI.sqrt())
        };
        value.copysign(z)
    }

    fn sweep(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |at| from + (to - from) * at as f32 / 200_000.0)
    }

    #[test]
    fn gelu_is_within_two_millionths() {
        for x in sweep(-16.0, 16.0) {
            let wide = f64::from(x);
            let expected = wide / 2.0 * (1.0 + erf(wide / 2.0_f64.sqrt()));
            let error = (f64::from(gelu(x)) - expected).abs();
            assert!(error <= 2e-6, "gelu({x}) = {}, not {expected}", gelu(x));
        }
        for x in [1e3, 1e10, f32::MAX, 3e-39, 0.0] {
            assert_eq!(gelu(-x.max(6.0)), 0.0);
            assert!((gelu(x) - if x > 1.0 { x } else { x / 2.0 }).abs() <= x * 3e-7);
        }
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!gelu(x).is_finite());
        }
    }

    #[test]
    fn erf_is_within_half_a_millionth() {
        for x in sweep(-7.0, 7.0) {
            let expected = erf(f64::from(x) / 2.0_f64.sqrt());
            assert!((f64::from(erf_of_half_root(x)) - expected).abs() <= 4e-7, "{x}");
        }
    }

    #[test]
    fn exp_is_right_to_the_last_bits_and_at_its_ends() {
        for x in sweep(-87.3, 88.36) {
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error <= 2e-7, "exp({x}) = {}, not {expected}", exp(x));
        }
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(-88.0)), (1.0, 0.0, 0.0));
        assert_eq!((exp(f32::INFINITY), exp(89.0)), (f32::INFINITY, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_odd_and_bounded() {
        for x in sweep(-20.0, 20.0) {
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() <= 3e-7, "{x}");
            assert_eq!(tanh(-x), -tanh(x));
        }
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(tanh(f32::NAN).is_nan());
    }
}
