//! HTTPS to the controller: TLS 1.3 on ring, the fleet's authority alone, every wait and every size bounded.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use data_encoding::BASE64;
use protocol::digest::Digest;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, header},
    tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig},
};

use crate::fleet::identity::{self, Credentials};

/// Slowest download that is still waited for, after [`GRACE`]. A slower one is given up and resumed later.
const BYTES_PER_SECOND_MIN: u64 = 16 * 1024;
/// Time that any download may take.
const GRACE: Duration = Duration::from_secs(60);
/// Largest error page that is read.
const ERROR_BYTES_MAX: u64 = 16 * 1024;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection, no answer, or TLS refused the server.
    #[error("no usable answer from the server")]
    Exchange(#[source] Box<ureq::Error>),
    /// An answer that is not what was asked for.
    #[error("the server answered with status {status}: {message}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// More than allowed.
    #[error("the server sent more than the {0} bytes allowed")]
    TooLarge(usize),
    /// The connection broke in the middle.
    #[error("the answer broke off")]
    Read(#[source] io::Error),
    /// A part of the file that was not asked for.
    #[error("asked for bytes from {asked} on, the server sent `{got}`")]
    Range {
        /// First byte asked for.
        asked: u64,
        /// What the answer says.
        got: String,
    },
}

/// The artifact server of a fleet.
#[derive(Clone, Debug)]
pub struct ArtifactServer {
    agent: Agent,
    base: String,
}

/// An object on its way: its bytes from `from` on.
#[derive(Debug)]
pub struct Download {
    /// First byte that comes: what was asked for, or 0 if the server sends all of it.
    pub from: u64,
    body: Body,
}

impl ArtifactServer {
    /// The server at `base` (`https://host:port/artifacts`), asked with the device's certificate.
    pub fn new(
        base: &str,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, HttpError> {
        let agent = agent(&credentials.authority, Some(credentials), patience)?;
        Ok(Self { agent, base: base.trim_end_matches('/').to_owned() })
    }

    /// A metadata file; none if the server has no such file.
    pub fn metadata(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, HttpError> {
        let response =
            self.get(&format!("{}/metadata/{name}", self.base), None, bytes_max as u64)?;
        match response.status() {
            StatusCode::OK => bounded(response.into_body(), bytes_max).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(refused(status, response.into_body())),
        }
    }

    /// A whole small object.
    pub fn document(&self, digest: &Digest, bytes_max: usize) -> Result<Vec<u8>, HttpError> {
        let response = self.get(&self.object_url(digest), None, bytes_max as u64)?;
        match response.status() {
            StatusCode::OK => bounded(response.into_body(), bytes_max),
            status => Err(refused(status, response.into_body())),
        }
    }

    /// An object of `length` bytes, from byte `from` on if the server can do that.
    pub fn object(&self, digest: &Digest, from: u64, length: u64) -> Result<Download, HttpError> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let response = self.get(&self.object_url(digest), range, length)?;
        match response.status() {
            StatusCode::OK => Ok(Download { from: 0, body: response.into_body() }),
            StatusCode::PARTIAL_CONTENT => {
                let got = text(response.headers(), &header::CONTENT_RANGE);
                if got == format!("bytes {from}-{}/{length}", length.saturating_sub(1)) {
                    Ok(Download { from, body: response.into_body() })
                } else {
                    Err(HttpError::Range { asked: from, got })
                }
            }
            status => Err(refused(status, response.into_body())),
        }
    }

    fn object_url(&self, digest: &Digest) -> String {
        format!("{}/sha256/{digest}", self.base)
    }

    fn get(
        &self,
        url: &str,
        range: Option<String>,
        length: u64,
    ) -> Result<Response<Body>, HttpError> {
        let patience = GRACE + Duration::from_secs(length / BYTES_PER_SECOND_MIN);
        let mut request = self.agent.get(url).header("accept-encoding", "identity");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        request
            .config()
            .timeout_recv_body(Some(patience))
            .build()
            .call()
            .map_err(|source| HttpError::Exchange(Box::new(source)))
    }
}

impl Download {
    /// The bytes. The caller counts them: the server's word on the length is not believed.
    pub fn into_reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }
}

/// A client that believes servers of `authority` alone, and shows `credentials` if there are some.
pub fn agent(
    authority: &CertificateDer<'static>,
    credentials: Option<&Credentials>,
    patience: Duration,
) -> Result<Agent, HttpError> {
    let client = match credentials {
        Some(credentials) => {
            let chain = [Certificate::from_der(&credentials.certificate).to_owned()];
            Some(ClientCert::new_with_certs(&chain, private_key(credentials)?))
        }
        None => None,
    };
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(identity::provider())
        .root_certs(RootCerts::Specific(Arc::new(vec![
            Certificate::from_der(authority).to_owned(),
        ])))
        .client_cert(client)
        .build();
    Ok(Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("socle-agent/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .timeout_resolve(Some(patience))
        .timeout_connect(Some(patience))
        .timeout_send_request(Some(patience))
        .timeout_send_body(Some(patience))
        .timeout_recv_response(Some(patience))
        .timeout_per_read(Some(patience))
        .timeout_recv_body(Some(GRACE))
        .build()
        .new_agent())
}

/// The key in the only form that the client takes from outside: PEM.
fn private_key(credentials: &Credentials) -> Result<PrivateKey<'static>, HttpError> {
    let base64 = BASE64.encode(credentials.key.secret_pkcs8_der());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
    PrivateKey::from_pem(pem.as_bytes()).map_err(|source| HttpError::Exchange(Box::new(source)))
}

/// Posts JSON and reads the whole answer, whatever its status.
pub fn post_json(
    agent: &Agent,
    url: &str,
    body: &[u8],
    bytes_max: usize,
) -> Result<(u16, Vec<u8>), HttpError> {
    let response = agent
        .post(url)
        .header("content-type", "application/json")
        .header("accept-encoding", "identity")
        .send(body)
        .map_err(|source| HttpError::Exchange(Box::new(source)))?;
    let status = response.status().as_u16();
    Ok((status, bounded(response.into_body(), bytes_max)?))
}

/// The message in an error answer `{"error":{"message":…}}`, else its beginning.
pub fn message_of(answer: &[u8]) -> String {
    let parsed = serde_json::from_slice::<Value>(answer).ok();
    let message = parsed.as_ref().and_then(|value| value.pointer("/error/message")?.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(answer).into_owned(), str::to_owned);
    let line: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    if line.is_empty() { "it gave no reason".to_owned() } else { line }
}

fn refused(status: StatusCode, body: Body) -> HttpError {
    let mut answer = Vec::new();
    let read = body.into_with_config().limit(ERROR_BYTES_MAX).reader().read_to_end(&mut answer);
    let message = match read {
        Ok(_) => message_of(&answer),
        Err(reason) => format!("its reason could not be read: {reason}"),
    };
    HttpError::Status { status: status.as_u16(), message }
}

fn bounded(body: Body, bytes_max: usize) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    let reader = body.into_with_config().limit(u64::MAX).reader();
    reader.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(HttpError::Read)?;
    if bytes.len() > bytes_max { Err(HttpError::TooLarge(bytes_max)) } else { Ok(bytes) }
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().chars().take(100).collect()
}
