//! A fleet's certificate authority, and what it signs.

use std::sync::Arc;

use protocol::digest::Digest;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData,
};
use rustls::{
    RootCertStore, ServerConfig, crypto::CryptoProvider, server::WebPkiClientVerifier, version,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(crate) struct Pki(CertifiedIssuer<'static, KeyPair>);

/// What a server shows of its authority.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    Anyone,
    OursOnly,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = named("fleet authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn ca_pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn ca_der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pin(&self) -> Digest {
        Digest::of(self.0.der())
    }

    /// Certificate and key of a server, PEM.
    pub(crate) fn server(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = named(name, &[name]).signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Certificate and PKCS#8 key of a client.
    pub(crate) fn client(&self, common_name: &str) -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = named(common_name, &[]).signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), key.serialize_der())
    }

    /// A certificate for the key behind `pkcs8`, PEM.
    pub(crate) fn certify(&self, pkcs8: &[u8], common_name: &str) -> String {
        let document = PrivatePkcs8KeyDer::from(pkcs8.to_vec());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&document, &PKCS_ED25519).unwrap();
        named(common_name, &[]).signed_by(&key, &self.0).unwrap().pem()
    }

    /// A certificate for a request, and the raw key it is for.
    pub(crate) fn certify_request(&self, csr_pem: &str) -> (String, Vec<u8>) {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        let raw = request.public_key.der_bytes().to_vec();
        let name = Digest::of(&raw).to_string();
        let certificate = named(&name, &[]).signed_by(&request.public_key, &self.0).unwrap();
        (certificate.pem(), raw)
    }

    /// TLS 1.3 of a server called `localhost` that shows its authority too.
    pub(crate) fn server_config(&self, name: &str, clients: Clients) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = named(name, &[name]).signed_by(&key, &self.0).unwrap();
        let chain = vec![certificate.der().clone(), self.ca_der()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .unwrap();
        let builder = match clients {
            Clients::Anyone => builder.with_no_client_auth(),
            Clients::OursOnly => {
                let mut roots = RootCertStore::empty();
                roots.add(self.ca_der()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }
}

fn named(common_name: &str, alternatives: &[&str]) -> CertificateParams {
    let alternatives: Vec<String> = alternatives.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(alternatives).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
