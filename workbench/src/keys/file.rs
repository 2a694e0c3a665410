//! One private key in one file: PKCS#8 in PEM, encrypted by PBES2 (scrypt, AES-256-CBC; RFC 8018), which OpenSSL and
//! others read too. Its public half lies beside it.

use std::path::{Path, PathBuf};

use pkcs8::{
    AlgorithmIdentifierRef, EncryptedPrivateKeyInfoRef, LineEnding, ObjectIdentifier,
    PrivateKeyInfoRef, SecretDocument,
    der::{asn1::OctetStringRef, pem::PemLabel as _},
};
use protocol::{
    key::{KeyError, SigningKey},
    tuf::metadata::Key,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::{
    files::{self, Access, FileError},
    keys::{
        passphrase::{OpenArgs, PassphraseError, Protection},
        public,
    },
};

/// Ed25519 (RFC 8410).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const SEED_BYTES: usize = 32;
/// An encrypted key has about 400 bytes.
const FILE_BYTES_MAX: u64 = 8192;

/// Why a key file cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A file.
    #[error("handling key files")]
    File(#[from] FileError),
    /// The system gave no randomness.
    #[error("making a key")]
    Make(#[source] KeyError),
    /// The passphrase.
    #[error("opening the key `{}`", .path.display())]
    Passphrase {
        /// Which.
        path: PathBuf,
        /// Why.
        source: PassphraseError,
    },
    /// Wrong passphrase, or an altered file.
    #[error("`{}` does not open with this passphrase; try again, or restore the file from a copy", .path.display())]
    Closed {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pkcs8::Error,
    },
    /// A file that holds no private key.
    #[error("`{}` is not a private key in PKCS#8 PEM, as `socle keys` writes it", .path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pkcs8::der::Error,
    },
    /// Another kind of PEM.
    #[error("`{}` holds a `{label}`, not a private key", .path.display())]
    Label {
        /// Which.
        path: PathBuf,
        /// What it says it is.
        label: String,
    },
    /// A key of another kind.
    #[error("reading the key `{}`", .path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A mistake of ours.
    #[error("encoding a key")]
    Encode(#[source] pkcs8::Error),
    /// The public half.
    #[error("writing the public key")]
    Public(#[from] public::PublicError),
}

/// Whether a key file is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// It needs a passphrase.
    Encrypted,
    /// Whoever reads it can sign.
    Plain,
}

/// The path of the public half of the key at `path`: `root-1.pem` → `root-1.pub.json`.
pub fn public_path(path: &Path) -> PathBuf {
    path.with_extension("pub.json")
}

/// Makes a key at `path` and its public half beside it. Nothing is replaced.
pub fn make(path: &Path, protection: &Protection) -> Result<SigningKey, KeyFileError> {
    let mut seed = Zeroizing::new([0_u8; 2 + SEED_BYTES]);
    // The key's own OCTET STRING inside that of PKCS#8 (RFC 8410, section 7).
    seed[..2].copy_from_slice(&[0x04, 0x20]);
    SystemRandom::new().fill(&mut seed[2..]).map_err(|_| KeyFileError::Make(KeyError::Random))?;
    let plain = plain_document(&*seed).map_err(KeyFileError::Encode)?;
    let key = SigningKey::from_pkcs8(plain.as_bytes()).map_err(KeyFileError::Make)?;
    let public = public_path(path);
    if public.exists() {
        return Err(FileError::Exists { path: public }.into());
    }
    let pem = encoded(&plain, protection).map_err(KeyFileError::Encode)?;
    files::write_new(path, pem.as_bytes(), Access::Owner)?;
    public::write_new(&public, &Key::ed25519(&key.public()))?;
    Ok(key)
}

/// Reads the key at `path`; an encrypted one asks `open` for its passphrase.
pub fn read(path: &Path, open: &OpenArgs) -> Result<SigningKey, KeyFileError> {
    let (document, sealed) = document(path)?;
    let plain = match sealed {
        Sealed::Plain => document,
        Sealed::Encrypted => decrypted(path, &document, open)?,
    };
    SigningKey::from_pkcs8(plain.as_bytes())
        .map_err(|source| KeyFileError::Key { path: path.to_owned(), source })
}

/// Whether the key at `path` needs a passphrase.
pub fn sealed(path: &Path) -> Result<Sealed, KeyFileError> {
    document(path).map(|(_, sealed)| sealed)
}

/// Writes the key at `path` again under another protection.
pub fn protect(path: &Path, open: &OpenArgs, protection: &Protection) -> Result<(), KeyFileError> {
    let (document, sealed) = document(path)?;
    let plain = match sealed {
        Sealed::Plain => document,
        Sealed::Encrypted => decrypted(path, &document, open)?,
    };
    SigningKey::from_pkcs8(plain.as_bytes())
        .map_err(|source| KeyFileError::Key { path: path.to_owned(), source })?;
    let pem = encoded(&plain, protection).map_err(KeyFileError::Encode)?;
    Ok(files::write(path, pem.as_bytes(), Access::Owner)?)
}

fn plain_document(seed: &[u8]) -> Result<SecretDocument, pkcs8::Error> {
    let algorithm = AlgorithmIdentifierRef { oid: ED25519, parameters: None };
    let info = PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(seed)?);
    Ok(SecretDocument::encode_msg(&info)?)
}

fn encoded(
    plain: &SecretDocument,
    protection: &Protection,
) -> Result<Zeroizing<String>, pkcs8::Error> {
    let pem = match protection {
        Protection::Nothing => plain.to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)?,
        Protection::Passphrase(passphrase) => {
            let info = PrivateKeyInfoRef::try_from(plain.as_bytes())?;
            let encrypted = info.encrypt(passphrase.as_bytes())?;
            encrypted.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)?
        }
    };
    Ok(pem)
}

