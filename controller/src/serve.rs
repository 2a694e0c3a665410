//! `serve`: puts the parts together, starts them, and stops them in order.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    artifacts::Artifacts,
    assign::Assigner,
    auth::{AdminToken, Limiter},
    causes::chain,
    clock::Clock,
    console,
    disk::{self, DiskError},
    http::{context::Context, listener, router::router},
    init::{self, InitError, LoadError},
    layout::Layout,
    link::{
        client::Client,
        ingest::Ingest,
        relay::{BrokerUrl, Relay, RelayError},
        said::{self, Outgoing, Say},
        seal_keys::{self, SealKeyError},
    },
    metrics::Metrics,
    online::{OnlineError, OnlineRoles},
    publication::PublishError,
    publish::Publisher,
    rollout::drive::Driver,
    stop::{self, Stop, Stopper},
    store::database::{Store, StoreError},
    tls::TlsError,
};

const ARRIVALS: usize = 1024;
const STREAMS: usize = 64;
const ENROLMENTS_PER_MINUTE: u32 = 120;
const FAILURES_PER_MINUTE: u32 = 30;
/// How often it is looked whether snapshot and timestamp are due; they hold for an hour at least.
const REFRESH: Duration = Duration::from_secs(60);
const ROTATION: Duration = Duration::from_secs(600);
const GOODBYE: Duration = Duration::from_secs(10);

/// What `serve` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state folder.
    pub state: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The broker.
    pub broker: BrokerUrl,
    /// Our address as devices and people reach it; none means `https://<first name>:<port>`.
    pub public_url: Option<String>,
    /// How long a timestamp holds.
    pub timestamp_hours: u32,
}

