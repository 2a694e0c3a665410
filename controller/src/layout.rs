//! Where the controller's files lie below its state folder.

use std::path::{Path, PathBuf};

use protocol::digest::Digest;

/// The state folder.
#[derive(Clone, Debug)]
pub struct Layout(PathBuf);

impl Layout {
    /// The layout below `state`.
    pub fn new(state: &Path) -> Self {
        Self(state.to_owned())
    }

    /// The folder itself.
    pub fn state(&self) -> &Path {
        &self.0
    }

    /// Settings fixed by `init`; written last, so its presence says that `init` finished.
    pub fn settings(&self) -> PathBuf {
        self.0.join("controller.toml")
    }

    /// The administrator's bearer token.
    pub fn admin_token(&self) -> PathBuf {
        self.0.join("admin-token")
    }

    /// Certificates and their keys.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// One file of [`Layout::pki`].
    pub fn pki_file(&self, name: &str) -> PathBuf {
        self.pki().join(name)
    }

    /// The key that signs what the controller says to devices.
    pub fn signing_key(&self) -> PathBuf {
        self.0.join("keys").join("controller.pk8")
    }

    /// The key of an online role: `snapshot` or `timestamp`.
    pub fn online_key(&self, role: &str) -> PathBuf {
        self.0.join("keys").join(format!("{role}.pk8"))
    }

    /// The public halves of both, for whoever makes the fleet's root.
    pub fn online_keys(&self) -> PathBuf {
        self.0.join("online-keys.json")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.0.join("controller.db")
    }

    /// Content-addressed files.
    pub fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// Uploads in progress; on the same file system as [`Layout::objects`].
    pub fn incoming(&self) -> PathBuf {
        self.objects().join("incoming")
    }

    /// One object: `objects/<aa>/<hex>`.
    pub fn object(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string();
        self.objects().join(&hex[..2]).join(&hex)
    }

    /// Sockets of this run.
    pub fn runtime(&self) -> PathBuf {
        self.0.join("run")
    }
}
