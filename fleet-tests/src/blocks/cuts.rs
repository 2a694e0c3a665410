//! Where and how power is cut: at the moment each step was acknowledged, and at random moments within the steps.

use fastrand::Rng;

use crate::blocks::log::{Cache, Cut, Fate, Shape};

/// `count` cuts in a log of this `shape` whose steps end after the entries `ends`, in order.
pub fn choose(
    shape: &Shape,
    ends: &[usize],
    count: usize,
    cache: Cache,
    random: &mut Rng,
) -> Vec<Cut> {
    // What was acknowledged must be there even if nothing after the last flush is.
    let mut cuts: Vec<Cut> = ends
        .iter()
        .map(|at| Cut { at: *at, cache, fate: Fate::Lost, seed: random.u64(..) })
        .collect();
    random.shuffle(&mut cuts);
    // The rest belongs to the moments between.
    cuts.truncate(count / 3);
    let begins = std::iter::once(0).chain(ends.iter().copied());
    let steps: Vec<(usize, usize)> =
        begins.zip(ends.iter().copied()).filter(|(begin, end)| begin < end).collect();
    while cuts.len() < count && !steps.is_empty() {
        let (begin, end) = steps[random.usize(0..steps.len())];
        let flushes = within(&shape.flushes, begin, end);
        // Just before a flush is answered most is at stake.
        let at = match random.u8(0..4) {
            0 if !flushes.is_empty() => flushes[random.usize(0..flushes.len())],
            _ => random.usize(begin..end) + 1,
        };
        cuts.push(Cut { at, cache, fate: fate(random), seed: random.u64(..) });
    }
    cuts
}

fn within(flushes: &[usize], begin: usize, end: usize) -> &[usize] {
    let from = flushes.partition_point(|flush| *flush < begin);
    let to = flushes.partition_point(|flush| *flush < end);
    &flushes[from..to]
}

fn fate(random: &mut Rng) -> Fate {
    match random.u8(0..20) {
        0..3 => Fate::Lost,
        3..5 => Fate::Kept,
        5..8 => Fate::Some { percent: 10 },
        8..12 => Fate::Some { percent: 50 },
        12..15 => Fate::Some { percent: 90 },
        15..18 => Fate::Torn { percent: 50 },
        _ => Fate::Torn { percent: 95 },
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::choose;
    use crate::blocks::log::{Cache, Fate, Shape};

    #[test]
    fn as_many_as_asked_for_in_every_step_and_at_every_acknowledgement() {
        let shape = Shape { entries: 100, flushes: vec![5, 40, 41, 99] };
        let ends = [10, 10, 50, 100];
        let cuts = choose(&shape, &ends, 300, Cache::Honest, &mut Rng::with_seed(7));
        assert_eq!(cuts.len(), 300);
        for end in ends {
            assert!(cuts.iter().any(|cut| cut.at == end && cut.fate == Fate::Lost), "{end}");
        }
        for (begin, end) in [(0, 10), (10, 50), (50, 100)] {
            let here = cuts.iter().filter(|cut| (begin + 1..=end).contains(&cut.at)).count();
            assert!(here > 50, "{here} cuts between {begin} and {end}");
        }
        let again = choose(&shape, &ends, 300, Cache::Honest, &mut Rng::with_seed(7));
        assert_eq!(cuts, again);
    }

    #[test]
    fn few_cuts_are_not_all_at_acknowledgements() {
        let shape = Shape { entries: 100, flushes: vec![5] };
        let ends: Vec<usize> = (1..=50).collect();
        let cuts = choose(&shape, &ends, 9, Cache::Honest, &mut Rng::with_seed(7));
        assert_eq!(cuts.len(), 9);
    }

    #[test]
    fn an_empty_log_has_no_cuts_but_acknowledgements() {
        let cuts = choose(&Shape::default(), &[0], 9, Cache::Honest, &mut Rng::with_seed(7));
        assert_eq!(cuts.len(), 1);
    }
}
