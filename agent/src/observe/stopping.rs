//! How loops learn that they are to end.

use tokio::sync::watch;

/// Until `stop` is true, or nobody is left who could say so.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("who started this loop has ended");
    }
}
