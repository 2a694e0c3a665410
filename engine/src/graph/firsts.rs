//! Finds what takes the state of the first token of a sequence, as classifiers do.

use crate::graph::{
    feeds::SEGMENTS,
    fused::Fused,
    net::{Net, int, is_default},
    numbers,
    shapes::{Axis, Shapes},
};

/// Replaces it.
pub(super) fn fuse(net: &mut Net, shapes: &Shapes) {
    for at in net.places() {
        if let Some((states, output)) = find(net, shapes, at) {
            let inputs = vec![states, SEGMENTS.to_owned()];
            net.put(&[at], Fused::FirstTokens, inputs, output);
        }
    }
    net.prune();
}

/// `Gather(states, 0)` along the tokens.
fn find(net: &Net, shapes: &Shapes, at: usize) -> Option<(String, String)> {
    let node = net.node(at).filter(|node| is_default(node, "Gather"))?;
    let [states, index] = node.input.as_slice() else { return None };
    let index = net.constant(index)?;
    (int(node, "axis", 0) == 1 && index.dims.is_empty()).then_some(())?;
    (numbers::ints(index)? == [0]).then_some(())?;
    let whole =
        matches!(shapes.axes(states)?.as_slice(), [Axis::Fixed(1), Axis::Tokens, Axis::Fixed(_)]);
    whole.then(|| (states.clone(), node.output.first().cloned().unwrap_or_default()))
}
