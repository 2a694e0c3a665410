//! A real HTTPS server that can be told to misbehave.

use std::{
    collections::BTreeMap,
    io,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, StatusCode, Uri},
};
use futures_util::stream;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use protocol::enrol::EnrolRequest;
use rustls::ServerConfig;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// How an object misbehaves.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The connection breaks after so many bytes, once.
    CutAfter(usize),
    /// It never ends.
    Endless,
    /// The server answers with this status, once.
    Status(u16),
    /// Ranges are not supported: everything comes.
    NoRanges,
    /// It is somewhere else.
    Redirect(String),
    /// It comes in drops: so many bytes, then a pause of so many milliseconds.
    Drops(usize, u64),
    /// From the second answer on it is another object, with another tag.
    Changes(u32),
}

pub(crate) type Enrol = Arc<dyn Fn(EnrolRequest) -> (u16, Vec<u8>) + Send + Sync>;

/// What the server holds, and what it was asked for.
#[derive(Default)]
pub(crate) struct Shelf {
    /// By path below `/artifacts/`.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) faults: BTreeMap<String, Fault>,
    pub(crate) enrol: Option<Enrol>,
    /// Path and range of each request.
    pub(crate) log: Vec<(String, Option<String>)>,
    /// The condition of each request that has one.
    pub(crate) conditions: Vec<String>,
    /// Tags that are not the digest in quotes.
    pub(crate) tags: BTreeMap<String, String>,
}

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) shelf: Arc<Mutex<Shelf>>,
    runtime: Option<Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dropped where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Server {
    pub(crate) fn start(tls: Arc<ServerConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shelf));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = TlsAcceptor::from(tls);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = TowerToHyperService::new(router);
                    // A client that hangs up is none of our business.
                    drop(
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                    );
                });
            }
        });
        Self { url, shelf, runtime: Some(runtime) }
    }

    pub(crate) fn artifacts(&self) -> String {
        format!("{}/artifacts", self.url)
    }

    pub(crate) fn put(&self, path: &str, content: &[u8]) {
        self.shelf.lock().unwrap().files.insert(path.into(), content.to_vec());
    }

    pub(crate) fn fault(&self, path: &str, fault: Fault) {
        self.shelf.lock().unwrap().faults.insert(path.into(), fault);
    }

    /// What was asked for since the last call, without the metadata.
    pub(crate) fn asked(&self) -> Vec<(String, Option<String>)> {
        let mut log = std::mem::take(&mut self.shelf.lock().unwrap().log);
        log.retain(|(path, _)| !path.starts_with("metadata/"));
        log
    }
}

async fn answer(
    State(shelf): State<Arc<Mutex<Shelf>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if method == Method::POST {
        let enrol = shelf.lock().unwrap().enrol.clone();
        shelf.lock().unwrap().log.push((uri.path().to_owned(), None));
        let (status, answer) = enrol.unwrap()(serde_json::from_slice(&body).unwrap());
        return respond(status, Body::from(answer));
    }
    let path = uri.path().trim_start_matches("/artifacts/").to_owned();
    let range = headers.get("range").map(|range| range.to_str().unwrap().to_owned());
    let condition = headers.get("if-range").map(|tag| tag.to_str().unwrap().to_owned());
    let (content, fault, tag) = {
        let mut shelf = shelf.lock().unwrap();
        shelf.log.push((path.clone(), range.clone()));
        shelf.conditions.extend(condition.clone());
        let fault = shelf.faults.get(&path).cloned();
        match &fault {
            Some(Fault::CutAfter(_) | Fault::Status(_)) => drop(shelf.faults.remove(&path)),
            Some(Fault::Changes(answers)) => {
                let next = Fault::Changes(answers + 1);
                shelf.faults.insert(path.clone(), next);
            }
            _ => {}
        }
        let digest = path.rsplit('/').next().unwrap_or_default();
        let tag = shelf.tags.get(&path).cloned().unwrap_or_else(|| format!("\"{digest}\""));
        (shelf.files.get(&path).cloned(), fault, tag)
    };
    let tag = match fault {
        Some(Fault::Changes(answers)) => format!("\"{answers}\""),
        _ => tag,
    };
    if let Some(Fault::Redirect(to)) = fault {
        let mut response = respond(302, Body::empty());
        response.headers_mut().insert("location", to.parse().unwrap());
        return response;
    }
    let Some(content) = content else { return respond(404, Body::empty()) };
    let length = content.len();
    let (from, end) = range.as_deref().map_or((0, length), |range| {
        let (from, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        (from.parse().unwrap(), last.parse().map_or(length, |last: usize| last + 1))
    });
    let whole = range.is_none()
        || matches!(fault, Some(Fault::NoRanges))
        || condition.is_some_and(|condition| condition != tag);
    let (from, end) = if whole { (0, length) } else { (from, end) };
    let mut response = match fault {
        Some(Fault::Status(status)) => {
            return respond(status, Body::from("{\"error\":{\"message\":\"busy\"}}"));
        }
        Some(Fault::Endless) => {
            let piece = Bytes::from(vec![0; 64 * 1024]);
            return respond(
                200,
                Body::from_stream(stream::repeat_with(move || Ok::<_, io::Error>(piece.clone()))),
            );
        }
        Some(Fault::CutAfter(count)) => {
            let first = Ok(Bytes::from(content[from..end.min(from + count)].to_vec()));
            let cut = Err(io::Error::from(io::ErrorKind::ConnectionReset));
            let mut response = respond(200, Body::from_stream(stream::iter([first, cut])));
            response.headers_mut().insert("content-length", (end - from).into());
            response
        }
        Some(Fault::Drops(bytes, pause_ms)) => {
            let drops: Vec<Bytes> =
                content[from..end].chunks(bytes).map(Bytes::copy_from_slice).collect();
            let drops = stream::unfold(drops.into_iter(), move |mut drops| async move {
                tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
                drops.next().map(|drop| (Ok::<_, io::Error>(drop), drops))
            });
            respond(200, Body::from_stream(drops))
        }
        _ => respond(200, Body::from(content[from..end].to_vec())),
    };
    response.headers_mut().insert("etag", tag.parse().unwrap());
    if !whole {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{length}", end.saturating_sub(1));
        response.headers_mut().insert("content-range", range.parse().unwrap());
    }
    response
}

fn respond(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
