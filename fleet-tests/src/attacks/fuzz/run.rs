//! A run: so many inputs to one target, each from a seed of its own, so that one input can be made again alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::bail;
use fastrand::Rng;
use serde::Serialize;

use crate::attacks::fuzz::{allocations, quiet, target::Target};

/// Memory that one input may take, apart from what grows with it.
const PEAK_BYTES_MAX: usize = 16 << 20;
/// Memory that one byte of input may take: a JSON tree of small values is many times its text.
const PEAK_PER_BYTE_MAX: usize = 256;

/// How many inputs, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Inputs.
    pub inputs: u64,
    /// The seed of the first; each next one is one higher.
    pub seed: u64,
}

/// What became of a target.
#[derive(Clone, Debug, Serialize)]
pub struct Fed {
    /// Its name.
    pub target: &'static str,
    /// Inputs it was given.
    pub inputs: u64,
    /// Of these, accepted: the changes hit nothing that matters.
    pub accepted: u64,
    /// Most memory that one input took, in bytes.
    pub peak_bytes: usize,
}

/// Feeds a target; an error names the seed of the input that panicked or took too much memory.
pub fn feed(target: &mut dyn Target, plan: Plan) -> anyhow::Result<Fed> {
    let mut fed = Fed { target: target.name(), inputs: 0, accepted: 0, peak_bytes: 0 };
    for offset in 0..plan.inputs {
        let seed = plan.seed.wrapping_add(offset);
        let input = target.input(&mut Rng::with_seed(seed))?;
        let feed = || catch_unwind(AssertUnwindSafe(|| target.feed(&input)));
        let ((outcome, said), peak) = allocations::peak_of(|| quiet::noting(feed));
        let name = target.name();
        match outcome {
            Ok(accepted) => fed.accepted += u64::from(accepted?),
            Err(_) => bail!(
                "{name} panicked ({}); again: attacks fuzz --target {name} --inputs 1 --seed {seed}",
                said.unwrap_or_default()
            ),
        }
        let most = PEAK_BYTES_MAX.saturating_add(input.len().saturating_mul(PEAK_PER_BYTE_MAX));
        if peak > most {
            bail!(
                "{name} took {peak} bytes for an input of {}; again: attacks fuzz --target {name} --inputs 1 --seed {seed}",
                input.len()
            );
        }
        fed.inputs += 1;
        fed.peak_bytes = fed.peak_bytes.max(peak);
    }
    Ok(fed)
}
