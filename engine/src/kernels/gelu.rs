//! GELU and tanh of whole slices.

use crate::kernels::{elementary, isa::for_each_isa};

for_each_isa! {
    /// Each number becomes x/2 · (1 + erf(x/√2)): the exact GELU, absolute error ≤ 2e-6 for |x| ≤ 16.
    pub fn gelu(isa: Isa, values: &mut [f32]) {
        for value in values {
            *value = elementary::gelu(*value);
        }
    }
}

for_each_isa! {
    /// Each number becomes its hyperbolic tangent, absolute error ≤ 3e-7.
    pub fn tanh(isa: Isa, values: &mut [f32]) {
        for value in values {
            *value = elementary::tanh(*value);
        }
    }
}

for_each_isa! {
    /// Each number becomes erf(x), absolute error ≤ 5e-7.
    pub fn erf(isa: Isa, values: &mut [f32]) {
        for value in values {
            *value = elementary::erf_of_half_root(*value * std::f32::consts::SQRT_2);
        }
    }
}
