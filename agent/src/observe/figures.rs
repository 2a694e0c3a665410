//! What each model did for callers since this gateway started: sums for the statistics extension, a short memory and
//! quantiles for the status page.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::time::UnixMs;

use crate::observe::tally::Tally;

/// Most models that are counted; a gateway serves those of one release.
const MODELS_MAX: usize = 256;
/// How far back the status page looks, in seconds.
pub const RECENT_S: u64 = 60;

/// How one request was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Texts or other items of the request.
    pub items: u32,
    /// Their tokens; 0 where there are none.
    pub tokens: u64,
    /// From the request to the worker until computing began, the way to the worker included.
    pub queue: Duration,
    /// Computing.
    pub compute: Duration,
}

/// How often, and how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How often.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

impl Sum {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Of one model.
#[derive(Clone, Debug, Default)]
pub struct ModelFigures {
    /// When it was last asked; 1970 when never.
    pub last: UnixMs,
    /// Items computed.
    pub items: u64,
    /// Tokens computed.
    pub tokens: u64,
    /// Requests answered.
    pub success: Sum,
    /// Requests not answered.
    pub fail: Sum,
    /// Waits for the worker.
    pub queue: Sum,
    /// Computations.
    pub compute: Sum,
    /// Answers in each of the last [`RECENT_S`] seconds.
    recent: Recent,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    cells: [Cell; RECENT_S as usize],
}

impl Default for Recent {
    fn default() -> Self {
        Self { cells: [Cell::default(); RECENT_S as usize] }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    second: u64,
    answers: u64,
    tokens: u64,
}

impl ModelFigures {
    /// Answers and tokens per second over the last [`RECENT_S`] seconds before `now`.
    pub fn rate(&self, now: UnixMs) -> (f64, f64) {
        let now_s = now.0 / 1000;
        let recent = self.recent.cells.iter().filter(|cell| cell.second + RECENT_S > now_s);
        let (answers, tokens) = recent.fold((0_u64, 0_u64), |(answers, tokens), cell| {
            (answers + cell.answers, tokens + cell.tokens)
        });
        (answers as f64 / RECENT_S as f64, tokens as f64 / RECENT_S as f64)
    }

    fn note(&mut self, now: UnixMs, tokens: u64) {
        let second = now.0 / 1000;
        let at = usize::try_from(second % RECENT_S).unwrap_or(0);
        if let Some(cell) = self.recent.cells.get_mut(at) {
            if cell.second != second {
                *cell = Cell { second, ..Cell::default() };
            }
            cell.answers += 1;
            cell.tokens += tokens;
        }
    }
}

/// Of all models.
#[derive(Debug, Default)]
pub struct Figures(Mutex<BTreeMap<String, (ModelFigures, Box<Tally>)>>);

impl Figures {
    /// A request to `model` was answered after `took`.
    pub fn answer(&self, model: &str, now: UnixMs, took: Duration, work: Option<Work>) {
        self.with(model, |figures, tally| {
            figures.last = now;
            figures.success.add(took);
            figures.note(now, work.map_or(0, |work| work.tokens));
            tally.answer(took);
            if let Some(work) = work {
                figures.items += u64::from(work.items);
                figures.tokens += work.tokens;
                figures.queue.add(work.queue);
                figures.compute.add(work.compute);
            }
        });
    }

    /// A request to `model` was not answered, which took `took`.
    pub fn fail(&self, model: &str, now: UnixMs, took: Duration) {
        self.with(model, |figures, tally| {
            figures.last = now;
            figures.fail.add(took);
            tally.fail();
        });
    }

    /// The figures of `model` now.
    pub fn of(&self, model: &str) -> ModelFigures {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(model).map(|(figures, _)| figures.clone()).unwrap_or_default()
    }

    /// 50th and 99th percentile of the time of `model`'s answers, in microseconds; 0 before the first.
    pub fn latency_us(&self, model: &str) -> (u64, u64) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(model).map_or((0, 0), |(_, tally)| (tally.latency_us_p50(), tally.latency_us_p99()))
    }

    fn with(&self, model: &str, change: impl FnOnce(&mut ModelFigures, &Tally)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(model) {
            if all.len() >= MODELS_MAX {
                return;
            }
            all.insert(model.to_owned(), Default::default());
        }
        if let Some((figures, tally)) = all.get_mut(model) {
            change(figures, tally);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work {
        items: 2,
        tokens: 20,
        queue: Duration::from_millis(1),
        compute: Duration::from_millis(3),
    };

    #[test]
    fn what_was_done_is_summed_by_model() {
        let figures = Figures::default();
        figures.answer("m", UnixMs(5_000), Duration::from_millis(5), Some(WORK));
        figures.answer("m", UnixMs(6_000), Duration::from_millis(7), Some(WORK));
        figures.fail("m", UnixMs(7_000), Duration::from_millis(1));
        let of = figures.of("m");
        assert_eq!((of.items, of.tokens, of.last), (4, 40, UnixMs(7_000)));
        assert_eq!(of.success, Sum { count: 2, ns: 12_000_000 });
        assert_eq!(of.fail, Sum { count: 1, ns: 1_000_000 });
        assert_eq!(of.compute, Sum { count: 2, ns: 6_000_000 });
        assert!(figures.latency_us("m").1 >= 7_000);
        assert_eq!(figures.of("other").success.count, 0);
    }

    #[test]
    fn the_rate_forgets_what_is_a_minute_old() {
        let figures = Figures::default();
        for second in 0..30 {
            figures.answer("m", UnixMs(100_000 + second * 1000), Duration::ZERO, Some(WORK));
        }
        assert_eq!(figures.of("m").rate(UnixMs(129_000)), (0.5, 10.0));
        assert_eq!(figures.of("m").rate(UnixMs(175_000)), (14.0 / 60.0, 280.0 / 60.0));
        assert_eq!(figures.of("m").rate(UnixMs(300_000)), (0.0, 0.0));
    }

    #[test]
    fn names_cannot_fill_the_memory() {
        let figures = Figures::default();
        for name in 0..1000 {
            figures.fail(&name.to_string(), UnixMs(1), Duration::ZERO);
        }
        assert_eq!(figures.0.lock().unwrap().len(), MODELS_MAX);
    }
}
