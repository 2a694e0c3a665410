//! Sends spans to a collector of traces (OTLP over HTTP, as JSON), on a thread of its own behind a bounded queue: what
//! finds no room is dropped and counted, and no request ever waits for it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::observe::span::{Resource, Span, export};

/// Spans that wait.
const WAITING_MAX: usize = 2048;
/// Spans sent at once.
const BATCH_MAX: usize = 512;
/// Longest time a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// Longest time for one exchange.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the address of a collector goes on with.
const PATH: &str = "/v1/traces";
/// Most of the collector's answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Where traces go, as the operator says.
#[derive(Clone, Default)]
pub struct Wanted {
    /// The collector: `http://host:4318`.
    pub endpoint: String,
    /// Who may speak for it over TLS: a file of certificates (PEM).
    pub authority: Option<PathBuf>,
    /// Headers of each export: `key=value,key=value`. May be secret.
    pub headers: String,
    /// Which part of the requests is traced that belong to no trace yet: 0 to 1.
    pub ratio: f64,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// Not an address.
    #[error("the collector `{0}` must be http://host:port or https://host:port")]
    Endpoint(String),
    /// TLS without anybody to trust.
    #[error(
        "the collector `{0}` speaks TLS: name the file of its authority (OTEL_EXPORTER_OTLP_CERTIFICATE)"
    )]
    NoAuthority(String),
    /// The authority's file.
    #[error("reading the collector's authority from `{}`", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// A header that is none.
    #[error("a header for the collector is not `key=value`")]
    Header,
    /// A part of more than all.
    #[error("the part of requests that is traced must be 0 to 1, not {0}")]
    Ratio(f64),
    /// The thread.
    #[error("starting the thread that sends traces")]
    Thread(#[source] io::Error),
}

/// Where spans are handed in.
#[derive(Clone, Debug)]
pub struct Collector {
    queue: SyncSender<Span>,
    ratio: f64,
    counts: Counts,
}

/// What became of spans.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Taken by the collector.
    pub sent: Counter,
    /// Dropped: the queue was full, or the collector did not take them.
    pub dropped: Counter,
}

impl Collector {
    /// Starts sending to the collector that is `wanted`.
    ///
    /// # Errors
    /// See [`CollectorError`].
    pub fn start(
        wanted: &Wanted,
        resource: Resource,
        counts: Counts,
    ) -> Result<Self, CollectorError> {
        if !(0.0..=1.0).contains(&wanted.ratio) {
            return Err(CollectorError::Ratio(wanted.ratio));
        }
        let exporter = Exporter {
            agent: agent(wanted)?,
            url: url(&wanted.endpoint),
            headers: headers(&wanted.headers)?,
            resource,
            counts: counts.clone(),
        };
        let (queue, spans) = sync_channel(WAITING_MAX);
        thread::Builder::new()
            .name("traces".into())
            .spawn(move || exporter.run(&spans))
            .map_err(CollectorError::Thread)?;
        Ok(Self { queue, ratio: wanted.ratio, counts })
    }

    /// Whether a request is traced whose caller says `sampled`, or nothing.
    pub fn keeps(&self, sampled: Option<bool>) -> bool {
        sampled.unwrap_or_else(|| fastrand::f64() < self.ratio)
    }

    /// Hands a span in. Never waits.
    pub fn offer(&self, span: Span) {
        match self.queue.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.dropped.inc();
            }
        }
    }
}

struct Exporter {
    agent: Agent,
    url: String,
    headers: Vec<(String, String)>,
    resource: Resource,
    counts: Counts,
}

impl Exporter {
    /// Until nobody can hand a span in any more.
    fn run(&self, spans: &Receiver<Span>) {
        let mut well = true;
        while let Ok(first) = spans.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX {
                match spans.recv_timeout(GATHER) {
                    Ok(span) => batch.push(span),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            let count = batch.len() as u64;
            match self.send(&batch) {
                Ok(()) => {
                    self.counts.sent.inc_by(count);
                    well = true;
                }
                Err(reason) => {
                    self.counts.dropped.inc_by(count);
                    if well {
                        tracing::warn!(%reason, collector = self.url, "traces are dropped until the collector takes them");
                    }
                    well = false;
                }
            }
        }
    }

    fn send(&self, batch: &[Span]) -> Result<(), String> {
        let mut request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header("accept-encoding", "identity");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = export(&self.resource, batch).to_string();
        let mut response = request.send(body.as_bytes()).map_err(|reason| reason.to_string())?;
        let status = response.status();
        // Read so that the connection can be used again.
        let answer = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        if status.is_success() {
            answer.map(drop).map_err(|reason| reason.to_string())
        } else {
            Err(format!("it answered {status}"))
        }
    }
}

fn url(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with(PATH) { endpoint.to_owned() } else { format!("{endpoint}{PATH}") }
}

fn headers(text: &str) -> Result<Vec<(String, String)>, CollectorError> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            }
            Some(_) | None => Err(CollectorError::Header),
        })
        .collect()
}

fn agent(wanted: &Wanted) -> Result<Agent, CollectorError> {
    let endpoint = &wanted.endpoint;
    let authorities = match (endpoint.split_once("://"), &wanted.authority) {
        (Some(("http", host)), _) if !host.is_empty() => Vec::new(),
        (Some(("https", host)), Some(path)) if !host.is_empty() => certificates(path)?,
        (Some(("https", _)), None) => {
            return Err(CollectorError::NoAuthority(endpoint.clone()));
        }
        (Some(_) | None, _) => return Err(CollectorError::Endpoint(endpoint.clone())),
    };
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(
            authorities.iter().map(|one| Certificate::from_der(one).to_owned()).collect(),
        )))
        .build();
    Ok(Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("socle-agent/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CollectorError> {
    let failed = |source| CollectorError::Authority { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(endpoint: &str) -> Wanted {
        Wanted { endpoint: endpoint.to_owned(), ratio: 1.0, ..Wanted::default() }
    }

    #[test]
    fn what_cannot_be_a_collector_is_refused_by_name() {
        let resource = || Resource { version: "1", slot: "a".into(), release: String::new() };
        let start = |wanted: &Wanted| {
            Collector::start(wanted, resource(), Counts::default()).unwrap_err().to_string()
        };
        assert!(start(&wanted("collector:4318")).contains("collector:4318"));
        assert!(start(&wanted("ftp://collector")).contains("must be http"));
        assert!(start(&wanted("https://collector")).contains("OTEL_EXPORTER_OTLP_CERTIFICATE"));
        let ratio = Wanted { ratio: 2.0, ..wanted("http://c") };
        assert!(start(&ratio).contains("0 to 1"));
        let headers = Wanted { headers: "a=b,c".into(), ..wanted("http://c") };
        assert!(start(&headers).contains("key=value"));
    }

    #[test]
    fn the_path_is_added_once() {
        assert_eq!(url("http://c:4318/"), "http://c:4318/v1/traces");
        assert_eq!(url("http://c:4318/v1/traces"), "http://c:4318/v1/traces");
    }
}
