//! Every path below a device's state folder, in one place.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{digest::Digest, id::Slot};

use crate::disk::Disk;

/// A device's state folder, by default `/var/lib/socle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir(PathBuf);

/// An installed release's folder: slot `a` or `b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotDir(PathBuf);

impl StateDir {
    /// The state folder at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// Keys, certificates and fleet of this device; the gateway's.
    pub fn identity(&self) -> PathBuf {
        self.0.join("identity")
    }

    /// What enrolment answered, without secrets: JSON of `protocol::enrol::Enrolled`.
    pub fn fleet(&self) -> PathBuf {
        self.identity().join("fleet.json")
    }

    /// The folder of the trusted root.
    pub fn trust(&self) -> PathBuf {
        self.0.join("trust")
    }

    /// The newest root this device trusts.
    pub fn trusted_root(&self) -> PathBuf {
        self.trust().join("root.json")
    }

    /// A root that this device trusts or trusted: what is installed was signed under one of them.
    pub fn known_root(&self, version: u64) -> PathBuf {
        self.trust().join(format!("{version}.root.json"))
    }

    /// The newest versions of the metadata that this device has seen.
    pub fn seen(&self) -> PathBuf {
        self.trust().join("seen.json")
    }

    /// Whom this device obeys: JSON of `protocol::enrol::Authority`.
    pub fn authority(&self) -> PathBuf {
        self.trust().join("authority.json")
    }

    /// The folder of the boot record.
    pub fn boot(&self) -> PathBuf {
        self.0.join("boot")
    }

    /// The boot record: 8 KiB, two copies.
    pub fn record(&self) -> PathBuf {
        self.boot().join("record")
    }

    /// Held for the moment of reading, deciding and writing the boot record.
    pub fn record_lock(&self) -> PathBuf {
        self.boot().join("lock")
    }

    /// Held by the updater for as long as it runs.
    pub fn updater_lock(&self) -> PathBuf {
        self.boot().join("updater.lock")
    }

    /// The folder of both slots.
    pub fn slots(&self) -> PathBuf {
        self.0.join("slots")
    }

    /// One slot.
    pub fn slot(&self, slot: Slot) -> SlotDir {
        SlotDir(self.slots().join(slot.as_str()))
    }

    /// The content store.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// What the gateway leaves for the updater.
    pub fn staging(&self) -> PathBuf {
        self.0.join("staging")
    }

    /// Downloaded objects by digest.
    pub fn staged_objects(&self) -> PathBuf {
        self.staging().join("objects")
    }

    /// One downloaded object, complete.
    pub fn staged_object(&self, digest: &Digest) -> PathBuf {
        self.staged_objects().join(digest.to_string())
    }

    /// One object while it is being downloaded.
    pub fn staged_part(&self, digest: &Digest) -> PathBuf {
        self.staged_objects().join(format!("{digest}.part"))
    }

    /// Room on the disk that the gateway holds until the updater makes its own copies.
    pub fn reserved(&self) -> PathBuf {
        self.staging().join("reserved")
    }

    /// The operator's wishes about downloads: mirrors and a limit.
    pub fn transport(&self) -> PathBuf {
        self.0.join("transport.toml")
    }

    /// A `protocol::handover::Request`.
    pub fn request(&self) -> PathBuf {
        self.staging().join("request.cbor")
    }

    /// A `protocol::handover::Verdict`.
    pub fn verdict(&self) -> PathBuf {
        self.staging().join("verdict.cbor")
    }

    /// The newest halt, exactly as the controller signed it.
    pub fn halt(&self) -> PathBuf {
        self.staging().join("halt.cbor")
    }

    /// The gateway's outbox.
    pub fn outbox(&self) -> PathBuf {
        self.0.join("outbox")
    }

    /// Makes the folders that are missing, durably. Folders that exist are left as they are.
    ///
    /// As long as there is no boot record, whoever made them may have been stopped before they were durable.
    pub fn prepare(&self, disk: &dyn Disk) -> io::Result<()> {
        let folders = [
            self.0.clone(),
            self.boot(),
            self.trust(),
            self.slots(),
            self.store(),
            self.store().join("sha256"),
            self.store().join("tmp"),
            self.staging(),
            self.staged_objects(),
        ];
        let mut settled = matches!(disk.length(&self.record()), Ok(Some(_)));
        for folder in folders {
            if disk.list(&folder).is_err() {
                disk.create_dir(&folder)?;
                settled = false;
            }
        }
        if !settled {
            // What lies deeper holds nothing yet that must not be lost with its folder.
            disk.sync_dir(above(&self.0))?;
            disk.sync_dir(&self.0)?;
        }
        Ok(())
    }
}

impl SlotDir {
    /// A slot at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The documents that prove the release.
    pub fn release(&self) -> PathBuf {
        self.0.join("release")
    }

    /// The manifest, byte for byte as signed.
    pub fn manifest(&self) -> PathBuf {
        self.release().join("manifest.json")
    }

    /// The top-level targets metadata.
    pub fn targets(&self) -> PathBuf {
        self.release().join("targets.json")
    }

    /// The folder of delegated roles' metadata.
    pub fn roles(&self) -> PathBuf {
        self.release().join("roles")
    }

    /// A delegated role's metadata. `role` comes from a verified document, which names no other folder.
    pub fn role(&self, role: &str) -> PathBuf {
        self.roles().join(format!("{role}.json"))
    }

    /// The root under which the release was verified.
    pub fn root(&self, version: u64) -> PathBuf {
        self.release().join(format!("{version}.root.json"))
    }

    /// The agent's executable.
    pub fn agent(&self) -> PathBuf {
        self.0.join("bin").join("socle-agent")
    }

    /// The models.
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// The stamp of a committed release.
    pub fn stamp(&self) -> PathBuf {
        self.0.join("COMMITTED")
    }

    /// A file of the release. `path` comes from a parsed manifest, which cannot leave the slot.
    pub fn file(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

/// The folder that holds `path`; the working folder for a bare name.
fn above(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_lies_in_the_working_folder() {
        for (path, folder) in [("device-1", "."), ("./device-1", "."), ("a/b", "a"), ("/a", "/")] {
            assert_eq!(above(Path::new(path)), Path::new(folder), "{path}");
        }
    }
}
