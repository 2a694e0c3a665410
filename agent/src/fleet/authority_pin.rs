//! First contact: a TLS verifier that knows the certificate authority by its digest alone.
//!
//! The operator's token carries the SHA-256 of the authority's certificate. The server presents that certificate in
//! its chain; it becomes the only root, and the ordinary checks then hold the leaf, its name and its dates against it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::digest::Digest;
use rustls::{
    DigitallySignedStruct, Error, OtherError, PeerIncompatible, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The server did not show the pinned authority.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server did not present the certificate authority {} that the token names; check the address, and that the token is from this fleet's controller", .0.short()
)]
pub struct PinMismatch(Digest);

/// Verifies a server by the digest of its authority.
pub struct AuthorityPin {
    pin: Digest,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl AuthorityPin {
    /// A verifier that believes servers of the authority whose certificate (DER) has this digest.
    pub fn new(pin: Digest, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider, seen: Mutex::new(None) }
    }

    /// The authority's certificate, once a server was verified by it.
    pub fn authority(&self) -> Option<CertificateDer<'static>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for AuthorityPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityPin({})", self.pin.short())
    }
}

impl ServerCertVerifier for AuthorityPin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Digest::of(certificate) == self.pin)
            .map(|certificate| certificate.clone().into_owned())
            .ok_or_else(|| Error::Other(OtherError(Arc::new(PinMismatch(self.pin)))))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let provider = Arc::clone(&self.provider);
        let verified = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|reason| Error::General(reason.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
