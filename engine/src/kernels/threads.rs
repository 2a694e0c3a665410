//! How one call is split over threads.

use std::{num::NonZeroUsize, ops::Range};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// A piece of work below this many products is not worth waking another thread for: about 10 µs of one core.
const PRODUCTS_MIN: usize = 1 << 20;

/// The threads that one call may use: the caller's own, or a pool that belongs to this value alone.
#[derive(Debug, Default)]
pub struct Threads {
    pool: Option<ThreadPool>,
}

/// The pool's threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("starting {count} threads to compute on")]
pub struct ThreadsError {
    /// How many were asked for.
    count: NonZeroUsize,
    source: ThreadPoolBuildError,
}

impl Threads {
    /// The caller's thread only; no pool is made.
    pub const fn one() -> Self {
        Self { pool: None }
    }

    /// `count` threads that wait for work; with a count of 1, [`Threads::one`].
    ///
    /// # Errors
    /// The system refuses to start them.
    pub fn new(count: NonZeroUsize) -> Result<Self, ThreadsError> {
        if count == NonZeroUsize::MIN {
            return Ok(Self::one());
        }
        let builder = ThreadPoolBuilder::new().num_threads(count.get());
        let pool = builder.thread_name(|at| format!("kernel-{at}")).build();
        let pool = pool.map_err(|source| ThreadsError { count, source })?;
        Ok(Self { pool: Some(pool) })
    }

    /// How many threads work at once.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, ThreadPool::current_num_threads)
    }

    /// Runs `work` on a thread of the pool, where splitting a call costs a fraction of what it does from outside.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Cuts `out`, rows of `width`, into pieces of whole multiples of `step` rows, and calls `work` once for each
    /// piece with the range of its rows. `products` is the cost of all of it in multiplications.
    pub(in crate::kernels) fn split<T: Send>(
        &self,
        out: &mut [T],
        width: usize,
        step: usize,
        products: usize,
        work: &(impl Fn(Range<usize>, &mut [T]) + Sync),
    ) {
        let rows = out.len() / width.max(1);
        let parts = self.count().min(products / PRODUCTS_MIN).min(rows.div_ceil(step.max(1)));
        match &self.pool {
            Some(pool) if parts > 1 => {
                let piece = Piece { rows: 0..rows, width, step, parts };
                pool.install(|| halve(piece, out, work));
            }
            Some(_) | None => work(0..rows, out),
        }
    }
}

struct Piece {
    rows: Range<usize>,
    width: usize,
    step: usize,
    parts: usize,
}

fn halve<T: Send>(piece: Piece, out: &mut [T], work: &(impl Fn(Range<usize>, &mut [T]) + Sync)) {
    let Piece { rows, width, step, parts } = piece;
    if parts <= 1 {
        return work(rows, out);
    }
    let left_parts = parts / 2;
    let ideal = rows.len() * left_parts / parts;
    let cut = (ideal.div_ceil(step) * step).min(rows.len());
    let (left_out, right_out) = out.split_at_mut(cut * width);
    let middle = rows.start + cut;
    let left = Piece { rows: rows.start..middle, width, step, parts: left_parts };
    let right = Piece { rows: middle..rows.end, width, step, parts: parts - left_parts };
    rayon::join(|| halve(left, left_out, work), || halve(right, right_out, work));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(threads: &Threads, rows: usize, width: usize, step: usize) -> Vec<u32> {
        let mut out = vec![0_u32; rows * width];
        threads.split(&mut out, width, step, usize::MAX, &|range, piece: &mut [u32]| {
            assert_eq!(piece.len(), range.len() * width);
            assert!(range.start % step == 0);
            for (row, line) in range.zip(piece.chunks_exact_mut(width)) {
                line.iter_mut().for_each(|cell| *cell += row as u32 + 1);
            }
        });
        out
    }

    #[test]
    fn every_row_is_done_once() {
        for count in 1..5 {
            let threads = Threads::new(NonZeroUsize::new(count).unwrap()).unwrap();
            assert_eq!(threads.count(), count);
            for rows in [0, 1, 5, 6, 7, 13, 100] {
                for step in [1, 4, 6] {
                    let expected: Vec<u32> = (1..=rows as u32).flat_map(|row| [row; 3]).collect();
                    assert_eq!(covered(&threads, rows, 3, step), expected, "{count} {rows} {step}");
                }
            }
        }
    }

    #[test]
    fn a_small_call_stays_on_the_callers_thread() {
        let threads = Threads::new(NonZeroUsize::new(2).unwrap()).unwrap();
        let caller = std::thread::current().id();
        threads.split(&mut [0_u8; 64], 1, 1, 1000, &|_, _: &mut [u8]| {
            assert_eq!(std::thread::current().id(), caller);
        });
    }
}
