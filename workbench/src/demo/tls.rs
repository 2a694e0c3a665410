//! TLS 1.3 on ring for the demo's broker front and for its eavesdropper.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    server::{VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file.
    #[error("reading `{path}`")]
    Pem {
        /// Which.
        path: String,
        /// Why.
        source: pem::Error,
    },
    /// rustls refuses them.
    #[error("setting TLS up")]
    Rustls(#[from] rustls::Error),
    /// The authority cannot check clients.
    #[error("setting client certificates up")]
    Verifier(#[from] VerifierBuilderError),
}

/// A certificate chain with its key, and the authority that signs peers.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Chain, PEM.
    pub certificate: &'a Path,
    /// Key, PEM.
    pub key: &'a Path,
    /// Authority, PEM.
    pub ca: &'a Path,
}

impl Identity<'_> {
    /// For a server that asks every client for a certificate.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(self.roots()?),
            Arc::clone(&provider),
        )
        .build()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(self.certificate)?, key(self.key)?)?;
        Ok(Arc::new(config))
    }

    /// For a client with a certificate.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain(self.certificate)?, key(self.key)?)?;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in chain(self.ca)? {
            roots.add(certificate)?;
        }
        Ok(roots)
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.display().to_string(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|source| TlsError::Pem { path: path.display().to_string(), source })
}
