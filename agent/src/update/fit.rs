//! Whether this machine can hold a release, from signed figures alone.

use protocol::manifest::Requires;

/// What a machine offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Such as `x86_64-linux`.
    pub platform: String,
    /// Memory there is, in bytes.
    pub memory_bytes: u64,
    /// Free space below the state folder, in bytes.
    pub disk_free_bytes: u64,
}

/// Why a release does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Built for something else.
    #[error("the release is built for {needed}, this machine is {offered}")]
    Platform {
        /// Needed.
        needed: String,
        /// Offered.
        offered: String,
    },
    /// Too little memory.
    #[error("the release needs {needed} bytes of memory, this machine has {offered}")]
    Memory {
        /// Needed.
        needed: u64,
        /// Offered.
        offered: u64,
    },
    /// Too little disk.
    #[error(
        "installing the release needs {needed} bytes of disk, {offered} are free; free some space below the state folder"
    )]
    Disk {
        /// Needed.
        needed: u64,
        /// Offered.
        offered: u64,
    },
}

/// The platform this program was built for.
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// Holds if `host` can take a release that still needs `new_bytes` of disk.
pub fn fits(host: &Host, requires: &Requires, new_bytes: u64) -> Result<(), Unfit> {
    if requires.platform != host.platform {
        let (needed, offered) = (requires.platform.clone(), host.platform.clone());
        return Err(Unfit::Platform { needed, offered });
    }
    if requires.memory_bytes > host.memory_bytes {
        return Err(Unfit::Memory { needed: requires.memory_bytes, offered: host.memory_bytes });
    }
    if new_bytes > host.disk_free_bytes {
        return Err(Unfit::Disk { needed: new_bytes, offered: host.disk_free_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_or_foreign_does_not_fit() {
        let host = Host { platform: "x86_64-linux".into(), memory_bytes: 100, disk_free_bytes: 50 };
        let requires = |platform: &str, memory_bytes| Requires {
            platform: platform.into(),
            memory_bytes,
            disk_bytes: 1 << 40,
        };
        assert_eq!(fits(&host, &requires("x86_64-linux", 100), 50), Ok(()));
        let cases = [("aarch64-linux", 1, 1), ("x86_64-linux", 101, 1), ("x86_64-linux", 1, 51)];
        for (platform, memory, new) in cases {
            assert!(fits(&host, &requires(platform, memory), new).is_err(), "{platform} {memory}");
        }
    }
}
