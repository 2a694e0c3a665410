//! The highest rate that is kept: doubled until one is not, then narrowed down.

/// A search under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    kept: Option<f64>,
    not_kept: Option<f64>,
    first: f64,
    trials_left: u32,
}

/// Rates that lie nearer than this are not told apart.
const PRECISION: f64 = 1.06;
/// A rate below this is no rate.
const LEAST: f64 = 0.5;

impl Search {
    /// From `first` requests a second, in at most `trials` trials.
    pub const fn new(first: f64, trials: u32) -> Self {
        Self { kept: None, not_kept: None, first, trials_left: trials }
    }

    /// The rate to try next; none when the search is over.
    pub fn next(&self) -> Option<f64> {
        if self.trials_left == 0 {
            return None;
        }
        match (self.kept, self.not_kept) {
            (None, None) => Some(self.first),
            (Some(kept), None) => Some(kept * 2.0),
            (None, Some(not_kept)) => Some(not_kept / 2.0).filter(|rate| *rate >= LEAST),
            (Some(kept), Some(not_kept)) => {
                (not_kept / kept > PRECISION).then(|| (kept * not_kept).sqrt())
            }
        }
    }

    /// Notes how a trial ended.
    pub fn saw(&mut self, rate: f64, kept: bool) {
        self.trials_left = self.trials_left.saturating_sub(1);
        if kept {
            self.kept = Some(self.kept.map_or(rate, |before| before.max(rate)));
        } else {
            self.not_kept = Some(self.not_kept.map_or(rate, |before| before.min(rate)));
        }
    }

    /// The highest rate that was kept.
    pub const fn found(&self) -> Option<f64> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found for a server that keeps rates up to `limit`, and in how many trials.
    fn found(first: f64, limit: f64) -> (Option<f64>, u32) {
        let mut search = Search::new(first, 40);
        let mut trials = 0;
        while let Some(rate) = search.next() {
            search.saw(rate, rate <= limit);
            trials += 1;
        }
        (search.found(), trials)
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for (first, limit) in [(50.0, 730.0), (50.0, 51.0), (50.0, 3.3), (400.0, 410.0)] {
            let (rate, trials) = found(first, limit);
            let rate = rate.unwrap();
            assert!(rate <= limit && rate * PRECISION >= limit, "{first} {limit} {rate}");
            assert!(trials <= 14, "{trials}");
        }
    }

    #[test]
    fn a_server_that_keeps_nothing_ends_the_search() {
        assert_eq!(found(50.0, 0.0).0, None);
    }

    #[test]
    fn trials_are_bounded() {
        let mut search = Search::new(1.0, 3);
        for _ in 0..3 {
            let rate = search.next().unwrap();
            search.saw(rate, true);
        }
        assert_eq!((search.next(), search.found()), (None, Some(4.0)));
    }
}
