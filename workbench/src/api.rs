//! The controller's API over HTTPS, trusted by the fleet's certificate authority, with a bearer token.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use protocol::digest::Digest;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use ureq::{
    Agent, SendBody,
    http::{Response, StatusCode},
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::files::{self, FileError};

/// Largest answer of the controller.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// How to reach the controller.
#[derive(Clone, Debug, Args)]
pub struct ControllerArgs {
    /// The controller, https://host:port
    #[arg(long, env = "SOCLE_CONTROLLER")]
    pub controller: String,
    /// The fleet's certificate authority (PEM)
    #[arg(long, env = "SOCLE_CA")]
    pub ca: PathBuf,
    /// File with an API token
    #[arg(long, env = "SOCLE_TOKEN_FILE")]
    pub token_file: PathBuf,
}

/// A connection to the controller.
#[derive(Clone, Debug)]
pub struct Controller {
    agent: Agent,
    base: String,
    token: String,
}

/// Why the controller did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Certificate authority or token.
    #[error("reading the access to the controller")]
    File(#[from] FileError),
    /// A certificate that cannot be read.
    #[error("`{}` holds no certificate in PEM", .path.display())]
    Ca {
        /// Which.
        path: PathBuf,
    },
    /// An address that would send the token in clear text.
    #[error("`{0}` is not an https:// address; the controller's token is sent over TLS only")]
    NotHttps(String),
    /// A token that a header cannot carry.
    #[error("`{}` does not hold one token on one line", .0.display())]
    Token(PathBuf),
    /// No answer.
    #[error(
        "calling {url}; check that the controller runs there and that the certificate authority is its own"
    )]
    Call {
        /// What.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// An answer that is no JSON of the expected shape.
    #[error(
        "reading the answer of {url}; do this command and the controller have the same version?"
    )]
    Answer {
        /// What.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The controller says no.
    #[error("the controller refused ({status}, {code}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Word for programs.
        code: String,
        /// Words for people.
        message: String,
    },
}

impl Controller {
    /// A connection with the certificate authority and token that `args` name.
    pub fn connect(args: &ControllerArgs) -> Result<Self, ApiError> {
        if !args.controller.starts_with("https://") {
            return Err(ApiError::NotHttps(args.controller.clone()));
        }
        let ca = files::read(&args.ca, files::TEXT_BYTES_MAX)?;
        let token = read_token(&args.token_file)?;
        let agent = agent(&ca).ok_or_else(|| ApiError::Ca { path: args.ca.clone() })?;
        Ok(Self { agent, base: args.controller.trim_end_matches('/').to_owned(), token })
    }

    /// `GET /api/v1/<path>`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let url = self.url(path);
        let answer = self.agent.get(&url).header("authorization", self.bearer()).call();
        read(url, answer)
    }

    /// `POST /api/v1/<path>` with a JSON body.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let url = self.url(path);
        let body = serde_json::to_vec(body).unwrap_or_default();
        let answer = self
            .agent
            .post(&url)
            .header("authorization", self.bearer())
            .header("content-type", "application/json")
            .send(&body);
        read(url, answer)
    }

    /// Publishes root metadata as it is.
    pub fn post_root(&self, root: &[u8]) -> Result<Value, ApiError> {
        let url = self.url("root");
        let request = self.agent.post(&url).header("authorization", self.bearer());
        let answer = request.header("content-type", "application/json").send(root);
        read(url, answer)
    }

    /// Whether the controller holds an object.
    pub fn has_object(&self, digest: &Digest) -> Result<bool, ApiError> {
        let url = self.url(&format!("objects/{digest}"));
        let answer = self.agent.head(&url).header("authorization", self.bearer()).call();
        match answer {
            Ok(answer) if answer.status() == StatusCode::NOT_FOUND => Ok(false),
            Ok(answer) if answer.status().is_success() => Ok(true),
            Ok(answer) => Err(refused(answer)),
            Err(source) => Err(ApiError::Call { url, source: Box::new(source) }),
        }
    }

    /// Sends an object; the controller checks its digest while it arrives.
    pub fn put_object(&self, digest: &Digest, content: Box<dyn Read>) -> Result<Value, ApiError> {
        let url = self.url(&format!("objects/{digest}"));
        let request = self.agent.put(&url).header("authorization", self.bearer());
        let answer = request
            .config()
            .timeout_global(None)
            .build()
            .send(SendBody::from_owned_reader(content));
        read(url, answer)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

/// The token in a file, if a header can carry it.
pub fn read_token(path: &Path) -> Result<String, ApiError> {
    let token = files::read_text(path)?.trim().to_owned();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ApiError::Token(path.to_owned()));
    }
    Ok(token)
}

/// An HTTPS client that trusts the certificates in `ca_pem` and nothing else; TLS by rustls on ring.
pub fn agent(ca_pem: &[u8]) -> Option<Agent> {
    let ca = Certificate::from_pem(ca_pem).ok()?;
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&[ca]))
        .build();
    Some(configured(tls))
}

/// A client for the local API on plain loopback HTTP.
pub fn local_agent() -> Agent {
    configured(TlsConfig::default())
}

fn configured(tls: TlsConfig) -> Agent {
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .new_agent()
}

fn read<T: DeserializeOwned>(
    url: String,
    answer: Result<Response<ureq::Body>, ureq::Error>,
) -> Result<T, ApiError> {
    match answer {
        Err(source) => Err(ApiError::Call { url, source: Box::new(source) }),
        Ok(answer) if !answer.status().is_success() => Err(refused(answer)),
        Ok(mut answer) => {
            let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
            let body = body.map_err(|source| ApiError::Answer {
                url: url.clone(),
                source: Box::new(source),
            })?;
            let body = if body.is_empty() { b"null".as_slice() } else { &body };
            serde_json::from_slice(body).map_err(|source| ApiError::Answer {
                url,
                source: Box::new(ureq::Error::Other(Box::new(source))),
            })
        }
    }
}

fn refused(mut answer: Response<ureq::Body>) -> ApiError {
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(64 << 10).read_to_string().unwrap_or_default();
    let value: Value = serde_json::from_str(&body).unwrap_or_default();
    let field = |name: &str| value["error"][name].as_str().map(str::to_owned);
    ApiError::Refused {
        status,
        code: field("code").unwrap_or_else(|| "no-code".into()),
        message: field("message").unwrap_or_else(|| body.chars().take(300).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Access;

    #[test]
    fn a_token_is_neither_sent_in_clear_nor_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        let connect = |controller: &str| {
            let ca = token_file.clone();
            Controller::connect(&ControllerArgs {
                controller: controller.into(),
                ca,
                token_file: token_file.clone(),
            })
        };
        files::write(&token_file, b"one\ntwo\n", Access::Owner).unwrap();
        for address in ["http://localhost:1", "localhost:1", "HTTPS://localhost", ""] {
            assert!(matches!(connect(address), Err(ApiError::NotHttps(_))), "{address}");
        }
        assert!(matches!(connect("https://localhost:1"), Err(ApiError::Token(_))));
        files::write(&token_file, b"one\n", Access::Owner).unwrap();
        assert!(matches!(connect("https://localhost:1"), Err(ApiError::Ca { .. })));
    }
}
