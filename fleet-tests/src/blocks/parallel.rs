//! Many things tried, a few at a time.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::bail;

/// Does `one` for each of `items` with `workers` threads, numbered from 1, and lets `take` have the results as they
/// come. The first error ends its thread and is the result.
pub fn each<T: Sync, R>(
    workers: usize,
    items: &[T],
    one: impl Fn(usize, &T) -> anyhow::Result<R> + Sync,
    take: impl FnMut(&T, R) + Send,
) -> anyhow::Result<()> {
    let (next, take) = (AtomicUsize::new(0), Mutex::new(take));
    let work = |worker: usize| -> anyhow::Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = one(worker, item)?;
            let mut take = take.lock().unwrap_or_else(PoisonError::into_inner);
            (*take)(item, result);
        }
        Ok(())
    };
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> =
            (1..=workers).map(|worker| scope.spawn(move || work(worker))).collect();
        for worker in workers {
            match worker.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::each;

    #[test]
    fn every_item_is_done_once_and_an_error_is_told() {
        let items: Vec<u32> = (0..100).collect();
        let mut sum = 0;
        each(3, &items, |_, item| Ok(item * 2), |item, twice| sum += twice - item).unwrap();
        assert_eq!(sum, 4950);
        let odd = |_, item: &u32| if *item == 77 { anyhow::bail!("odd") } else { Ok(()) };
        assert_eq!(each(3, &items, odd, |_, ()| ()).unwrap_err().to_string(), "odd");
    }
}
