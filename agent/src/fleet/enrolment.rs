//! `socle-agent enrol`: how this device joins a fleet, in one exchange.
//!
//! Two things are pinned by the operator's token and can be chosen by nobody on the way: the certificate authority
//! and the release root. The device makes its own key; the private half never leaves it.

use std::{
    collections::BTreeMap,
    io,
    net::{TcpStream, ToSocketAddrs},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{
    blob::Blob,
    command::{Reader, Refusal},
    digest::Digest,
    enrol::{Authority, EnrolRequest, EnrolToken, Enrolled, TokenError},
    id::DeviceId,
    key::{KeyError, SigningKey},
    time::UnixMs,
    tuf::{chain::pinned_root, refusal::VerifyError},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use ring::rand::SystemRandom;
use rustls::{ClientConfig, ClientConnection, version};
use rustls_pki_types::{
    CertificateDer, InvalidDnsNameError, PrivatePkcs8KeyDer, ServerName, pem, pem::PemObject,
};
use slots::{
    disk::{self, Disk, RealDisk},
    layout::StateDir,
    trust::{self, TrustError},
};

use crate::fleet::{
    artifact_server::{self, HttpError},
    authority_pin::AuthorityPin,
    identity::{self, Credentials, Endpoint, IdentityError},
    state_file,
};

/// Longest wait for a connection, and for each answer on it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest answer: a root of 1 MiB in base64, and the rest.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest host name sent, as the format says.
const NAME_CHARS_MAX: usize = 64;

/// What the operator asked for.
#[derive(Debug)]
pub struct EnrolOptions {
    /// The device's state folder.
    pub state: StateDir,
    /// The controller: `https://host:port`.
    pub controller: String,
    /// The token's text.
    pub token: String,
    /// Name for people.
    pub name: String,
    /// Labels for groups.
    pub labels: BTreeMap<String, String>,
}

/// Why the device did not join.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It has an identity.
    #[error("this device is enrolled already: {} exists; to enrol it anew, move the folder away first (its old identity stays known to the old controller)", .0.display())]
    Enrolled(PathBuf),
    /// Not a token.
    #[error("reading the token")]
    Token(#[from] TokenError),
    /// Too late.
    #[error("the token expired at {}; ask for a new one with `socle device enrol`", .0.to_rfc3339())]
    Expired(UnixMs),
    /// Not an address of a controller, or the answer's broker is not one.
    #[error("reading an address")]
    Address(#[source] IdentityError),
    /// Not a name that a certificate could carry.
    #[error("`{host}` is not a host name")]
    Host {
        /// What was given.
        host: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// No connection, or the wrong server.
    #[error("connecting to {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be prepared.
    #[error("preparing TLS")]
    Tls(#[from] rustls::Error),
    /// No answer.
    #[error("asking {url} to enrol this device")]
    Http {
        /// Where.
        url: String,
        /// Why.
        source: HttpError,
    },
    /// The controller said no.
    #[error("the controller refused to enrol this device (status {status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The answer is not one.
    #[error("reading the controller's answer")]
    Answer(#[source] serde_json::Error),
    /// The answer contradicts the token or the request.
    #[error("the controller's answer is refused: {0}")]
    Mismatch(&'static str),
    /// A certificate in the answer is not one.
    #[error("reading the {which} in the controller's answer")]
    Certificate {
        /// Which.
        which: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// The certificate is not for our key.
    #[error("checking the certificate that the controller issued")]
    Issued(#[source] IdentityError),
    /// The root is not signed as it should be.
    #[error("checking the release root")]
    Root(#[from] VerifyError),
    /// What to trust cannot be kept.
    #[error("keeping what this device trusts")]
    Trust(#[from] TrustError),
    /// The sealing key is not signed by the controller's key.
    #[error("checking the controller's sealing key")]
    SealKey(#[source] Refusal),
    /// No key can be made or read.
    #[error("making the device key")]
    Key(#[from] KeyError),
    /// The request cannot be made.
    #[error("making the certificate request")]
    Csr(#[from] rcgen::Error),
    /// The disk refused.
    #[error("keeping the identity in {}", path.display())]
    Disk {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Joins the fleet and keeps the identity. Nothing is sent before the token is known to be in time, and nothing is
/// kept before everything in the answer was checked, but for the key: a device that tries again is the same device.
pub fn enrol(options: &EnrolOptions, now: UnixMs) -> Result<Enrolled, EnrolError> {
    let folder = options.state.identity();
    let marker = folder.join(identity::FLEET);
    if read(&marker)?.is_some() {
        return Err(EnrolError::Enrolled(folder));
    }
    let token: EnrolToken = options.token.parse()?;
    if now >= token.expires_at {
        return Err(EnrolError::Expired(token.expires_at));
    }
    let endpoint = Endpoint::parse(&options.controller, "https://").map_err(EnrolError::Address)?;
    prepare(&options.state)?;
    let key = device_key(&folder.join(identity::KEY))?;
    let authority = first_contact(&endpoint, token.ca)?;
    let enrolled = ask(options, &token, &key, &authority)?;
    check(&enrolled, &token, (&key, authority), now)?;
    keep(&options.state, &enrolled)?;
    Ok(enrolled)
}

/// The key in `path`, or a new one, durably.
fn device_key(path: &Path) -> Result<Vec<u8>, EnrolError> {
    if let Some(key) = read(path)? {
        SigningKey::from_pkcs8(&key)?;
        return Ok(key);
    }
    let key = SigningKey::generate_pkcs8(&SystemRandom::new())?;
    replace(path, &key)?;
    RealDisk
        .set_mode(path, 0o600)
        .map_err(|source| EnrolError::Disk { path: path.to_owned(), source })?;
    Ok(key)
}

/// Opens one TLS connection that carries no data, and learns the pinned authority from it.
fn first_contact(endpoint: &Endpoint, pin: Digest) -> Result<CertificateDer<'static>, EnrolError> {
    let Endpoint { host, port } = endpoint;
    let address = format!("{host}:{port}");
    let connect = |source| EnrolError::Connect { address: address.clone(), source };
    let verifier = Arc::new(AuthorityPin::new(pin, identity::provider()));
    let config = ClientConfig::builder_with_provider(identity::provider())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_no_client_auth();
    let name = ServerName::try_from(host.clone())
        .map_err(|source| EnrolError::Host { host: host.clone(), source })?;
    let mut stream = connect_tcp((host, *port)).map_err(connect)?;
    let mut session = ClientConnection::new(Arc::new(config), name)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(connect)?;
    }
    session.send_close_notify();
    // The answer to the farewell is of no interest: the server was verified by now.
    session.write_tls(&mut stream).map_err(connect)?;
    verifier
        .authority()
        .ok_or(EnrolError::Mismatch("the server was not verified by the pinned authority"))
}

fn connect_tcp(target: (&str, u16)) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in target.to_socket_addrs()?.take(8) {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(
    options: &EnrolOptions,
    token: &EnrolToken,
    key: &[u8],
    authority: &CertificateDer<'static>,
) -> Result<Enrolled, EnrolError> {
    let document = PrivatePkcs8KeyDer::from(key.to_vec());
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&document, &PKCS_ED25519)?;
    let csr_pem = CertificateParams::new(Vec::new())?.serialize_request(&pair)?.pem()?;
    let request = EnrolRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        csr_pem,
        name: options.name.chars().take(NAME_CHARS_MAX).collect(),
        labels: options.labels.clone(),
    };
    let url = format!("{}/enrol/v1", options.controller.trim_end_matches('/'));
    let body = serde_json::to_vec(&request).map_err(EnrolError::Answer)?;
    let http = |source| EnrolError::Http { url: url.clone(), source };
    let agent = artifact_server::agent(authority, None, PATIENCE).map_err(http)?;
    let (status, answer) =
        artifact_server::post_json(&agent, &url, &body, ANSWER_BYTES_MAX).map_err(http)?;
    if status != 200 && status != 201 {
        return Err(EnrolError::Refused { status, message: artifact_server::message_of(&answer) });
    }
    serde_json::from_slice(&answer).map_err(EnrolError::Answer)
}

/// Holds the answer against the token and our key.
fn check(
    enrolled: &Enrolled,
    token: &EnrolToken,
    (key, authority): (&[u8], CertificateDer<'static>),
    now: UnixMs,
) -> Result<(), EnrolError> {
    let certificate = |pem: &str, which| {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|source| EnrolError::Certificate { which, source })
    };
    let device = DeviceId::of(&SigningKey::from_pkcs8(key)?.public());
    if enrolled.fleet != token.fleet {
        return Err(EnrolError::Mismatch("it names another fleet than the token"));
    }
    if enrolled.environment != token.environment {
        return Err(EnrolError::Mismatch("it names another environment than the token"));
    }
    if enrolled.device != device {
        return Err(EnrolError::Mismatch("it names another device than this one"));
    }
    if enrolled.controller_keys.is_empty() {
        return Err(EnrolError::Mismatch("it names no key of the controller"));
    }
    if certificate(&enrolled.ca_pem, "certificate authority")? != authority {
        return Err(EnrolError::Mismatch("its certificate authority is not the pinned one"));
    }
    if Digest::of(enrolled.root.as_slice()) != token.root {
        return Err(EnrolError::Mismatch(
            "its release root is not the one that the token pins; the root may have been changed after the token was made: ask for a new token",
        ));
    }
    pinned_root(enrolled.root.as_slice())?;
    let credentials = Credentials {
        certificate: certificate(&enrolled.certificate_pem, "device certificate")?,
        authority,
        key: PrivatePkcs8KeyDer::from(key.to_vec()),
    };
    credentials.check().map_err(EnrolError::Issued)?;
    Endpoint::parse(&enrolled.broker, "mqtts://").map_err(EnrolError::Address)?;
    Endpoint::parse(&enrolled.artifacts, "https://").map_err(EnrolError::Address)?;
    Reader { fleet: &enrolled.fleet, device, controller_keys: &enrolled.controller_keys }
        .seal_key(enrolled.seal_key.as_slice(), 0, now)
        .map_err(EnrolError::SealKey)?;
    Ok(())
}

/// Writes the identity, and last the file that says it is complete.
fn keep(state: &StateDir, enrolled: &Enrolled) -> Result<(), EnrolError> {
    let folder = state.identity();
    replace(&folder.join(identity::CERTIFICATE), enrolled.certificate_pem.as_bytes())?;
    replace(&folder.join(identity::AUTHORITY), enrolled.ca_pem.as_bytes())?;
    trust::enrol(&RealDisk, state, enrolled.root.as_slice(), &Authority::from(enrolled))?;
    // Said by the controller of an earlier identity, if any; this one says its own.
    disk::remove(&RealDisk, &state.halt())
        .map_err(|source| EnrolError::Disk { path: state.halt(), source })?;
    let without_root = Enrolled { root: Blob::default(), ..enrolled.clone() };
    let text = serde_json::to_vec_pretty(&without_root).map_err(EnrolError::Answer)?;
    replace(&folder.join(identity::FLEET), &text)
}

/// Makes the state folder and what lies in it, the identity closed to others.
fn prepare(state: &StateDir) -> Result<(), EnrolError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| EnrolError::Disk { path, source }
    };
    let identity = state.identity();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&identity)
        .map_err(failed(&identity))?;
    RealDisk.set_mode(&identity, 0o700).map_err(failed(&identity))?;
    state.prepare(&RealDisk).map_err(failed(state.root()))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, EnrolError> {
    state_file::bytes(&RealDisk, path, ANSWER_BYTES_MAX)
        .map_err(|source| EnrolError::Disk { path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), EnrolError> {
    disk::replace(&RealDisk, path, bytes)
        .map_err(|source| EnrolError::Disk { path: path.to_owned(), source })
}
