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
    let (content, fault) = {
        let mut shelf = shelf.lock().unwrap();
        shelf.log.push((path.clone(), range.clone()));
        let fault = shelf.faults.get(&path).cloned();
        if matches!(fault, Some(Fault::CutAfter(_) | Fault::Status(_))) {
            shelf.faults.remove(&path);
        }
        (shelf.files.get(&path).cloned(), fault)
    };
    let Some(content) = content else { return respond(404, Body::empty()) };
    let from = range.map_or(0, |range| {
        range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
    });
    match fault {
        Some(Fault::Status(status)) => {
            respond(status, Body::from("{\"error\":{\"message\":\"busy\"}}"))
        }
        Some(Fault::Endless) => {
            let piece = Bytes::from(vec![0; 64 * 1024]);
            respond(
                200,
                Body::from_stream(stream::repeat_with(move || Ok::<_, io::Error>(piece.clone()))),
            )
        }
        Some(Fault::CutAfter(count)) => {
            let length = content.len();
            let first = Ok(Bytes::from(content[..count].to_vec()));
            let cut = Err(io::Error::from(io::ErrorKind::ConnectionReset));
            let mut response = respond(200, Body::from_stream(stream::iter([first, cut])));
            response.headers_mut().insert("content-length", length.into());
            response
        }
        Some(Fault::NoRanges) | None if from == 0 => respond(200, Body::from(content)),
        Some(Fault::NoRanges) => respond(200, Body::from(content)),
        None => {
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            let mut response = respond(206, Body::from(content[from..].to_vec()));
            response.headers_mut().insert("content-range", range.parse().unwrap());
            response
        }
    }
}

fn respond(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
