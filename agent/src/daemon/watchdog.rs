//! Tells the service manager that this gateway started, and again and again that it works.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
    time,
};

use crate::observe::{heartbeat::Heartbeats, stopping::stopped};

/// How often health is looked at when the service manager asks for no watchdog.
const EVERY: Duration = Duration::from_secs(5);
/// Longest wait for our own answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Says a thing to the service manager; without one, nothing.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(reason) = sd_notify::notify(states) {
        tracing::debug!(%reason, "no service manager was told");
    }
}

/// Feeds the watchdog while the API at `socket` answers and every loop turns; until `stop`.
pub async fn run(socket: PathBuf, beats: Heartbeats, mut stop: watch::Receiver<bool>) {
    let every = sd_notify::watchdog_enabled().map_or(EVERY, |limit| limit / 3);
    loop {
        let late = beats.late();
        match answers(&socket).await {
            Ok(()) if late.is_empty() => tell(&[NotifyState::Watchdog]),
            Ok(()) => tracing::error!(?late, "these loops do not turn; the watchdog is not fed"),
            Err(reason) => {
                tracing::error!(%reason, "the local API does not answer; the watchdog is not fed");
            }
        }
        tokio::select! {
            () = time::sleep(every) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Whether the API at `socket` says that it lives.
///
/// # Errors
/// It does not, or not in time.
pub async fn answers(socket: &Path) -> io::Result<()> {
    let asking = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        if head.ends_with(b" 200") {
            Ok(())
        } else {
            Err(io::Error::other(format!("/livez says {}", String::from_utf8_lossy(&head))))
        }
    };
    time::timeout(ANSWER_MAX, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
