//! Random inputs in the short form; `cargo xtask attacks --fuzz 1000000` is the long one.

use fleet_tests::attacks::fuzz::{
    allocations::Counting,
    every,
    run::{Plan, feed},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Inputs to each target.
const INPUTS: u64 = 10_000;

#[test]
fn random_inputs_neither_panic_nor_take_memory_without_bound() {
    // The same in every run: a change that breaks one is found by the change's own run. Other seeds are the long form's.
    for mut target in every::targets().unwrap() {
        let fed = feed(target.as_mut(), Plan { inputs: INPUTS, seed: 20_261_122 }).unwrap();
        assert_eq!(fed.inputs, INPUTS);
        assert!(fed.accepted < INPUTS, "{}: no input was refused", fed.target);
    }
}
