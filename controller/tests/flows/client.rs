//! An HTTPS client: one connection a request, TLS 1.3, the fleet's authority as the only root.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use protocol::digest::Digest;
use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use tokio::{net::TcpStream, spawn};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Who asks, and of whom.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    roots: RootCertStore,
    headers: Vec<(header::HeaderName, String)>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON answer")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is a refusal of that kind, with words for a person.
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().len() > 10, "{error}");
    }
}

fn config(
    roots: &RootCertStore,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots.clone());
    Arc::new(match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    })
}

impl Client {
    pub(crate) fn new(address: SocketAddr, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        Self { address, tls: config(&roots, None), roots, headers: Vec::new() }
    }

    pub(crate) fn with_bearer(self, token: &str) -> Self {
        self.with(header::AUTHORIZATION, &format!("Bearer {token}"))
    }

    pub(crate) fn with(mut self, name: header::HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn with_identity(mut self, chain_pem: &str, key_der: &[u8]) -> Self {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain_pem.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::try_from(key_der.to_vec()).unwrap();
        self.tls = config(&self.roots, Some((chain, key)));
        self
    }

    pub(crate) async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await
    }

    /// Sends a request and returns once the answer begins.
    pub(crate) async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<axum::http::Response<Incoming>, Box<dyn std::error::Error>> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        spawn(connection);
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(sender.send_request(request.body(body)?).await?)
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let response = self.begin(method, path, body.into()).await.expect("an answer");
        let status: StatusCode = response.status();
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
        Answer { status: status.as_u16(), headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, json: &Value) -> Answer {
        let client = self.clone().with(header::CONTENT_TYPE, "application/json");
        client.send(Method::POST, path, json.to_string()).await
    }

    pub(crate) async fn put_object(&self, content: &[u8]) -> Answer {
        let path = format!("/api/v1/objects/{}", Digest::of(content));
        self.send(Method::PUT, &path, content.to_vec()).await
    }
}
