//! Finds the lookup of position embeddings, whose ids depend on nothing but where a token stands in its sequence.

use tract_onnx::{pb::TensorProto, prelude::Tensor};

use crate::graph::{
    feeds::{Feeds, SEGMENTS},
    fused::{Fused, Positions},
    net::{Net, int, is_default},
    probe::{Probe, int_constant},
    shapes::{Axis, Shapes},
};

/// Replaces what computes position ids.
pub(super) fn fuse(net: &mut Net, shapes: &Shapes, feeds: &Feeds) {
    let mut found: Vec<(usize, Positions, String)> = Vec::new();
    {
        let probe = Probe::new(net, shapes, feeds);
        for at in net.places() {
            let Some(value) = looked_up(net, at) else { continue };
            if found.iter().any(|(_, _, known)| *known == value) {
                continue;
            }
            if let (Some(positions), Some(at)) = (positions(&probe, &value), net.producer(&value)) {
                found.push((at, positions, value));
            }
        }
    }
    for (at, positions, value) in found {
        let inputs = vec![feeds.ids.clone(), SEGMENTS.to_owned()];
        net.put(&[at], Fused::Positions(positions), inputs, value);
    }
    net.prune();
}

/// The ids that the node at `at` looks up, if it is a lookup and they are computed.
fn looked_up(net: &Net, at: usize) -> Option<String> {
    let node = net.node(at)?;
    let ids = match net.fused_at(at) {
        Some(Fused::Table(_)) => node.input.first()?,
        Some(_) => return None,
        None => {
            let from_constant = net.constant(node.input.first()?).is_some();
            (is_default(node, "Gather") && int(node, "axis", 0) == 0 && from_constant)
                .then_some(())?;
            node.input.get(1)?
        }
    };
    net.producer(ids)?;
    Some(ids.clone())
}

fn positions(probe: &Probe<'_>, value: &str) -> Option<Positions> {
    let batched = match *probe.shapes.axes(value)?.as_slice() {
        [Axis::Tokens] => false,
        [Axis::Fixed(1), Axis::Tokens] => true,
        _ => return None,
    };
    let one = probe_ids(probe, value, &[1000])?;
    let [first] = *one.as_slice() else { return None };
    let (pad, plain) = (first - 1, Positions { first, pad: None, batched });
    let mut samples: Vec<Vec<i64>> = vec![(1000..1005).collect(), (1000..1150).collect()];
    if probe.depends(value, &probe.feeds.ids) {
        // Padding in the middle and every small id tell what is counted, and that nothing else matters.
        samples.push(vec![1000, pad, 7, pad, pad, 9]);
        samples.push((0..12).rev().collect());
        samples.push(vec![pad, 1000]);
    }
    let padded = Positions { pad: Some(pad), ..plain.clone() };
    [plain, padded].into_iter().find(|guess| {
        samples
            .iter()
            .all(|ids| probe_ids(probe, value, ids).is_some_and(|found| found == guess.of(ids)))
    })
}

fn probe_ids(probe: &Probe<'_>, value: &str, ids: &[i64]) -> Option<Vec<i64>> {
    let tokens = i64::try_from(ids.len()).ok()?;
    let given: Vec<TensorProto> = vec![int_constant(&probe.feeds.ids, &[1, tokens], ids)];
    let found: Tensor = probe
        .run(value, tokens, given.clone())
        .or_else(|| probe.run_narrow(value, tokens, given))?;
    let found = found.cast_to::<i64>().ok()?.into_owned();
    Some(found.try_as_plain_ram().ok()?.as_slice::<i64>().ok()?.to_vec())
}

impl Positions {
    /// The positions of the tokens of one sequence.
    pub(super) fn of(&self, ids: &[i64]) -> Vec<i64> {
        let mut next = self.first;
        ids.iter()
            .map(|id| {
                if self.pad == Some(*id) {
                    return *id;
                }
                next += 1;
                next - 1
            })
            .collect()
    }
}
