//! Clients of workers besides the gateway's own, each for one release in one slot.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::digest::Digest;

use crate::worker::client::WorkerClient;

/// The client that was asked for last: one release after another lies in the other slot, and only the newest is of use.
#[derive(Debug, Default)]
pub struct ByRelease(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    socket: PathBuf,
    release: Digest,
    client: Arc<WorkerClient>,
}

impl ByRelease {
    /// A client of the worker at `socket` that serves `release` and no other, with the connection it has.
    pub fn client(&self, socket: PathBuf, release: Digest) -> Arc<WorkerClient> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) =
            kept.as_ref().filter(|one| one.socket == socket && one.release == release)
        {
            return Arc::clone(&kept.client);
        }
        let client = Arc::new(WorkerClient::for_release(socket.clone(), Some(release)));
        *kept = Some(Kept { socket, release, client: Arc::clone(&client) });
        client
    }
}
