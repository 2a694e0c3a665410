//! The gateway child: a try is spent before each start, it is started again whenever it ends, and it is killed when it
//! no longer answers.

use std::{
    net::TcpListener,
    os::{fd::AsFd as _, unix::net::UnixListener},
    time::Duration,
};

use tokio::{sync::watch, time};

use crate::{
    daemon::{ending::ENDING_MAX, watchdog},
    observe::{clock, logging, stopping::stopped},
    single::{
        back_off::BackOff,
        child::{self, ChildError, Running},
        plan::Plan,
    },
    sockets::{API_TCP, API_UNIX},
};

/// How often it is asked whether it lives.
const LOOK: Duration = Duration::from_secs(5);
/// So many unanswered looks in a row, and it is killed.
const MISSED_MAX: u32 = 6;
/// Longest time that spending a try may take: it verifies a slot.
const ARM_MAX: Duration = Duration::from_secs(30);
/// Besides the time it has for its requests.
const END_GRACE: Duration = Duration::from_secs(5);

/// The sockets of the local API, held by the supervisor so that no connection is ever refused.
#[derive(Debug)]
pub struct ApiSockets {
    /// Over TCP.
    pub tcp: TcpListener,
    /// On a Unix socket.
    pub unix: UnixListener,
}

/// Keeps a gateway running until `stop`.
pub async fn run(plan: Plan, sockets: ApiSockets, mut stop: watch::Receiver<bool>) {
    let mut back_off = BackOff::default();
    let mut starts = 0_u64;
    while !*stop.borrow() {
        starts = starts.saturating_add(1);
        let name = format!("{}-{starts}", clock::now().0);
        arm(&plan, &name).await;
        let lived = match start(&plan, &name, &sockets) {
            Ok(mut running) => {
                tokio::select! {
                    lived = watch_over(&plan, &mut running) => lived,
                    () = stopped(&mut stop) => {
                        finish(&plan, running).await;
                        return;
                    }
                }
            }
            Err(reason) => {
                tracing::error!("no gateway: {}", logging::chain(&reason));
                Duration::ZERO
            }
        };
        tokio::select! {
            () = time::sleep(back_off.after(lived)) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

fn start(plan: &Plan, name: &str, sockets: &ApiSockets) -> Result<Running, ChildError> {
    child::start(
        "gateway",
        plan.gateway(name),
        &[(API_TCP, sockets.tcp.as_fd()), (API_UNIX, sockets.unix.as_fd())],
    )
}

/// Until it has ended: how long it lived.
async fn watch_over(plan: &Plan, running: &mut Running) -> Duration {
    let mut missed = 0;
    loop {
        tokio::select! {
            ended = running.ended() => return match ended {
                Ok((status, lived)) => {
                    tracing::info!(%status, lived_s = lived.as_secs(), "gateway ended");
                    lived
                }
                Err(reason) => {
                    tracing::error!("{}", logging::chain(&reason));
                    Duration::ZERO
                }
            },
            answered = look(plan) => match answered {
                Ok(()) => missed = 0,
                Err(reason) => {
                    missed += 1;
                    tracing::warn!(%reason, missed, "gateway does not answer");
                    if missed == MISSED_MAX {
                        tracing::error!("gateway is killed and started again");
                        running.kill();
                    }
                }
            },
        }
    }
}

async fn look(plan: &Plan) -> std::io::Result<()> {
    time::sleep(LOOK).await;
    watchdog::answers(&plan.api_socket()).await
}

/// A failure is said by `socle-launch` itself, and the start goes on.
async fn arm(plan: &Plan, name: &str) {
    match child::start("launcher", plan.arm(name), &[]) {
        Ok(mut running) => {
            if time::timeout(ARM_MAX, running.ended()).await.is_err() {
                tracing::error!(
                    "socle-launch arm did not end in time; the gateway starts without it"
                );
            }
        }
        Err(reason) => tracing::error!("no try was spent: {}", logging::chain(&reason)),
    }
}

async fn finish(plan: &Plan, running: Running) {
    match running.end(ENDING_MAX + END_GRACE).await {
        Ok(status) => {
            tracing::info!(%status, "gateway ended");
            refund(plan).await;
        }
        Err(reason) => tracing::error!("{}", logging::chain(&reason)),
    }
}

async fn refund(plan: &Plan) {
    match child::start("launcher", plan.refund(), &[]) {
        Ok(mut running) => {
            if time::timeout(ARM_MAX, running.ended()).await.is_err() {
                tracing::error!("socle-launch refund did not end in time");
            }
        }
        Err(reason) => tracing::error!("the try was not given back: {}", logging::chain(&reason)),
    }
}
