//! Models that the worker cannot load, and from when on that is tried again. Pure.
//!
//! Loading one may cost a worker its life, and with it everything that others asked just then: so it is not tried for
//! everybody who asks, but ever more rarely, and who asks in between is told why.

use std::{collections::BTreeMap, time::Duration};

use engine::worker::failure::{Failure, FailureKind};
use tokio::time::Instant;

/// Pause after the first failure; each further one doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// Most models that are remembered: more than a slot has.
const MODELS_MAX: usize = 256;

/// The models, by the name that they are asked by.
#[derive(Debug, Default)]
pub struct Barred(BTreeMap<String, Bar>);

#[derive(Debug)]
struct Bar {
    reason: String,
    pause: Duration,
    until: Instant,
}

impl Barred {
    /// What somebody is told who asks for `model` at `now`; none where it may be tried.
    pub fn refusal(&self, model: &str, now: Instant) -> Option<Failure> {
        let bar = self.0.get(model).filter(|bar| now < bar.until)?;
        let left_ms = bar.until.duration_since(now).as_millis();
        Some(Failure {
            retry_after_ms: Some(u32::try_from(left_ms).unwrap_or(u32::MAX)),
            ..Failure::new(FailureKind::CannotLoad, bar.reason.clone())
        })
    }

    /// `model` could not be loaded. Of those who tried it at the same time, one counts.
    pub fn failed(&mut self, model: &str, reason: &str, now: Instant) {
        let before = self.0.get(model);
        if before.is_some_and(|bar| now < bar.until) {
            return;
        }
        let pause = before.map_or(FIRST, |bar| (bar.pause * 2).min(LONGEST));
        if before.is_some() || self.0.len() < MODELS_MAX {
            let bar = Bar { reason: reason.to_owned(), pause, until: now + pause };
            self.0.insert(model.to_owned(), bar);
        }
    }

    /// `model` is loaded.
    pub fn loaded(&mut self, model: &str) {
        self.0.remove(model);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_cannot_be_loaded_is_tried_ever_more_rarely_and_its_reason_told_meanwhile() {
        let (mut barred, mut now) = (Barred::default(), Instant::now());
        assert_eq!(barred.refusal("a", now), None);
        for pause_s in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            barred.failed("a", "too slow", now);
            // Another one that had begun before.
            barred.failed("a", "gone", now);
            let refusal = barred.refusal("a", now).unwrap();
            assert_eq!((refusal.kind, &*refusal.message), (FailureKind::CannotLoad, "too slow"));
            assert_eq!(refusal.retry_after_ms, Some(pause_s * 1_000));
            assert_eq!(barred.refusal("b", now), None);
            now += Duration::from_secs(pause_s.into());
            assert_eq!(barred.refusal("a", now), None, "after {pause_s} s");
        }
        barred.loaded("a");
        barred.failed("a", "again", now);
        assert_eq!(barred.refusal("a", now).unwrap().retry_after_ms, Some(1_000));
    }
}
