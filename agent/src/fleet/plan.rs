//! Which chunks of an object are copied and which are asked for, in how many requests. Pure.

use std::ops::Range;

use protocol::chunks::Chunk;

/// Most requests for one object.
pub const REQUESTS_MAX: usize = 256;
/// A gap that is not worth a request of its own: as many bytes as a request costs both ways, and a little time.
const GAP_BYTES: u64 = 4 * 1024;

/// What is done with some chunks that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// They are here.
    Copy(Range<usize>),
    /// One request brings them.
    Fetch(Range<usize>),
}

/// The steps from chunk `first` on. `here` says whether a chunk can be copied.
pub fn steps(chunks: &[Chunk], first: usize, here: impl Fn(&Chunk) -> bool) -> Vec<Step> {
    let mut fetched = wanted_runs(chunks, first, here);
    merge(&mut fetched, chunks, GAP_BYTES);
    if fetched.len() > REQUESTS_MAX {
        let mut gaps: Vec<u64> = fetched.windows(2).map(|pair| gap(chunks, pair)).collect();
        // The widest gaps stay; all that are as small as the first that does not are closed.
        gaps.sort_unstable_by(|a, b| b.cmp(a));
        let closed = gaps.get(REQUESTS_MAX - 1).copied().unwrap_or_default();
        merge(&mut fetched, chunks, closed);
    }
    let mut steps = Vec::with_capacity(fetched.len() * 2 + 1);
    let mut next = first;
    for run in fetched {
        if next < run.start {
            steps.push(Step::Copy(next..run.start));
        }
        next = run.end;
        steps.push(Step::Fetch(run));
    }
    if next < chunks.len() {
        steps.push(Step::Copy(next..chunks.len()));
    }
    steps
}

/// Where the bytes of `run` lie in what travels: first byte, and the byte after the last.
pub fn span(chunks: &[Chunk], run: &Range<usize>) -> (u64, u64) {
    let edge = |chunk: &Chunk| (chunk.packed_at, chunk.packed_at + u64::from(chunk.packed));
    let run = chunks.get(run.clone()).unwrap_or_default();
    match (run.first(), run.last()) {
        (Some(first), Some(last)) => (edge(first).0, edge(last).1),
        (None, _) | (_, None) => (0, 0),
    }
}

/// Runs of chunks that are not here.
fn wanted_runs(chunks: &[Chunk], first: usize, here: impl Fn(&Chunk) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, chunk) in chunks.iter().enumerate().skip(first) {
        if here(chunk) {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            Some(_) | None => runs.push(number..number + 1),
        }
    }
    runs
}

/// Joins runs whose gap is at most `closed` bytes.
fn merge(runs: &mut Vec<Range<usize>>, chunks: &[Chunk], closed: u64) {
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(runs.len());
    for run in runs.drain(..) {
        match merged.last_mut() {
            Some(last) if gap(chunks, &[last.clone(), run.clone()]) <= closed => last.end = run.end,
            Some(_) | None => merged.push(run),
        }
    }
    *runs = merged;
}

/// Bytes that travel between two runs and are not wanted.
fn gap(chunks: &[Chunk], pair: &[Range<usize>]) -> u64 {
    match pair {
        [before, after] => span(chunks, after).0.saturating_sub(span(chunks, before).1),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::chunks::ChunkName;

    /// Chunks of these lengths, packed to themselves; 0 is a repeated one.
    fn chunks(packed: &[u32]) -> Vec<Chunk> {
        let (mut at, mut packed_at) = (0, 0);
        packed
            .iter()
            .map(|&packed| {
                let length = packed.max(100);
                let same_as = (packed == 0).then_some(0);
                let name = ChunkName::of(&at.to_string().into_bytes());
                let chunk = Chunk { name, at, length, packed_at, packed, same_as };
                at += u64::from(length);
                packed_at += u64::from(packed);
                chunk
            })
            .collect()
    }

    #[test]
    fn neighbours_share_a_request_and_small_gaps_are_fetched_along() {
        let all = chunks(&[10_000; 8]);
        let missing = |numbers: &'static [usize]| {
            let all = all.clone();
            move |chunk: &Chunk| !numbers.iter().any(|&number| all[number] == *chunk)
        };
        assert_eq!(
            steps(&all, 0, missing(&[1, 2, 5])),
            [
                Step::Copy(0..1),
                Step::Fetch(1..3),
                Step::Copy(3..5),
                Step::Fetch(5..6),
                Step::Copy(6..8)
            ]
        );
        assert_eq!(steps(&all, 6, missing(&[1])), [Step::Copy(6..8)]);
        assert_eq!(steps(&all, 0, |_| false), [Step::Fetch(0..8)]);
        assert_eq!(span(&all, &(1..3)), (10_000, 30_000));
        let small = chunks(&[10_000, 4_000, 10_000, 4_097, 10_000]);
        let here = |chunk: &Chunk| chunk.packed < 10_000;
        assert_eq!(
            steps(&small, 0, here),
            [Step::Fetch(0..3), Step::Copy(3..4), Step::Fetch(4..5)]
        );
    }

    proptest! {
        #[test]
        fn every_chunk_has_its_turn_and_requests_are_bounded(
            sizes in proptest::collection::vec((0_u32..60_000, any::<bool>()), 1..2_000),
            first in 0_usize..2_000,
        ) {
            let all = chunks(&sizes.iter().map(|(size, _)| *size).collect::<Vec<_>>());
            let have: std::collections::HashSet<u64> = all
                .iter()
                .zip(&sizes)
                .filter(|(chunk, (_, have))| *have || chunk.packed == 0)
                .map(|(chunk, _)| chunk.at)
                .collect();
            let first = first.min(all.len());
            let steps = steps(&all, first, |chunk| have.contains(&chunk.at));
            let (mut next, mut fetches) = (first, 0);
            for step in &steps {
                let run = match step {
                    Step::Copy(run) => {
                        prop_assert!(all[run.clone()].iter().all(|c| have.contains(&c.at)));
                        run
                    }
                    Step::Fetch(run) => {
                        fetches += 1;
                        let (from, end) = span(&all, run);
                        prop_assert!(from < end);
                        run
                    }
                };
                prop_assert_eq!(run.start, next);
                prop_assert!(run.end > run.start);
                next = run.end;
            }
            prop_assert_eq!(next, all.len());
            prop_assert!(fetches <= REQUESTS_MAX, "{} requests", fetches);
        }
    }
}
