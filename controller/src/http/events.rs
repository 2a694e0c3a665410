//! Events: in pages, and live as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _, Response, Sse,
        sse::{Event as Sent, KeepAlive},
    },
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{context::Context, refusal::Refusal};
use crate::{causes::chain, stop::Stop, store::database::Store};

const PAGE: u32 = 200;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    after: Option<u64>,
    limit: Option<u32>,
}

/// `GET /api/v1/events`: oldest first, from `after` on.
pub async fn list(
    State(context): State<Arc<Context>>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(Asked { after, limit }) = query?;
    let events = context.store.events_after(after.unwrap_or(0), limit.unwrap_or(PAGE)).await?;
    Ok(Json(json!({ "events": events })))
}

/// `GET /api/v1/events/stream`: from `after`, from the browser's `Last-Event-ID`, or from now on.
pub async fn stream(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Asked { after, .. }) = query?;
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = resumed.or(after).unwrap_or_else(|| *context.newest_event.borrow());
    let permit = Arc::clone(&context.streams).try_acquire_owned().map_err(|_| {
        let message = "too many event streams are open; close one or ask for pages of events";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", message)
    })?;
    let live = Live {
        store: context.store.clone(),
        newest: context.newest_event.clone(),
        stop: context.stop.clone(),
        after,
        permit,
    };
    let events = stream::unfold((live, Vec::new()), |(mut live, mut ready)| async move {
        if ready.is_empty() {
            ready = live.next().await?;
        }
        let event = ready.pop()?;
        Some((Ok::<Sent, Infallible>(event), (live, ready)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// An open stream: what it has sent, and its place among the bounded number of streams.
struct Live {
    store: Store,
    newest: watch::Receiver<u64>,
    stop: Stop,
    after: u64,
    #[expect(dead_code, reason = "held until the stream ends: it is the stream's place")]
    permit: OwnedSemaphorePermit,
}

impl Live {
    /// The next events, newest first; none when the stream ends.
    async fn next(&mut self) -> Option<Vec<Sent>> {
        loop {
            let after = self.after;
            tokio::select! {
                () = self.stop.wait() => return None,
                newest = self.newest.wait_for(|newest| *newest > after) => drop(newest.ok()?),
            }
            let events = match self.store.events_after(self.after, PAGE).await {
                Ok(events) => events,
                Err(error) => {
                    tracing::error!("an event stream ended: {}", chain(&error));
                    return None;
                }
            };
            let Some(last) = events.last() else { continue };
            self.after = last.id;
            let sent = events.iter().rev().filter_map(|event| {
                Sent::default().id(event.id.to_string()).event("event").json_data(event).ok()
            });
            return Some(sent.collect());
        }
    }
}
