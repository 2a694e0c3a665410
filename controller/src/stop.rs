//! The word to stop, given once, heard by everything that waits.

use tokio::sync::watch;

/// Hears the word.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Gives the word. Dropping it gives it too, so nothing outlives its owner.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A pair of the two.
pub fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Gives the word.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns when the word is given.
    pub async fn wait(&mut self) {
        // An error says that the giver is gone, which is the word too.
        if self.0.wait_for(|stop| *stop).await.is_err() {}
    }
}
