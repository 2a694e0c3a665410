//! What to say to devices. Messages name what to say; the speaker reads its newest content from the store, so nothing
//! old is ever said after something new.

use std::time::Duration;

use protocol::id::DeviceId;
use tokio::sync::mpsc;

const QUEUE: usize = 1024;
const WAIT: Duration = Duration::from_secs(5);

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// A device's assignment.
    Desired(DeviceId),
    /// Which releases are halted.
    Halt,
    /// The sealing key.
    Keys,
    /// Which reports of a device are stored.
    Acknowledge(DeviceId, Vec<u64>),
}

/// Where to put what is to be said.
#[derive(Clone, Debug)]
pub struct Outgoing(mpsc::Sender<Say>);

/// A bounded queue of what is to be said.
pub fn queue() -> (Outgoing, mpsc::Receiver<Say>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Outgoing(sender), receiver)
}

impl Outgoing {
    /// Queues something. When the queue stays full it is dropped with a warning: assignments, halts and keys are said
    /// again at the next connection, and a device asks again for an acknowledgement it missed.
    pub async fn say(&self, say: Say) {
        if let Err(full) = self.0.send_timeout(say, WAIT).await {
            tracing::warn!("dropped a message to devices, it will be said again: {full}");
        }
    }
}
