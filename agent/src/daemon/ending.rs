//! Finishing what was begun: no request that reached this gateway is dropped, and it takes a bounded time.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};

use crate::{
    observe::{metrics::Metrics, status::Status},
    serve::taking::Taking,
};

/// Longest time in which responses say `Connection: close` while connections are still taken.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// Longest time for all of it.
pub const ENDING_MAX: Duration = Duration::from_secs(10);
/// How often the open connections are counted.
const LOOK: Duration = Duration::from_millis(20);

/// What becomes of the open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// The next gateway takes them.
    Left,
    /// There is none that would: they are closed, and their clients are told beforehand.
    Closed,
}

/// Ends the servers of the local API.
pub async fn finish(
    status: &Arc<Status>,
    metrics: &Arc<Metrics>,
    taking: &watch::Sender<Taking>,
    servers: Vec<JoinHandle<()>>,
    connections: Connections,
) {
    let until = Instant::now() + ENDING_MAX;
    match connections {
        Connections::Left => drop(taking.send_replace(Taking::Leave)),
        Connections::Closed => close(status, metrics, taking).await,
    }
    for mut server in servers {
        match time::timeout_at(until, &mut server).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::error!(%reason, "a server of the local API failed"),
            Err(_) => {
                let open = metrics.connections.get();
                tracing::warn!(open, "requests that are still under way are dropped");
                server.abort();
            }
        }
    }
}

/// Has every response say that its connection closes, and takes no more once all are closed or time is up.
async fn close(status: &Arc<Status>, metrics: &Arc<Metrics>, taking: &watch::Sender<Taking>) {
    status.update(|snapshot| snapshot.draining = true);
    let idle = async {
        while metrics.connections.get() > 0 {
            time::sleep(LOOK).await;
        }
    };
    if time::timeout(CLOSING_MAX, idle).await.is_err() {
        tracing::debug!(
            open = metrics.connections.get(),
            "some connections stay open; idle ones are closed"
        );
    }
    taking.send_replace(Taking::None);
}
