//! Why a call to a worker was not done.

use std::{io, path::PathBuf, time::Duration};

use engine::worker::{failure::Failure, frame::FrameError, spoken::Spoken};

/// Why a call to a worker was not done.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection; nothing was computed.
    #[error("connecting to the worker at `{}`", socket.display())]
    Connect {
        /// Where it should listen.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection ended before the response; the worker may have died of the request.
    #[error("the worker ended before it answered")]
    Lost,
    /// No response in time.
    #[error("the worker did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// As many calls as allowed are under way.
    #[error("{0} requests are under way already; try again shortly")]
    Busy(usize),
    /// The worker answered that it will not or cannot.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// A request or a response that is no frame.
    #[error("speaking with the worker")]
    Frame(#[from] FrameError),
    /// A response of another kind than asked for.
    #[error(
        "the worker answered `{what}` with something else: gateway and worker are of different versions"
    )]
    Mismatch {
        /// What was asked.
        what: &'static str,
    },
    /// A response that cannot be read.
    #[error("reading the worker's answer, which a worker of another version may have written")]
    Unreadable(#[source] FrameError),
    /// The worker speaks no version that this gateway speaks, or an older one that has no such call.
    #[error(
        "the worker speaks protocol {theirs}, this gateway {}, and what is asked is not in what both speak",
        Spoken::OURS
    )]
    Version {
        /// The worker's.
        theirs: Spoken,
    },
}
