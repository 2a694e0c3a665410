//! What a worker process may take of the machine. A hostile model that wants more ends its own process, and nothing else.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Memory that a worker needs besides its models: code, stacks, frames, the graphics driver.
pub const BASE_MEMORY_BYTES: u64 = 512 * 1024 * 1024;

/// A limit that could not be set.
#[derive(Debug, thiserror::Error)]
#[error("limiting this worker's {what} to {most}")]
pub struct LimitError {
    what: &'static str,
    most: u64,
    source: io::Error,
}

/// Limits this process, for good, to `models_memory_bytes` besides what it needs itself, but never to more than the
/// machine has, and to no core file: a core file would hold what was asked. Counted is memory that the process can write
/// (`RLIMIT_DATA`), not address space, of which graphics drivers reserve much more than they use.
///
/// # Errors
/// The kernel refuses, as when a hard limit is already lower.
pub fn apply(models_memory_bytes: u64) -> Result<(), LimitError> {
    let most = models_memory_bytes.saturating_add(BASE_MEMORY_BYTES).min(machine_bytes());
    for (what, resource, most) in
        [("memory", Resource::Data, most), ("core file", Resource::Core, 0)]
    {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|reason| LimitError {
            what,
            most,
            source: reason.into(),
        })?;
    }
    Ok(())
}

/// What this machine has of memory; all there could be where the kernel does not say.
fn machine_bytes() -> u64 {
    kib_of("/proc/meminfo", "MemTotal:").map_or(u64::MAX, |kib| kib.saturating_mul(1024))
}

/// What this process holds in memory; 0 where the kernel does not say.
pub fn resident_bytes() -> u64 {
    kib_of("/proc/self/status", "VmRSS:").unwrap_or(0) * 1024
}

fn kib_of(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Set in the child that the test starts from its own executable.
    const CHILD: &str = "ENGINE_TEST_LIMITED_CHILD";

    #[test]
    fn a_process_cannot_take_more_than_its_limit() {
        if std::env::var_os(CHILD).is_some() {
            apply(64 * 1024 * 1024).unwrap();
            let mut within: Vec<u8> = Vec::new();
            assert!(within.try_reserve_exact(32 * 1024 * 1024).is_ok());
            let mut above: Vec<u8> = Vec::new();
            assert!(above.try_reserve_exact(1024 * 1024 * 1024).is_err());
            return;
        }
        let name = "worker::limits::tests::a_process_cannot_take_more_than_its_limit";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn a_process_holds_something_and_less_than_the_machine_has() {
        assert!(resident_bytes() > 1024 * 1024);
        assert!(machine_bytes() > resident_bytes() && machine_bytes() < u64::MAX);
    }
}
