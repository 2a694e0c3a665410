//! The fleet's certificate authority: P-256, which every TLS library takes; device keys are Ed25519.
//!
//! A device pins the authority by the digest of its certificate before it has it, so every server certificate is
//! presented with the authority's behind it.

use protocol::{
    digest::Digest,
    id::{DeviceId, FleetId},
    key::PublicKey,
    time::UnixMs,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const DAY_MS: u64 = 86_400_000;
/// Clocks of devices may lag: certificates hold from a little before they are made.
const BACKDATE_MS: u64 = 10 * 60 * 1000;
const AUTHORITY_MS: u64 = 3650 * DAY_MS;
/// How long the certificates of servers and of the controller itself hold.
pub const SERVER_MS: u64 = 397 * DAY_MS;
/// Common name of the controller's own certificate at the broker.
pub const CONTROLLER_NAME: &str = "controller";
/// How long a device's certificate holds.
pub const DEVICE_MS: u64 = 30 * DAY_MS;
/// Longest certificate request read, in bytes of PEM.
pub const CSR_BYTES_MAX: usize = 8 * 1024;

/// The authority: its certificate and its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    digest: Digest,
}

/// A certificate with its key, as files hold them.
pub struct Issued {
    /// The certificate, then the authority's; PEM.
    pub chain_pem: String,
    /// Its private key; PKCS#8 PEM.
    pub key_pem: String,
}

/// A device's certificate and who it says the device is.
#[derive(Debug)]
pub struct DeviceCertificate {
    /// Digest of its key.
    pub device: DeviceId,
    /// Its key.
    pub public: PublicKey,
    /// The certificate, PEM.
    pub pem: String,
    /// When it ceases to hold.
    pub until: UnixMs,
}

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Key generation.
    #[error("generating the key of {what}")]
    Key {
        /// Whose.
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// Certificate building.
    #[error("making the certificate of {what}")]
    Issue {
        /// Whose.
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// The authority's files are not what they should be.
    #[error("reading the certificate authority's {what}")]
    Authority {
        /// Which file.
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// The authority's certificate is not PEM.
    #[error("the certificate authority's certificate is not PEM")]
    NotPem,
    /// Not a request, or its signature does not hold.
    #[error("the certificate request is malformed or its signature does not hold")]
    Csr(#[source] rcgen::Error),
    /// Longer than any we read.
    #[error("the certificate request has {0} bytes; at most {CSR_BYTES_MAX} are read")]
    CsrTooLarge(usize),
    /// By a key of another kind.
    #[error("the certificate request is not by an Ed25519 key; devices use Ed25519")]
    CsrKey,
}

impl Authority {
    /// A new authority for `fleet`, and its private key in PEM.
    pub fn create(fleet: &FleetId, now: UnixMs) -> Result<(Self, String), PkiError> {
        let key = new_key("the authority")?;
        let key_pem = key.serialize_pem();
        let mut params = params(&format!("Socle fleet {fleet}"), now, AUTHORITY_MS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params
            .self_signed(&key)
            .map_err(|source| PkiError::Issue { what: "the authority", source })?;
        Ok((Self::load(&certificate.pem(), &key_pem)?, key_pem))
    }

    /// The authority that `certificate_pem` and `key_pem` hold.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|source| PkiError::Authority { what: "key", source })?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)
            .map_err(|source| PkiError::Authority { what: "certificate", source })?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| PkiError::NotPem)?;
        Ok(Self {
            issuer,
            certificate_pem: certificate_pem.to_owned(),
            digest: Digest::of(der.as_ref()),
        })
    }

    /// Its certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of its certificate's DER: what enrolment tokens pin.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// A server's certificate for `names` (host names or addresses).
    pub fn server(&self, names: &[String], now: UnixMs) -> Result<Issued, PkiError> {
        let what = "the server";
        let common = names.first().map_or("server", String::as_str);
        let mut params = params(common, now, SERVER_MS);
        params.subject_alt_names = CertificateParams::new(names.to_vec())
            .map_err(|source| PkiError::Issue { what, source })?
            .subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(what, params)
    }

    /// A client's certificate whose common name is `name`: a broker's access list goes by it.
    pub fn client(&self, name: &str, now: UnixMs) -> Result<Issued, PkiError> {
        let mut params = params(name, now, SERVER_MS);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue("the controller's broker client", params)
    }

    /// Answers a device's request. Only its key counts: who the device is follows from that, and the subject and
    /// extensions it asks for are ignored.
    pub fn device(&self, csr_pem: &str, now: UnixMs) -> Result<DeviceCertificate, PkiError> {
        if csr_pem.len() > CSR_BYTES_MAX {
            return Err(PkiError::CsrTooLarge(csr_pem.len()));
        }
        let csr = CertificateSigningRequestParams::from_pem(csr_pem).map_err(PkiError::Csr)?;
        if csr.public_key.algorithm() != &PKCS_ED25519 {
            return Err(PkiError::CsrKey);
        }
        let public =
            PublicKey::try_from(csr.public_key.der_bytes()).map_err(|_| PkiError::CsrKey)?;
        let device = DeviceId::of(&public);
        let mut params = params(&device.to_string(), now, DEVICE_MS);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&csr.public_key, &self.issuer)
            .map_err(|source| PkiError::Issue { what: "a device", source })?;
        Ok(DeviceCertificate { device, public, pem: certificate.pem(), until: now.plus(DEVICE_MS) })
    }

    fn issue(&self, what: &'static str, params: CertificateParams) -> Result<Issued, PkiError> {
        let key = new_key(what)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|source| PkiError::Issue { what, source })?;
        Ok(Issued {
            chain_pem: format!("{}{}", certificate.pem(), self.certificate_pem),
            key_pem: key.serialize_pem(),
        })
    }
}

