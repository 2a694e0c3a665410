//! Ends the worker of the slot that is not used: the former incumbent after a commit, the candidate after a roll-back.

use std::{sync::Arc, time::Duration};

use slots::state::State;
use tokio::sync::watch;

use crate::{
    installed::Installed,
    observe::{logging, status::Status, stopping::stopped},
    worker::client::WorkerClient,
};

/// Longest wait for the worker's word.
const GOODBYE_MAX: Duration = Duration::from_secs(10);

/// Each time an update has ended, and once at the start, tells the other slot's worker to end; until `stop`.
pub async fn run(installed: Installed, status: Arc<Status>, mut stop: watch::Receiver<bool>) {
    let Some(slot) = installed.slot else { return };
    let other = slot.other();
    let mut changes = status.watch();
    loop {
        let steady = changes.wait_for(|snapshot| {
            snapshot
                .record
                .as_ref()
                .is_some_and(|record| matches!(record.state, State::Steady { .. }))
        });
        tokio::select! {
            seen = steady => if seen.is_err() { return },
            () = stopped(&mut stop) => return,
        }
        // A slot that was never filled has no worker, and connecting would only start one that fails.
        if installed.state.slot(other).manifest().exists() {
            let worker = WorkerClient::new(installed.worker_socket(other));
            match worker.shutdown(GOODBYE_MAX).await {
                Ok(()) => {
                    tracing::info!(slot = %other, "worker of the unused slot was told to end")
                }
                Err(reason) => tracing::debug!(
                    slot = %other,
                    reason = logging::chain(&reason),
                    "worker of the unused slot was not reached"
                ),
            }
        }
        let busy = changes.wait_for(|snapshot| {
            snapshot
                .record
                .as_ref()
                .is_some_and(|record| !matches!(record.state, State::Steady { .. }))
        });
        tokio::select! {
            seen = busy => if seen.is_err() { return },
            () = stopped(&mut stop) => return,
        }
    }
}
