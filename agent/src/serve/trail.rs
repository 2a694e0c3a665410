//! What is learnt of a request on its way through the routes, for who counts it in the end: which model it asked, how it
//! was computed. The request's own task carries it, so that no route has to hand it on.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::observe::figures::Work;

tokio::task_local! {
    static TRAIL: Arc<Trail>;
}

/// Of one request.
#[derive(Debug)]
pub struct Trail {
    began: Instant,
    deadline: Instant,
    noted: Mutex<Noted>,
}

/// What was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The model that was asked.
    pub model: Option<String>,
    /// How it was computed.
    pub work: Option<Work>,
    /// When that was done, counted from the request's beginning.
    pub done: Duration,
}

impl Trail {
    /// Of a request that began at `began` and is to be answered before `deadline`.
    pub fn new(began: Instant, deadline: Instant) -> Arc<Self> {
        Arc::new(Self { began, deadline, noted: Mutex::default() })
    }

    /// Lets `answering` leave its notes here.
    pub async fn follow<T>(self: Arc<Self>, answering: impl Future<Output = T>) -> T {
        TRAIL.scope(self, answering).await
    }

    /// The notes so far.
    pub fn noted(&self) -> Noted {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(change: impl FnOnce(&mut Noted, &Self)) {
        // Outside a request, as in a test of one route's code, there is nobody to tell.
        if TRAIL
            .try_with(|trail| {
                change(&mut trail.noted.lock().unwrap_or_else(PoisonError::into_inner), trail)
            })
            .is_err()
        {
            tracing::trace!("noted outside a request");
        }
    }
}

/// The present request asks `model`.
pub fn asks(model: &str) {
    Trail::note(|noted, _| noted.model = Some(model.to_owned()));
}

/// The present request was computed so. Of several computations the times add up.
pub fn computed(work: Work) {
    Trail::note(|noted, trail| {
        noted.done = trail.began.elapsed();
        noted.work = Some(match noted.work {
            None => work,
            Some(before) => Work {
                items: before.items.saturating_add(work.items),
                tokens: before.tokens.saturating_add(work.tokens),
                queue: before.queue + work.queue,
                compute: before.compute + work.compute,
            },
        });
    });
}

/// How long the worker may take for the present request: what the caller gave, at most `most`.
pub fn time_left(most: Duration) -> Duration {
    let left = TRAIL.try_with(|trail| trail.deadline.saturating_duration_since(Instant::now()));
    left.map_or(most, |left| left.min(most))
}
