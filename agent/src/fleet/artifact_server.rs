//! HTTPS to the controller and to mirrors: TLS 1.3 on ring, one authority alone, every wait and every size bounded.

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

use crate::fleet::{
    identity::{self, Credentials},
    redirect,
};

/// Slowest document that is still waited for, after [`GRACE`].
const BYTES_PER_SECOND_MIN: u64 = 16 * 1024;
/// Time that any document may take.
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
    /// The object is not the one that an earlier answer was of.
    #[error("the object changed on the server between two requests: `{was}` became `{now}`")]
    Changed {
        /// Tag of the earlier answer.
        was: String,
        /// Tag of this one.
        now: String,
    },
    /// A redirect that is not followed.
    #[error("the server redirects to `{to}`: {why}")]
    Redirect {
        /// Where to.
        to: String,
        /// Why not.
        why: &'static str,
    },
}

/// The artifact server of a fleet, or a mirror of it.
#[derive(Clone, Debug)]
pub struct ArtifactServer {
    agent: Agent,
    base: String,
    /// What a presigned prefix adds to every address, with its question mark.
    query: String,
}

/// Part of an object that is wanted: bytes from `from` up to `end`, which is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// First byte.
    pub from: u64,
    /// The byte after the last.
    pub end: u64,
    /// Tag of an earlier answer: the part is wanted of the same object only.
    pub tag: Option<&'a str>,
}

/// An object on its way: its bytes from `from` on.
#[derive(Debug)]
pub struct Download {
    /// First byte that comes: what was asked for, or 0 if the server sends all of it.
    pub from: u64,
    /// The object's strong entity tag, if the server names one.
    pub tag: Option<String>,
    whole: bool,
    body: Body,
}

impl ArtifactServer {
    /// The server at `base` (`https://host:port/artifacts`), asked with the device's certificate.
    pub fn new(
        base: &str,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, HttpError> {
        Ok(Self::asked_by(agent(&credentials.authority, Some(credentials), patience)?, base))
    }

    /// The server at `base`, asked by `agent`. A query in `base`, such as that of a presigned prefix, goes with every
    /// request.
    pub fn asked_by(agent: Agent, base: &str) -> Self {
        let (base, query) = match base.split_once('?') {
            Some((base, query)) => (base, format!("?{query}")),
            None => (base, String::new()),
        };
        Self { agent, base: base.trim_end_matches('/').to_owned(), query }
    }

    /// Its address, without what may be secret in it.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A metadata file; none if the server has no such file.
    pub fn metadata(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, HttpError> {
        let response = self.get(&format!("metadata/{name}"), &[], Some(bytes_max as u64))?;
        match response.status() {
            StatusCode::OK => bounded(response.into_body(), bytes_max).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(refused(status, response.into_body())),
        }
    }

    /// A whole small object.
    pub fn document(&self, digest: &Digest, bytes_max: usize) -> Result<Vec<u8>, HttpError> {
        let response = self.get(&format!("sha256/{digest}"), &[], Some(bytes_max as u64))?;
        match response.status() {
            StatusCode::OK => bounded(response.into_body(), bytes_max),
            status => Err(refused(status, response.into_body())),
        }
    }

    /// Part of an object of `length` bytes, or all of it if the server cannot give parts or has another object now.
    /// How long it may take is for the reader to watch.
    pub fn object(
        &self,
        digest: &Digest,
        part: Part<'_>,
        length: u64,
    ) -> Result<Download, HttpError> {
        let Part { from, end, tag } = part;
        let mut headers = Vec::new();
        if end < length {
            headers.push(("range", format!("bytes={from}-{}", end.saturating_sub(1))));
        } else if from > 0 {
            headers.push(("range", format!("bytes={from}-")));
        }
        if let (Some(tag), false) = (tag, headers.is_empty()) {
            headers.push(("if-range", tag.to_owned()));
        }
        let response = self.get(&format!("sha256/{digest}"), &headers, None)?;
        let got_tag = Some(text(response.headers(), &header::ETAG))
            .filter(|tag| tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'));
        match response.status() {
            StatusCode::OK => {
                Ok(Download { from: 0, tag: got_tag, whole: true, body: response.into_body() })
            }
            StatusCode::PARTIAL_CONTENT => {
                let got = text(response.headers(), &header::CONTENT_RANGE);
                if got != format!("bytes {from}-{}/{length}", end.saturating_sub(1)) {
                    return Err(HttpError::Range { asked: from, got });
                }
                match (tag, got_tag) {
                    (Some(was), Some(now)) if was != now => {
                        Err(HttpError::Changed { was: was.to_owned(), now })
                    }
                    (_, tag) => {
                        Ok(Download { from, tag, whole: false, body: response.into_body() })
                    }
                }
            }
            status => Err(refused(status, response.into_body())),
        }
    }

    /// Asks for `path` below the base and follows a bounded number of harmless redirects. With `bytes_max` the whole
    /// answer has to come in the time that so many bytes may take.
    fn get(
        &self,
        path: &str,
        headers: &[(&str, String)],
        bytes_max: Option<u64>,
    ) -> Result<Response<Body>, HttpError> {
        let patience =
            bytes_max.map(|bytes| GRACE + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN));
        let mut url = format!("{}/{path}{}", self.base, self.query);
        for _ in 0..=redirect::FOLLOWED_MAX {
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let response = request
                .config()
                .timeout_recv_body(patience)
                .build()
                .call()
                .map_err(|source| HttpError::Exchange(Box::new(source)))?;
            if !redirect::is_one(response.status().as_u16()) {
                return Ok(response);
            }
            let to = long_text(response.headers(), &header::LOCATION);
            url = redirect::target(&url, &to)
                .map_err(|why| HttpError::Redirect { to: to.chars().take(100).collect(), why })?;
        }
        Err(HttpError::Redirect { to: String::new(), why: "that is one redirect too many" })
    }
}

impl Download {
    /// Whether all of the object comes, whatever was asked for.
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// The bytes. The caller counts them: the server's word on the length is not believed.
    pub fn into_reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }
}

/// Whether an address without TLS is asked at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Never.
    Refused,
    /// Yes: the operator said so of a mirror. What comes is held against signed digests all the same.
    Allowed,
}

/// A client that believes servers of `authority` alone, and shows `credentials` if there are some.
pub fn agent(
    authority: &CertificateDer<'static>,
    credentials: Option<&Credentials>,
    patience: Duration,
) -> Result<Agent, HttpError> {
    client(std::slice::from_ref(authority), credentials, patience, Plain::Refused)
}

/// The same for servers of any of `authorities`.
pub fn client(
    authorities: &[CertificateDer<'static>],
    credentials: Option<&Credentials>,
    patience: Duration,
    plain: Plain,
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
        .root_certs(RootCerts::Specific(Arc::new(
            authorities
                .iter()
                .map(|authority| Certificate::from_der(authority).to_owned())
                .collect(),
        )))
        .client_cert(client)
        .build();
    Ok(Agent::config_builder()
        .https_only(plain == Plain::Refused)
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
    long_text(headers, name).chars().take(100).collect()
}

/// The whole of a header; the client bounds all headers together.
fn long_text(headers: &HeaderMap, name: &header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
