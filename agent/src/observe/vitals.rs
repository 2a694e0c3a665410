//! Figures of the host and of this gateway, for the telemetry report.

use std::path::PathBuf;

use protocol::report::Vitals;
use sysinfo::{MemoryRefreshKind, System};

use crate::observe::tally::Tally;

/// Measures the host. Processor use is measured between two calls, so keep one sampler.
#[derive(Debug)]
pub struct Sampler {
    system: System,
    state: PathBuf,
}

/// Why the host cannot be measured.
#[derive(Debug, thiserror::Error)]
#[error("measuring the host")]
pub struct VitalsError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Sampler {
    /// A sampler; `state` is where the agent's state lies, whose free space counts.
    ///
    /// # Errors
    /// The host does not say.
    pub fn new(state: PathBuf) -> Result<Self, VitalsError> {
        let mut system = System::new().map_err(|source| VitalsError(Box::new(source)))?;
        system.refresh_cpu_usage();
        Ok(Self { system, state })
    }

    /// The figures now. Blocks for some milliseconds.
    pub fn sample(&mut self, tally: &Tally) -> Vitals {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        Vitals {
            cpu_permille: permille(self.system.global_cpu_usage()),
            memory_used_bytes: self.system.used_memory(),
            memory_total_bytes: self.system.total_memory(),
            disk_free_bytes: self.disk_free_bytes(),
            uptime_s: System::uptime().unwrap_or(0),
            answered: tally.answered(),
            failed: tally.failed(),
            latency_us_p99: tally.latency_us_p99(),
        }
    }

    fn disk_free_bytes(&self) -> u64 {
        match rustix::fs::statvfs(&self.state) {
            Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
            Err(reason) => {
                tracing::debug!(path = %self.state.display(), %reason, "free space is unknown");
                0
            }
        }
    }
}

/// A percentage as per mille, within 0 to 1000.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
fn permille(percent: f32) -> u32 {
    (percent * 10.0).clamp(0.0, 1000.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_memory_and_a_disk() {
        let mut sampler = Sampler::new(std::env::temp_dir()).unwrap();
        let vitals = sampler.sample(&Tally::default());
        assert!(vitals.memory_used_bytes > 0);
        assert!(vitals.memory_total_bytes >= vitals.memory_used_bytes);
        assert!(vitals.disk_free_bytes > 0);
        assert!(vitals.uptime_s > 0);
        assert!(vitals.cpu_permille <= 1000);
    }
}
