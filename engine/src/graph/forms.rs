//! The form of a graph's weights.

use std::collections::BTreeMap;

use crate::{
    graph::{
        fused::{Bits, Fused, Linear, Weight},
        net::Net,
    },
    weight_form::WeightForm,
};

/// The form that most weights of linears have; none when there is no linear.
pub(super) fn of(net: &Net) -> Option<WeightForm> {
    let mut weights: BTreeMap<WeightForm, usize> = BTreeMap::new();
    for (_, fused) in net.fused_nodes() {
        match fused {
            Fused::Linear(linear) => *weights.entry(form(linear)).or_default() += count(linear),
            Fused::Table(_)
            | Fused::Norm(_)
            | Fused::Gelu
            | Fused::Sum
            | Fused::Attention(_)
            | Fused::Positions(_)
            | Fused::FirstTokens => {}
        }
    }
    weights.into_iter().max_by_key(|(_, weights)| *weights).map(|(form, _)| form)
}

const fn count(linear: &Linear) -> usize {
    linear.n.saturating_mul(linear.k)
}

fn form(linear: &Linear) -> WeightForm {
    match &linear.weight {
        Weight::Blocks(blocks) => WeightForm::Blocks {
            bits: match blocks.bits {
                Bits::Eight => 8,
                Bits::Four => 4,
            },
            size: u32::try_from(blocks.block).unwrap_or(u32::MAX),
        },
        Weight::Float(_) => WeightForm::Floats,
        Weight::Integer(_) => WeightForm::Integers,
    }
}
