//! How a device joins: a single-use token for a certificate.

use data_encoding::HEXLOWER;
use protocol::{
    blob::Blob,
    digest::Digest,
    enrol::{EnrolRequest, EnrolToken, Enrolled},
    id::{Environment, FleetId},
    key::PublicKey,
    time::UnixMs,
};

use crate::{
    pki::{Authority, DeviceCertificate, PkiError},
    secret::{self, NoRandom},
    store::{
        database::{Store, StoreError},
        devices::Joining,
        tokens::Token,
    },
};

/// How long a token holds unless said otherwise.
pub const TOKEN_MS: u64 = 24 * 3_600_000;
const NAME_MAX: usize = 64;
const LABELS_MAX: usize = 32;

/// Why a device did not join.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No such token, or not its secret.
    #[error("this enrolment token is not known here; make a new one with `socle device enrol`")]
    Unknown,
    /// Used before.
    #[error(
        "this enrolment token was used already, each enrols one device; make a new one with `socle device enrol`"
    )]
    Used,
    /// Too old.
    #[error("this enrolment token expired at {}; make a new one with `socle device enrol`", .0.to_rfc3339())]
    Expired(UnixMs),
    /// The certificate request.
    #[error("the certificate request is refused")]
    Csr(#[source] PkiError),
    /// Name or labels out of bounds.
    #[error("{0}")]
    Bounds(&'static str),
    /// No root to pin.
    #[error(
        "no release root is published yet, so a device could not know what to trust; publish metadata/1.root.json first"
    )]
    NoRoot,
    /// No random bytes for a token.
    #[error("making an enrolment token")]
    Random(#[source] NoRandom),
    /// The store.
    #[error("recording an enrolment")]
    Store(#[source] StoreError),
}

/// What is the same for every device that joins.
pub struct Answer {
    /// The broker's address.
    pub broker: String,
    /// Where artifacts are.
    pub artifacts: String,
    /// The signed sealing key.
    pub seal_key: Vec<u8>,
    /// The key that signs commands.
    pub controller_key: PublicKey,
    /// Our fleet.
    pub fleet: FleetId,
}

/// Makes a token for a device of `environment`; it pins the authority and the first release root.
pub async fn new_token(
    store: &Store,
    authority: &Authority,
    (fleet, environment): (&FleetId, Environment),
    (now, expires_at): (UnixMs, UnixMs),
) -> Result<EnrolToken, EnrolError> {
    let root = store.metadata("root", 1).await.map_err(EnrolError::Store)?;
    let root = Digest::of(&root.ok_or(EnrolError::NoRoot)?);
    let id = secret::random::<12>().map_err(EnrolError::Random)?;
    let secret = secret::random::<32>().map_err(EnrolError::Random)?;
    let kept = Token {
        id: HEXLOWER.encode(&id),
        secret_digest: secret::digest(&secret),
        root,
        environment: environment.clone(),
        created_at: now,
        expires_at,
        used_at: None,
    };
    store.add_token(&kept).await.map_err(EnrolError::Store)?;
    Ok(EnrolToken {
        id: Blob::from(id.to_vec()),
        secret: Blob::from(secret.to_vec()),
        fleet: fleet.clone(),
        environment,
        ca: authority.digest(),
        root,
        expires_at,
    })
}

/// Lets a device join, once. A request that is refused for what it asks does not use its token up.
pub async fn enrol(
    store: &Store,
    authority: &Authority,
    request: &EnrolRequest,
    answer: Answer,
    now: UnixMs,
) -> Result<Enrolled, EnrolError> {
    let token = valid_token(store, request, now).await?;
    check_bounds(request)?;
    let certificate = authority.device(&request.csr_pem, now).map_err(EnrolError::Csr)?;
    let root = store.root(token.root).await.map_err(EnrolError::Store)?;
    let root = root.ok_or(EnrolError::NoRoot)?;
    join(store, &token, request, &certificate, now).await?;
    Ok(Enrolled {
        device: certificate.device,
        fleet: answer.fleet,
        environment: token.environment,
        certificate_pem: certificate.pem,
        ca_pem: authority.certificate_pem().to_owned(),
        broker: answer.broker,
        artifacts: answer.artifacts,
        controller_keys: vec![answer.controller_key],
        seal_key: Blob::from(answer.seal_key),
        root: Blob::from(root),
    })
}

async fn valid_token(
    store: &Store,
    request: &EnrolRequest,
    now: UnixMs,
) -> Result<Token, EnrolError> {
    let id = HEXLOWER.encode(request.token_id.as_slice());
    let token = store.token(&id).await.map_err(EnrolError::Store)?;
    // A wrong secret is answered like a wrong name: a guesser learns nothing.
    let token = token
        .filter(|token| {
            let offered = secret::digest(request.token_secret.as_slice());
            secret::same(token.secret_digest.as_bytes(), offered.as_bytes())
        })
        .ok_or(EnrolError::Unknown)?;
    if token.used_at.is_some() {
        Err(EnrolError::Used)
    } else if now >= token.expires_at {
        Err(EnrolError::Expired(token.expires_at))
    } else {
        Ok(token)
    }
}

fn check_bounds(request: &EnrolRequest) -> Result<(), EnrolError> {
    let short = |text: &str| text.chars().count() <= NAME_MAX && !text.contains(char::is_control);
    if request.name.is_empty() || !short(&request.name) {
        Err(EnrolError::Bounds("the device's name must have 1 to 64 printable characters"))
    } else if request.labels.len() > LABELS_MAX {
        Err(EnrolError::Bounds("a device has at most 32 labels"))
    } else if request.labels.iter().any(|(key, value)| !short(key) || !short(value)) {
        Err(EnrolError::Bounds("each part of a label has at most 64 printable characters"))
    } else {
        Ok(())
    }
}

async fn join(
    store: &Store,
    token: &Token,
    request: &EnrolRequest,
    certificate: &DeviceCertificate,
    now: UnixMs,
) -> Result<(), EnrolError> {
    let mut writing = store.begin().await.map_err(EnrolError::Store)?;
    let used = store
        .use_token(&mut writing, &token.id, certificate.device, now)
        .await
        .map_err(EnrolError::Store)?;
    if !used {
        return Err(EnrolError::Used);
    }
    let joining = Joining {
        id: certificate.device,
        public: certificate.public,
        name: request.name.clone(),
        labels: request.labels.clone(),
        environment: token.environment.clone(),
        certificate_until: certificate.until,
    };
    store.join(&mut writing, &joining, now).await.map_err(EnrolError::Store)?;
    store.commit(writing).await.map_err(EnrolError::Store)
}
