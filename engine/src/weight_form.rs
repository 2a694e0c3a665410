//! In which form a model's weights are computed with.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The form that holds most weights of a model's linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightForm {
    /// Integers that share a scale within a block along the inputs; activations are quantized likewise, at 8 bits.
    Blocks {
        /// Width of an integer: 4 or 8.
        bits: u8,
        /// Weights that share a scale.
        size: u32,
    },
    /// 8-bit integers with scales over whole rows or tensors, as ONNX's integer operators have them.
    Integers,
    /// 32-bit floats.
    Floats,
}

impl fmt::Display for WeightForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks { bits, size } => write!(f, "Q{bits} blocks of {size}"),
            Self::Integers => f.write_str("8-bit integers"),
            Self::Floats => f.write_str("32-bit floats"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_a_name_for_people() {
        let cases = [
            (WeightForm::Blocks { bits: 8, size: 32 }, "Q8 blocks of 32"),
            (WeightForm::Blocks { bits: 4, size: 128 }, "Q4 blocks of 128"),
            (WeightForm::Integers, "8-bit integers"),
            (WeightForm::Floats, "32-bit floats"),
        ];
        for (form, expected) in cases {
            assert_eq!(form.to_string(), expected);
        }
    }
}
