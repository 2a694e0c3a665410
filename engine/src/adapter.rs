//! What this machine computes on. Until the kernels run whole models, that is the CPU; an adapter is reported so that an
//! operator sees what the machine has.

use gpu_kernels::probe::{AllowSoftware, PROBE_WAIT, Probe, adapters};

/// What runs the models, and which adapters were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterReport {
    /// What runs the models.
    pub engine: &'static str,
    /// The adapter that kernels may use, with its driver.
    pub adapter: Option<String>,
    /// For each adapter that is not used, or for there being none: why.
    pub refused: Vec<String>,
}

/// Asks the graphics driver; returns within its own time-out even when the driver hangs. Touches the GPU: workers only.
pub fn report(software: AllowSoftware) -> AdapterReport {
    describe(&adapters(software, PROBE_WAIT))
}

fn describe(probe: &Probe) -> AdapterReport {
    let adapter = probe
        .chosen()
        .map(|adapter| format!("{} ({}, {})", adapter.name, adapter.driver, adapter.backend));
    let refused = probe.adapters.iter().filter_map(|adapter| adapter.usable.as_ref().err());
    let refused = refused.map(ToString::to_string);
    let refused = refused.chain(probe.absence.as_ref().map(ToString::to_string)).collect();
    AdapterReport { engine: "cpu (tract)", adapter, refused }
}

impl AdapterReport {
    /// One line for a person.
    pub fn line(&self) -> String {
        let adapter = self.adapter.as_ref().map(|adapter| format!("; adapter seen: {adapter}"));
        let refused = self.refused.iter().map(|reason| format!("; {reason}"));
        std::iter::once(self.engine.to_owned()).chain(adapter).chain(refused).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpu_kernels::probe::{AdapterFeatures, AdapterInfo, AdapterKind, Refusal};

    fn adapter(name: &str, usable: Result<(), Refusal>) -> AdapterInfo {
        let features = AdapterFeatures {
            f16: false,
            subgroups: false,
            timestamps: false,
            packed_dot: false,
            pipeline_cache: false,
        };
        AdapterInfo {
            name: name.into(),
            driver: "driver 1.2".into(),
            backend: "vulkan".into(),
            kind: AdapterKind::Other,
            features,
            buffer_bytes_max: 1,
            usable,
        }
    }

    #[test]
    fn the_line_names_what_runs_and_what_was_refused() {
        let refusal = Refusal::Software { name: "soft".into() };
        let because = refusal.to_string();
        let adapters = vec![adapter("gpu", Ok(())), adapter("soft", Err(refusal))];
        let report = describe(&Probe { adapters, absence: None });
        let expected = format!("cpu (tract); adapter seen: gpu (driver 1.2, vulkan); {because}");
        assert_eq!(report.line(), expected);
    }
}
