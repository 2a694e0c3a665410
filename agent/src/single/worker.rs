//! The worker children: one for each slot, started when its socket is connected to and none runs.

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixListener},
    time::Duration,
};

use protocol::id::Slot;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::{sync::watch, task, time};

use crate::{
    observe::{logging, stopping::stopped},
    single::{
        back_off::BackOff,
        child::{self, Running},
        plan::Plan,
    },
    sockets::WORKER,
};

/// Longest wait of a thread for a connection: so soon it ends when the supervisor does.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
/// A worker that lived this long has served.
const SERVED: Duration = Duration::from_secs(5);
/// A worker has nothing to lose.
const END_MAX: Duration = Duration::from_secs(2);

/// Keeps the worker of `slot` ready to be started by a connection to `listener`, until `stop`.
pub async fn run(plan: Plan, slot: Slot, listener: UnixListener, mut stop: watch::Receiver<bool>) {
    let mut back_off = BackOff::default();
    while !*stop.borrow() {
        tokio::select! {
            wanted = wanted(&listener) => if let Err(reason) = wanted {
                tracing::error!(%slot, %reason, "the worker's socket cannot be watched");
            },
            () = stopped(&mut stop) => return,
        }
        let lived = match child::start("worker", plan.worker(slot), &[(WORKER, listener.as_fd())]) {
            Ok(mut running) => {
                tokio::select! {
                    lived = ended(slot, &mut running) => lived,
                    () = stopped(&mut stop) => {
                        if let Err(reason) = running.end(END_MAX).await {
                            tracing::error!("{}", logging::chain(&reason));
                        }
                        return;
                    }
                }
            }
            Err(reason) => {
                tracing::error!(%slot, "no worker: {}", logging::chain(&reason));
                Life::Failed(Duration::ZERO)
            }
        };
        let pause = match lived {
            // It was told to end, and may be wanted again at once.
            Life::Ended => continue,
            Life::Killed(lived) => back_off.after(lived),
            Life::Failed(lived) => {
                hang_up(&listener, slot);
                back_off.after(lived)
            }
        };
        tokio::select! {
            () = time::sleep(pause) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

enum Life {
    /// As told.
    Ended,
    /// By a signal or after a while. Who asked it asks again, and waits at the socket for the next one.
    Killed(Duration),
    /// It did not get as far as serving, and the next one hardly will.
    Failed(Duration),
}

/// Until somebody waits at the socket.
async fn wanted(listener: &UnixListener) -> io::Result<()> {
    loop {
        let listener = listener.try_clone()?;
        let looking = task::spawn_blocking(move || {
            let mut waiting = [PollFd::new(&listener, PollFlags::IN)];
            poll(&mut waiting, Some(&LOOK))
        });
        match looking.await.map_err(io::Error::other)? {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(reason) => return Err(reason.into()),
        }
    }
}

async fn ended(slot: Slot, running: &mut Running) -> Life {
    match running.ended().await {
        Ok((status, lived)) if status.success() => {
            tracing::info!(%slot, lived_s = lived.as_secs(), "worker ended as told");
            Life::Ended
        }
        Ok((status, lived)) => {
            tracing::warn!(%slot, %status, lived_s = lived.as_secs(), "worker ended");
            if status.code().is_some() && lived < SERVED {
                Life::Failed(lived)
            } else {
                Life::Killed(lived)
            }
        }
        Err(reason) => {
            tracing::error!(%slot, "{}", logging::chain(&reason));
            Life::Failed(Duration::ZERO)
        }
    }
}

/// Whoever waits for a worker that cannot start learns it now, rather than when its patience ends.
fn hang_up(listener: &UnixListener, slot: Slot) {
    let mut count = 0;
    while let Ok((stream, _)) = listener.accept() {
        drop(stream);
        count += 1;
    }
    tracing::debug!(%slot, count, "connections to the dead worker were closed");
}
