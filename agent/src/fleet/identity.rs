//! Who this device is in its fleet: key, certificate, authority, and where controller and broker are.
//!
//! Written once by enrolment, read at every start. The folder is the gateway's alone (0700).

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{
    enrol::Enrolled,
    id::{DeviceId, FleetId},
    key::{KeyError, SigningKey},
};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider, sign::CertifiedKey, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem, pem::PemObject};
use slots::disk::Disk;

use crate::fleet::state_file;

/// Largest file of an identity.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// The private key, PKCS#8.
pub const KEY: &str = "device.key.pk8";
/// The certificate, PEM.
pub const CERTIFICATE: &str = "device.crt.pem";
/// The fleet's certificate authority, PEM.
pub const AUTHORITY: &str = "ca.crt.pem";
/// The controller's answer to the enrolment, JSON, without the root.
pub const FLEET: &str = "fleet.json";

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing.
    #[error("{} is missing: the identity is incomplete; remove the folder `identity` and enrol this device again", .0.display())]
    Missing(PathBuf),
    /// The disk refused.
    #[error("reading {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The controller's answer is not readable.
    #[error("{} does not hold what enrolment wrote; enrol this device again", path.display())]
    Fleet {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Not a certificate.
    #[error("reading the certificate in {}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The key does not belong to the device.
    #[error("reading the device key")]
    Key(#[from] KeyError),
    /// Key and name do not belong together.
    #[error("the key is that of device {}, the identity that of device {}; enrol this device again", key.short(), named.short())]
    Mismatch {
        /// Who the key says.
        key: DeviceId,
        /// Who the identity says.
        named: DeviceId,
    },
    /// TLS refuses key, certificate or authority.
    #[error("preparing TLS with the device certificate")]
    Tls(#[from] rustls::Error),
    /// Not an address of the expected kind.
    #[error("`{0}` is not an address like {1}")]
    Address(String, &'static str),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, as the certificate must carry it.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Key and certificate in the forms that TLS libraries take.
pub struct Credentials {
    /// The device's certificate.
    pub certificate: CertificateDer<'static>,
    /// The only authority that servers are believed by.
    pub authority: CertificateDer<'static>,
    /// The private key.
    pub key: PrivatePkcs8KeyDer<'static>,
}

/// An enrolled device.
pub struct Identity {
    /// What the controller said.
    pub enrolled: Enrolled,
    /// Signs reports.
    pub signer: SigningKey,
    /// For TLS.
    pub credentials: Credentials,
    /// Where the broker is.
    pub broker: Endpoint,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(device {}, fleet {})", self.device().short(), self.fleet())
    }
}

impl Identity {
    /// Reads the identity in `folder`; none if this device was never enrolled.
    pub fn load(disk: &dyn Disk, folder: &Path) -> Result<Option<Self>, IdentityError> {
        // Enrolment writes this file last.
        let path = folder.join(FLEET);
        let Some(text) = read(disk, &path)? else { return Ok(None) };
        let enrolled: Enrolled = serde_json::from_slice(&text)
            .map_err(|source| IdentityError::Fleet { path: path.clone(), source })?;
        let key = present(disk, &folder.join(KEY))?;
        let signer = SigningKey::from_pkcs8(&key)?;
        let device = DeviceId::of(&signer.public());
        if device != enrolled.device {
            return Err(IdentityError::Mismatch { key: device, named: enrolled.device });
        }
        let credentials = Credentials {
            certificate: certificate(disk, &folder.join(CERTIFICATE))?,
            authority: certificate(disk, &folder.join(AUTHORITY))?,
            key: PrivatePkcs8KeyDer::from(key),
        };
        let broker = Endpoint::parse(&enrolled.broker, "mqtts://")?;
        Ok(Some(Self { enrolled, signer, credentials, broker }))
    }

    /// This device.
    pub const fn device(&self) -> DeviceId {
        self.enrolled.device
    }

    /// Its fleet.
    pub const fn fleet(&self) -> &FleetId {
        &self.enrolled.fleet
    }
}

impl Credentials {
    /// TLS 1.3 on ring, with the client certificate, trusting the fleet's authority alone.
    pub fn client_config(&self) -> Result<ClientConfig, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        let chain = vec![self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        Ok(ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?)
    }

    /// Holds if the certificate is for the key.
    pub fn check(&self) -> Result<(), IdentityError> {
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let pair = CertifiedKey::from_der(vec![self.certificate.clone()], key, &provider())?;
        Ok(pair.keys_match()?)
    }
}

impl Endpoint {
    /// Reads `<scheme>host:port`, where `scheme` is `mqtts://` or `https://`; a path after it is ignored.
    pub fn parse(text: &str, scheme: &'static str) -> Result<Self, IdentityError> {
        let wrong = || IdentityError::Address(text.chars().take(200).collect(), example(scheme));
        let rest = text.strip_prefix(scheme).ok_or_else(wrong)?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || host.contains('@') || port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// The one cryptographic provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn example(scheme: &str) -> &'static str {
    if scheme == "mqtts://" { "mqtts://broker.example:8883" } else { "https://fleet.example:8443" }
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    state_file::bytes(disk, path, FILE_BYTES_MAX)
        .map_err(|source| IdentityError::Read { path: path.to_owned(), source })
}

fn present(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, IdentityError> {
    read(disk, path)?.ok_or_else(|| IdentityError::Missing(path.to_owned()))
}

fn certificate(disk: &dyn Disk, path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(&present(disk, path)?)
        .map_err(|source| IdentityError::Certificate { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_host_and_port() {
        let endpoint = |host: &str, port| Some(Endpoint { host: host.into(), port });
        for (text, expected) in [
            ("mqtts://localhost:8883", endpoint("localhost", 8883)),
            ("mqtts://[::1]:1", endpoint("::1", 1)),
            ("mqtts://a.b:70000", None),
            ("mqtts://a.b", None),
            ("mqtts://:1883", None),
            ("mqtts://u@h:1", None),
            ("mqtt://h:1883", None),
            ("", None),
        ] {
            assert_eq!(Endpoint::parse(text, "mqtts://").ok(), expected, "{text}");
        }
    }
}
