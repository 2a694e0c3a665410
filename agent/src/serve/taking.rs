//! Whether connections to the local API are taken, and what becomes of those that are open.

use tokio::sync::watch;

/// Whether connections are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// Yes.
    All,
    /// No more; those that are open are left to the next gateway, each when no request is under way on it.
    Leave,
    /// No more; those that are open finish.
    None,
}

/// Until no more are taken.
pub async fn ended(taking: &mut watch::Receiver<Taking>) {
    if taking.wait_for(|taking| *taking != Taking::All).await.is_err() {
        tracing::debug!("nobody says any more whether connections are taken");
    }
}