/// A controller that runs. Dropping it stops it less politely than [`Running::stop`].
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its address as devices and people reach it.
    pub url: String,
    connected: watch::Receiver<bool>,
    store: Store,
    stopper: Stopper,
    tasks: JoinSet<()>,
}

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its state.
    #[error("opening the controller's state")]
    State(#[source] LoadError),
    /// Its own certificates are due.
    #[error("issuing the controller's own certificates again")]
    Renew(#[source] InitError),
    /// Its files.
    #[error("preparing the controller's folders")]
    Disk(#[source] DiskError),
    /// Its certificates.
    #[error("setting up TLS")]
    Tls(#[source] TlsError),
    /// Its database.
    #[error("opening the database {}", .path.display())]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// Its keys for snapshot and timestamp.
    #[error("opening the keys for snapshot and timestamp")]
    Online(#[source] OnlineError),
    /// Its sealing key.
    #[error("preparing the sealing key")]
    SealKey(#[source] SealKeyError),
    /// Its address.
    #[error("listening on {address}; is another program using it?")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Its relay to the broker.
    #[error("preparing the connection to the broker")]
    Relay(#[source] RelayError),
}

/// Starts a controller. It listens when this returns; the broker is connected in the background.
pub async fn start(options: &Options, clock: Clock) -> Result<Running, ServeError> {
    let layout = Layout::new(&options.state);
    let (settings, authority) = init::authority(&layout).map_err(ServeError::State)?;
    let signer = Arc::new(init::signing_key(&layout).map_err(ServeError::State)?);
    let admin = AdminToken::new(init::admin_token(&layout).map_err(ServeError::State)?);
    if init::renew(&layout, &settings, &authority, clock.now()).map_err(ServeError::Renew)? {
        tracing::info!("issued the controller's own certificates again");
    }
    disk::folder(&layout.runtime()).map_err(ServeError::Disk)?;
    let artifacts = Artifacts::open(layout.clone()).map_err(ServeError::Disk)?;
    let server = Arc::new(init::server_identity(&layout).server().map_err(ServeError::Tls)?);
    let client = Arc::new(init::broker_identity(&layout).client().map_err(ServeError::Tls)?);
    let store = open_store(&layout.database()).await?;
    seal_keys::rotate(&store, clock.now()).await.map_err(ServeError::SealKey)?;
    let failed = |source| ServeError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let socket = layout.runtime().join("mqtt.sock");
    let relay =
        Relay::listen(&socket, options.broker.clone(), client).map_err(ServeError::Relay)?;
    let host = settings.names.first().map_or("localhost", String::as_str);
    let url = options
        .public_url
        .as_ref()
        .map_or_else(|| format!("https://{host}:{}", address.port()), Clone::clone)
        .trim_end_matches('/')
        .to_owned();

    let (stopper, stop) = stop::pair();
    let (outgoing, said) = said::queue();
    let (arrivals, arrived) = mpsc::channel(ARRIVALS);
    let (connected, connected_seen) = watch::channel(false);
    let newest = store
        .newest_event_id()
        .await
        .map_err(|source| ServeError::Store { path: layout.database(), source })?;
    let (newest_event, newest_seen) = watch::channel(newest);
    let news = Arc::new(Notify::new());
    let metrics = Metrics::default();
    let online =
        Arc::new(OnlineRoles::open(&layout, options.timestamp_hours).map_err(ServeError::Online)?);
    let said_by = (clock.clone(), metrics.clone());
    let publisher = Publisher::open(store.clone(), artifacts.clone(), online, said_by)
        .await
        .map_err(|source| ServeError::Store { path: layout.database(), source })?;
    let fleet = settings.fleet.clone();
    let assigner = Assigner {
        fleet: fleet.clone(),
        store: store.clone(),
        signer: Arc::clone(&signer),
        clock: clock.clone(),
        outgoing: outgoing.clone(),
    };

    let mut tasks = JoinSet::new();
    tasks.spawn(relay.run(stop.clone()));
    let client = Client {
        fleet: fleet.clone(),
        socket,
        store: store.clone(),
        signer: Arc::clone(&signer),
        clock: clock.clone(),
        metrics: metrics.clone(),
        arrivals,
        connected,
    };
    tasks.spawn(client.run(said, stop.clone()));
    let ingest = Ingest {
        fleet,
        store: store.clone(),
        clock: clock.clone(),
        outgoing: outgoing.clone(),
        news: Arc::clone(&news),
        newest_event,
        metrics: metrics.clone(),
    };
    tasks.spawn(ingest.run(arrived, stop.clone()));
    let driver = Driver {
        store: store.clone(),
        assigner: assigner.clone(),
        outgoing: outgoing.clone(),
        news: Arc::clone(&news),
    };
    tasks.spawn(driver.run(stop.clone()));
    tasks.spawn(refresh(publisher.clone(), metrics.clone(), stop.clone()));
    tasks.spawn(rotate(store.clone(), clock.clone(), outgoing.clone(), stop.clone()));
    let context = Arc::new(Context {
        settings,
        store: store.clone(),
        publisher,
        artifacts,
        authority,
        signer,
        clock,
        admin,
        enrolments: Limiter::new(ENROLMENTS_PER_MINUTE),
        failures: Limiter::new(FAILURES_PER_MINUTE),
        assigner,
        outgoing,
        news,
        newest_event: newest_seen,
        connected: connected_seen.clone(),
        streams: Arc::new(Semaphore::new(STREAMS)),
        metrics,
        public_url: url.clone(),
        broker: options.broker.to_string(),
        stop: stop.clone(),
    });
    let console = console::pages::router(Arc::clone(&context));
    tasks.spawn(listener::serve(listener, server, router(context, console), stop));
    Ok(Running { address, url, connected: connected_seen, store, stopper, tasks })
}

async fn open_store(path: &Path) -> Result<Store, ServeError> {
    Store::open(path).await.map_err(|source| ServeError::Store { path: path.to_owned(), source })
}

/// Keeps snapshot and timestamp fresh. What fails is tried again, and shown by the figures until it succeeds.
async fn refresh(publisher: Publisher, metrics: Metrics, mut stop: Stop) {
    loop {
        match publisher.refresh().await {
            Ok(true) => tracing::info!("signed the timestamp again"),
            Ok(false) | Err(PublishError::NoRoot) => {}
            Err(error) => {
                metrics.refresh_failed();
                tracing::error!("the timestamp was not signed again: {}", chain(&error));
            }
        }
        tokio::select! {
            () = stop.wait() => return,
            () = sleep(REFRESH) => {}
        }
    }
}

async fn rotate(store: Store, clock: Clock, outgoing: Outgoing, mut stop: Stop) {
    loop {
        tokio::select! {
            () = stop.wait() => return,
            () = sleep(ROTATION) => {}
        }
        match seal_keys::rotate(&store, clock.now()).await {
            Ok(true) => outgoing.say(Say::Keys).await,
            Ok(false) => {}
            Err(error) => tracing::error!("the sealing key was not replaced: {}", chain(&error)),
        }
    }
}

impl Running {
    /// Returns when the broker is connected and everything that holds was said to it.
    pub fn connected(&self) -> impl Future<Output = ()> + use<> {
        let mut connected = self.connected.clone();
        async move {
            // An error says that the client has stopped, and the controller with it.
            if connected.wait_for(|connected| *connected).await.is_err() {}
        }
    }

    /// Returns when a part has ended by itself, which none should: a panic, a mistake of ours.
    pub async fn broken(&mut self) {
        if let Some(Err(error)) = self.tasks.join_next().await {
            tracing::error!("a part of the controller failed: {error}");
        }
    }

    /// Stops: no new requests, those under way finish, the database is closed.
    pub async fn stop(mut self) {
        self.stopper.stop();
        let parts = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(GOODBYE, parts).await.is_err() {
            tracing::warn!("some parts did not stop within {} s", GOODBYE.as_secs());
        }
        self.tasks.shutdown().await;
        self.store.close().await;
    }
}
