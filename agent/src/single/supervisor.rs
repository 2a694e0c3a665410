//! `socle-agent run --single` from start to end.

use std::{io, net::TcpListener, path::PathBuf, time::Duration};

use protocol::id::Slot;
use slots::{disk::RealDisk, layout::StateDir};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use crate::{
    daemon::listeners::{ListenError, bind_tcp, bind_unix},
    serve::bequest::Bequest,
    single::{
        gateway::{self, ApiSockets},
        plan::Plan,
        updater, worker,
    },
};

/// How long a listening address may still be held by the children of a supervisor that was killed.
const BIND_PATIENCE: Duration = Duration::from_secs(3);
const BIND_PAUSE: Duration = Duration::from_millis(50);
/// Longest path of a Unix socket that the kernel takes, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why the supervisor did not start.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A folder.
    #[error("preparing the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The runtime folder's path is too long for sockets.
    #[error("`{}` is longer than the {SOCKET_PATH_BYTES_MAX} bytes a socket's path may have: choose a shorter --runtime", .0.display())]
    PathTooLong(PathBuf),
    /// There is no launcher.
    #[error("there is no `{}`: install the package, or name socle-launch with --launch", .0.display())]
    NoLauncher(PathBuf),
    /// A socket.
    #[error("opening the sockets that are passed on")]
    Listen(#[from] ListenError),
    /// The pair by which connections go from one gateway to the next.
    #[error("making the sockets by which one gateway leaves its connections to the next")]
    Bequest(#[source] io::Error),
    /// Signals.
    #[error("waiting for signals")]
    Signal(#[source] io::Error),
}

/// Runs all processes until a signal ends them.
///
/// Call on a runtime of one thread: the kernel ends a child with the thread that started it.
///
/// # Errors
/// It could not start.
pub async fn run(plan: Plan) -> Result<(), SupervisorError> {
    if !plan.launch.is_file() {
        return Err(SupervisorError::NoLauncher(plan.launch));
    }
    prepare(&plan.state, &plan.runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(SupervisorError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SupervisorError::Signal)?;
    let (stop, stopping) = watch::channel(false);
    let tcp = bind_patiently(&plan).await?;
    let address =
        tcp.local_addr().map_err(|source| ListenError::Tcp { address: plan.listen, source })?;
    let plan = Plan { listen: address, ..plan };
    let bequest = Bequest::new().map_err(SupervisorError::Bequest)?;
    let sockets = ApiSockets { tcp, unix: bind_unix(&plan.api_socket())?, bequest };
    let mut children = JoinSet::new();
    for slot in Slot::BOTH {
        let path = plan.worker_socket(slot);
        let listener = bind_unix(&path)?;
        listener.set_nonblocking(true).map_err(|source| ListenError::Unix { path, source })?;
        children.spawn(worker::run(plan.clone(), slot, listener, stopping.clone()));
    }
    tracing::info!(%address, state = %plan.state.root().display(), "runs all processes under this one (--single)");
    children.spawn(gateway::run(plan.clone(), sockets, stopping.clone()));
    children.spawn(updater::run(plan, stopping));
    tokio::select! {
        _ = terminate.recv() => tracing::info!("told to end by SIGTERM"),
        _ = interrupt.recv() => tracing::info!("told to end by SIGINT"),
    }
    stop.send_replace(true);
    while let Some(ended) = children.join_next().await {
        if let Err(reason) = ended {
            tracing::error!(%reason, "a loop of the supervisor failed");
        }
    }
    Ok(())
}

fn prepare(state: &StateDir, runtime: &PathBuf) -> Result<(), SupervisorError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| SupervisorError::Folder { path, source }
    };
    let root = state.root().to_path_buf();
    std::fs::create_dir_all(&root).map_err(failed(&root))?;
    state.prepare(&RealDisk).map_err(failed(&root))?;
    std::fs::create_dir_all(runtime).map_err(failed(runtime))?;
    let longest = runtime.join("worker-a.sock");
    if longest.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(SupervisorError::PathTooLong(longest));
    }
    Ok(())
}

/// Children of a supervisor that was killed are killed by the kernel, but not before it.
async fn bind_patiently(plan: &Plan) -> Result<TcpListener, ListenError> {
    let until = Instant::now() + BIND_PATIENCE;
    loop {
        match bind_tcp(plan.listen) {
            Err(ListenError::Tcp { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && Instant::now() < until =>
            {
                time::sleep(BIND_PAUSE).await;
            }
            other => return other,
        }
    }
}