/// Until when the first certificate of a PEM text holds.
pub fn until(pem: &str) -> Option<UnixMs> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(UnixMs(seconds.saturating_mul(1000)))
}

/// The device behind a client certificate that TLS has verified already; none for a key that is not a device's.
pub fn device_of(certificate: &CertificateDer<'_>) -> Option<DeviceId> {
    const ED25519: &str = "1.3.101.112";
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let info = parsed.public_key();
    if info.algorithm.algorithm.to_id_string() != ED25519 {
        return None;
    }
    let public = PublicKey::try_from(info.subject_public_key.data.as_ref()).ok()?;
    Some(DeviceId::of(&public))
}

fn new_key(what: &'static str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| PkiError::Key { what, source })
}

fn params(common_name: &str, now: UnixMs, span_ms: u64) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = at(UnixMs(now.0.saturating_sub(BACKDATE_MS)));
    params.not_after = at(now.plus(span_ms));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn at(when: UnixMs) -> OffsetDateTime {
    let seconds = i64::try_from(when.0 / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_000_000_000);

    fn authority() -> Authority {
        Authority::create(&"demo".parse().unwrap(), NOW).unwrap().0
    }

    fn csr(key: &KeyPair, common_name: &str) -> String {
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_device_is_its_key_whatever_it_calls_itself() {
        let authority = authority();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let issued = authority.device(&csr(&key, "controller"), NOW).unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let subject = parsed.subject().to_string();
        assert_eq!(subject, format!("CN={}", issued.device));
        assert_eq!(device_of(&der), Some(issued.device));
        assert!(parsed.subject_alternative_name().unwrap().is_none());
        assert_eq!(parsed.validity().not_after.timestamp() as u64, issued.until.0 / 1000);
    }

    #[test]
    fn a_request_by_another_kind_of_key_is_refused() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let refused = authority().device(&csr(&key, "x"), NOW).unwrap_err();
        assert!(matches!(refused, PkiError::CsrKey), "{refused:?}");
    }

    #[test]
    fn an_altered_request_is_refused() {
        let authority = authority();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let good = csr(&key, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        let der = rcgen::CertificateSigningRequestParams::from_pem(&good).is_ok();
        assert!(der);
        // Change one character well inside the signed part.
        let at = good.len() / 3;
        let swapped = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut bad = good.clone();
        bad.replace_range(at..=at, swapped);
        for text in [bad.as_str(), "", "not a request", &"A".repeat(CSR_BYTES_MAX + 1)] {
            assert!(authority.device(text, NOW).is_err());
        }
    }

    #[test]
    fn a_server_presents_the_authority_that_devices_pin() {
        let authority = authority();
        let issued = authority.server(&["localhost".into(), "127.0.0.1".into()], NOW).unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(chain.len(), 2);
        assert_eq!(Digest::of(chain[1].as_ref()), authority.digest());
        assert_eq!(device_of(&chain[0]), None);
    }

    #[test]
    fn the_authority_survives_being_written_and_read() {
        let (made, key_pem) = Authority::create(&"demo".parse().unwrap(), NOW).unwrap();
        let read = Authority::load(made.certificate_pem(), &key_pem).unwrap();
        assert_eq!(read.digest(), made.digest());
        assert!(Authority::load("nonsense", &key_pem).is_err());
    }
}
