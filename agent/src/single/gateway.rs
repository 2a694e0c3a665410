//! The gateway child: a try is spent before each start, it is started again whenever it ends, and it is killed when it
//! does not begin to answer, or no longer does.

use std::{
    net::TcpListener,
    os::{fd::AsFd as _, unix::net::UnixListener},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::{
    daemon::{ending::ENDING_MAX, watchdog},
    observe::{clock, logging, stopping::stopped},
    serve::bequest::Bequest,
    single::{
        back_off::BackOff,
        child::{self, ChildError, Running},
        plan::Plan,
    },
    sockets::{API_TCP, API_UNIX, BEQUEST_LEAVE, BEQUEST_TAKE},
};

/// How often it is asked whether it lives.
const LOOK: Duration = Duration::from_secs(5);
/// How often before its first answer.
const LOOK_STARTING: Duration = Duration::from_millis(200);
/// Longest time to its first answer. Everybody's requests wait meanwhile.
const START_MAX: Duration = Duration::from_secs(10);
/// The same on a machine that was too slow for less: doubled with every start that failed by it.
const START_MAX_LONGEST: Duration = Duration::from_secs(80);
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
    /// By which open connections go from one gateway to the next.
    pub bequest: Bequest,
}

/// How a gateway ended.
struct Ended {
    lived: Duration,
    /// It gave an answer before.
    answered: bool,
    /// It ended in order, as one does whose successor is to start.
    in_order: bool,
}

/// Keeps a gateway running until `stop`.
pub async fn run(plan: Plan, sockets: ApiSockets, mut stop: watch::Receiver<bool>) {
    let mut back_off = BackOff::default();
    let mut start_max = START_MAX;
    let mut starts = 0_u64;
    while !*stop.borrow() {
        starts = starts.saturating_add(1);
        let name = format!("{}-{starts}", clock::now().0);
        arm(&plan, &name).await;
        let pause = match start(&plan, &name, &sockets) {
            Ok(mut running) => {
                tokio::select! {
                    ended = watch_over(&plan, &sockets.bequest, &mut running, start_max) => {
                        let too_slow = !ended.answered && ended.lived >= start_max;
                        start_max =
                            if too_slow { (start_max * 2).min(START_MAX_LONGEST) } else { START_MAX };
                        if ended.answered && ended.in_order {
                            Duration::ZERO
                        } else {
                            back_off.after(ended.lived)
                        }
                    }
                    () = stopped(&mut stop) => {
                        finish(&plan, running).await;
                        return;
                    }
                }
            }
            Err(reason) => {
                tracing::error!("no gateway: {}", logging::chain(&reason));
                back_off.after(Duration::ZERO)
            }
        };
        tokio::select! {
            () = time::sleep(pause) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

fn start(plan: &Plan, name: &str, sockets: &ApiSockets) -> Result<Running, ChildError> {
    let (leave, take) = sockets.bequest.ends();
    child::start(
        "gateway",
        plan.gateway(name),
        &[
            (API_TCP, sockets.tcp.as_fd()),
            (API_UNIX, sockets.unix.as_fd()),
            (BEQUEST_LEAVE, leave),
            (BEQUEST_TAKE, take),
        ],
    )
}

/// Until it has ended.
async fn watch_over(
    plan: &Plan,
    bequest: &Bequest,
    running: &mut Running,
    start_max: Duration,
) -> Ended {
    let mut missed = 0;
    let mut answered = false;
    let late = time::sleep_until(Instant::now() + start_max);
    tokio::pin!(late);
    loop {
        let pause = if answered { LOOK } else { LOOK_STARTING };
        tokio::select! {
            ended = running.ended() => return match ended {
                Ok((status, lived)) => {
                    tracing::info!(%status, lived_s = lived.as_secs(), "gateway ended");
                    Ended { lived, answered, in_order: status.success() }
                }
                Err(reason) => {
                    tracing::error!("{}", logging::chain(&reason));
                    Ended { lived: Duration::ZERO, answered, in_order: false }
                }
            },
            () = &mut late, if !answered && missed < MISSED_MAX => {
                tracing::error!(start_max_s = start_max.as_secs(), "gateway did not begin to answer and is killed");
                running.kill();
                missed = MISSED_MAX;
            }
            looked = look(plan, pause) => match looked {
                Ok(()) => {
                    missed = 0;
                    if !answered {
                        answered = true;
                        refuse_left(bequest);
                    }
                }
                Err(_) if !answered => {}
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

async fn look(plan: &Plan, pause: Duration) -> std::io::Result<()> {
    time::sleep(pause).await;
    watchdog::answers(&plan.api_socket()).await
}

/// A gateway takes what was left before it answers anything. One that did not knows nothing of it, as an agent of an
/// earlier version would: the clients learn at once that nobody will answer on these connections.
fn refuse_left(bequest: &Bequest) {
    let left = bequest.take_all().len();
    if left > 0 {
        tracing::warn!(left, "connections that this gateway did not take are closed");
    }
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