fn document(path: &Path) -> Result<(SecretDocument, Sealed), KeyFileError> {
    let bytes = Zeroizing::new(files::read(path, FILE_BYTES_MAX)?);
    let text =
        std::str::from_utf8(&bytes).map_err(|_| FileError::NotText { path: path.to_owned() })?;
    let (label, document) = SecretDocument::from_pem(text)
        .map_err(|source| KeyFileError::NotPem { path: path.to_owned(), source })?;
    if label == PrivateKeyInfoRef::PEM_LABEL {
        Ok((document, Sealed::Plain))
    } else if label == EncryptedPrivateKeyInfoRef::PEM_LABEL {
        Ok((document, Sealed::Encrypted))
    } else {
        let label = label.chars().take(40).collect();
        Err(KeyFileError::Label { path: path.to_owned(), label })
    }
}

fn decrypted(
    path: &Path,
    document: &SecretDocument,
    open: &OpenArgs,
) -> Result<SecretDocument, KeyFileError> {
    let name =
        path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let passphrase = open
        .passphrase(&name)
        .map_err(|source| KeyFileError::Passphrase { path: path.to_owned(), source })?;
    EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
        .and_then(|info| info.decrypt(passphrase.as_bytes()))
        .map_err(|source| KeyFileError::Closed { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Made by `openssl genpkey -algorithm ed25519 | openssl pkcs8 -topk8 -scrypt`, passphrase `open sesame`. It signs
    /// nothing but this test.
    const BY_OPENSSL: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
MIGTME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAhFKL6uSnwVnQICQAAC\n\
AQgCAQEwHQYJYIZIAWUDBAEqBBDoPesW9wxzNiY25MQ6TDKjBEAZ6QtvGAmPoPcF\n\
WrC1mvcvDNWlFXy6GYzkQpV0uenxLse4oSwvuyE1qbwy9TATnzQzlAOvVyg4o7WS\n\
fTjegV/v\n\
-----END ENCRYPTED PRIVATE KEY-----\n";
    const ITS_PUBLIC: &str = "d3d2cb9d53919050343602c4779cad6355d0d2a2eb66c65f65b95ed4bd3010b9";

    fn with_passphrase(folder: &Path, text: &str) -> (Protection, OpenArgs) {
        let path = folder.join("passphrase");
        files::write(&path, text.as_bytes(), Access::Owner).unwrap();
        let protection = Protection::Passphrase(Zeroizing::new(text.to_owned()));
        (protection, OpenArgs { passphrase_file: Some(path) })
    }

    #[test]
    fn a_key_opens_with_its_passphrase_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root-1.pem");
        let (protection, open) = with_passphrase(folder.path(), "open sesame");
        let made = make(&path, &protection).unwrap();
        assert_eq!(sealed(&path).unwrap(), Sealed::Encrypted);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(read(&path, &open).unwrap().public(), made.public());
        let (other, wrong) = with_passphrase(folder.path(), "closed sesame");
        let refused = read(&path, &wrong).unwrap_err();
        assert!(matches!(refused, KeyFileError::Closed { .. }), "{refused:?}");
        assert!(refused.to_string().contains("root-1.pem"), "{refused}");
        // Under another passphrase it is the same key.
        let (_, open) = with_passphrase(folder.path(), "open sesame");
        protect(&path, &open, &other).unwrap();
        assert!(matches!(read(&path, &open), Err(KeyFileError::Closed { .. })));
        let (_, open) = with_passphrase(folder.path(), "closed sesame");
        assert_eq!(read(&path, &open).unwrap().public(), made.public());
        let public = public::read(&public_path(&path)).unwrap();
        assert_eq!(public.public(), Some(made.public()));
        assert!(matches!(
            make(&path, &protection),
            Err(KeyFileError::File(FileError::Exists { .. }))
        ));
    }

    #[test]
    fn a_key_made_by_openssl_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.pem");
        files::write(&path, BY_OPENSSL.as_bytes(), Access::Owner).unwrap();
        let (_, open) = with_passphrase(folder.path(), "open sesame");
        let key = read(&path, &open).unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(key.public().as_bytes()), ITS_PUBLIC);
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pem");
        let open = OpenArgs::default();
        for content in [
            "not a key",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        ] {
            files::write(&path, content.as_bytes(), Access::Owner).unwrap();
            let message = read(&path, &open).unwrap_err().to_string();
            assert!(message.contains("x.pem"), "{message}");
        }
    }
}
