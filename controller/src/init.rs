//! `init`: a new controller's keys, certificates and settings; and reading them back.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::{
    id::FleetId,
    key::{KeyError, SigningKey},
    time::UnixMs,
};
use ring::rand::SystemRandom;

use crate::{
    disk::{self, Access, DiskError},
    layout::Layout,
    online::{OnlineError, OnlineRoles},
    pki::{self, Authority, CONTROLLER_NAME, PkiError},
    secret::{self, NoRandom},
    settings::{Settings, SettingsError},
    tls::Identity,
};

/// How long a timestamp holds unless said otherwise.
pub const TIMESTAMP_HOURS: u32 = 24;

/// Why a controller cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already.
    #[error(
        "{} holds a controller already; use it with `serve`, or give another --state", .0.display()
    )]
    Exists(PathBuf),
    /// No name to put into the certificate.
    #[error("no name for the server's certificate; give at least one --name HOST")]
    NoName,
    /// Certificates.
    #[error("making the fleet's certificates")]
    Pki(#[source] PkiError),
    /// The signing key.
    #[error("making the controller's signing key")]
    Key(#[source] KeyError),
    /// The keys of the online roles.
    #[error("making the controller's keys for snapshot and timestamp")]
    Online(#[source] OnlineError),
    /// The admin token.
    #[error("making the admin token")]
    Token(#[source] NoRandom),
    /// A file.
    #[error("writing the new controller's files")]
    Disk(#[source] DiskError),
    /// Settings that cannot be written as TOML.
    #[error("writing the settings")]
    Settings(#[source] Box<toml::ser::Error>),
}

/// Why an initialised state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The settings.
    #[error("reading the settings")]
    Settings(#[source] SettingsError),
    /// A file.
    #[error("reading {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The authority.
    #[error("reading the certificate authority")]
    Authority(#[source] PkiError),
    /// The signing key.
    #[error("reading the controller's signing key")]
    Key(#[source] KeyError),
}

/// Makes a controller for `settings` in the folder. The settings file is written last: an `init` that was cut off is
/// simply run again.
pub fn create(layout: &Layout, settings: &Settings, now: UnixMs) -> Result<(), InitError> {
    if layout.settings().exists() {
        return Err(InitError::Exists(layout.state().to_owned()));
    }
    if settings.names.is_empty() {
        return Err(InitError::NoName);
    }
    for path in [layout.state(), &layout.pki(), &layout.incoming(), &layout.runtime()] {
        disk::folder(path).map_err(InitError::Disk)?;
    }
    write_pki(layout, &settings.fleet, &settings.names, now)?;
    let signing = SigningKey::generate_pkcs8(&SystemRandom::new()).map_err(InitError::Key)?;
    let path = layout.signing_key();
    disk::folder(path.parent().unwrap_or_else(|| layout.state())).map_err(InitError::Disk)?;
    put(&path, &signing, Access::Owner)?;
    OnlineRoles::open(layout, TIMESTAMP_HOURS).map_err(InitError::Online)?;
    // Created here so that it is closed to others: it will hold sealing keys.
    put(&layout.database(), &[], Access::Owner)?;
    let token = secret::token().map_err(InitError::Token)?;
    put(&layout.admin_token(), token.as_bytes(), Access::Owner)?;
    let text =
        toml::to_string_pretty(settings).map_err(|source| InitError::Settings(Box::new(source)))?;
    put(&layout.settings(), text.as_bytes(), Access::Anyone)
}

fn write_pki(
    layout: &Layout,
    fleet: &FleetId,
    names: &[String],
    now: UnixMs,
) -> Result<(), InitError> {
    let (authority, key_pem) = Authority::create(fleet, now).map_err(InitError::Pki)?;
    put(&layout.pki_file("ca.key.pem"), key_pem.as_bytes(), Access::Owner)?;
    let certificate = authority.certificate_pem().as_bytes();
    put(&layout.pki_file("ca.crt.pem"), certificate, Access::Anyone)?;
    write_issued(layout, names, &authority, now)
}

/// The key goes first: if the power fails in between, the old certificate still says that it is due.
fn write_issued(
    layout: &Layout,
    names: &[String],
    authority: &Authority,
    now: UnixMs,
) -> Result<(), InitError> {
    let server = authority.server(names, now).map_err(InitError::Pki)?;
    let client = authority.client(CONTROLLER_NAME, now).map_err(InitError::Pki)?;
    for (identity, issued) in [(server_identity(layout), server), (broker_identity(layout), client)]
    {
        put(&identity.key, issued.key_pem.as_bytes(), Access::Owner)?;
        put(&identity.chain, issued.chain_pem.as_bytes(), Access::Anyone)?;
    }
    Ok(())
}

/// Issues the controller's own certificates again when less than a third of their time is left, or when they cannot be
/// read. Whether it did.
pub fn renew(
    layout: &Layout,
    settings: &Settings,
    authority: &Authority,
    now: UnixMs,
) -> Result<bool, InitError> {
    let due = |identity: Identity| {
        let until = fs::read_to_string(&identity.chain).ok().and_then(|pem| pki::until(&pem));
        until.is_none_or(|until| until.since(now) < pki::SERVER_MS / 3)
    };
    if !due(server_identity(layout)) && !due(broker_identity(layout)) {
        return Ok(false);
    }
    write_issued(layout, &settings.names, authority, now)?;
    Ok(true)
}

fn put(path: &Path, bytes: &[u8], access: Access) -> Result<(), InitError> {
    disk::write(path, bytes, access).map_err(InitError::Disk)
}

/// The settings and the authority of an initialised state.
pub fn authority(layout: &Layout) -> Result<(Settings, Authority), LoadError> {
    let settings = Settings::load(layout).map_err(LoadError::Settings)?;
    let certificate = text(layout.pki_file("ca.crt.pem"))?;
    let key = text(layout.pki_file("ca.key.pem"))?;
    let authority = Authority::load(&certificate, &key).map_err(LoadError::Authority)?;
    Ok((settings, authority))
}

/// The key that signs what the controller says.
pub fn signing_key(layout: &Layout) -> Result<SigningKey, LoadError> {
    let path = layout.signing_key();
    let document = fs::read(&path).map_err(|source| LoadError::Read { path, source })?;
    SigningKey::from_pkcs8(&document).map_err(LoadError::Key)
}

/// The administrator's bearer token.
pub fn admin_token(layout: &Layout) -> Result<String, LoadError> {
    Ok(text(layout.admin_token())?.trim().to_owned())
}

/// How the controller presents itself over HTTPS.
pub fn server_identity(layout: &Layout) -> Identity {
    identity(layout, "server")
}

/// How the controller presents itself to the broker.
pub fn broker_identity(layout: &Layout) -> Identity {
    identity(layout, "broker-client")
}

fn identity(layout: &Layout, name: &str) -> Identity {
    Identity {
        chain: layout.pki_file(&format!("{name}.crt.pem")),
        key: layout.pki_file(&format!("{name}.key.pem")),
        authority: layout.pki_file("ca.crt.pem"),
    }
}

fn text(path: PathBuf) -> Result<String, LoadError> {
    fs::read_to_string(&path).map_err(|source| LoadError::Read { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: UnixMs = UnixMs(1_795_000_000_000);

    fn made() -> (tempfile::TempDir, Layout, Settings) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(&folder.path().join("c"));
        let settings = Settings { fleet: "demo".parse().unwrap(), names: vec!["localhost".into()] };
        create(&layout, &settings, NOW).unwrap();
        (folder, layout, settings)
    }

    #[test]
    fn a_controller_is_made_once_and_its_secrets_are_its_owners() {
        let (_folder, layout, settings) = made();
        assert!(matches!(create(&layout, &settings, NOW), Err(InitError::Exists(_))));
        assert_eq!(Settings::load(&layout).unwrap(), settings);
        assert_eq!(admin_token(&layout).unwrap().len(), 64);
        for secret in [
            layout.admin_token(),
            layout.signing_key(),
            layout.database(),
            layout.pki_file("ca.key.pem"),
            layout.pki_file("server.key.pem"),
            layout.pki_file("broker-client.key.pem"),
        ] {
            let mode = fs::metadata(&secret).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", secret.display());
        }
    }

    #[test]
    fn an_init_that_was_cut_off_is_run_again() {
        let (_folder, layout, settings) = made();
        fs::remove_file(layout.settings()).unwrap();
        create(&layout, &settings, NOW).unwrap();
        assert!(server_identity(&layout).server().is_ok());
    }

    #[test]
    fn certificates_are_renewed_before_they_end_and_when_they_are_damaged() {
        let (_folder, layout, settings) = made();
        let (_, authority) = authority(&layout).unwrap();
        let renew = |now| renew(&layout, &settings, &authority, now).unwrap();
        assert!(!renew(NOW));
        let late = NOW.plus(pki::SERVER_MS / 3 * 2 + 60_000);
        assert!(renew(late));
        assert!(!renew(late));
        fs::remove_file(layout.pki_file("broker-client.crt.pem")).unwrap();
        assert!(renew(late));
        assert!(server_identity(&layout).server().is_ok());
        assert!(broker_identity(&layout).client().is_ok());
    }
}
