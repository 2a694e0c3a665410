//! Which adapters the machine has, what they can do, and why one is not used.

use std::cmp::Reverse;
use std::time::Duration;

use crate::bounded::{Unanswered, within};

/// Time that a probe may take on a healthy machine, with room for a cold driver.
pub const PROBE_WAIT: Duration = Duration::from_secs(20);

/// Whether an adapter that computes on the CPU may be used.
///
/// Production says `No`: the CPU engine is 5 to 16 times faster than a software adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowSoftware {
    /// For tests, on machines without a GPU.
    Yes,
    /// Software adapters are listed and refused.
    No,
}

/// What kind of processor is behind an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the memory of the CPU.
    Integrated,
    /// A GPU lent to a virtual machine.
    Virtual,
    /// The CPU, posing as a GPU.
    Software,
    /// The driver does not say.
    Other,
}

/// What our kernels would use where it is there; none of it is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdapterFeatures {
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Subgroup operations.
    pub subgroups: bool,
    /// Timestamps, for measuring kernels.
    pub timestamps: bool,
    /// The shader compiler takes `dot4I8Packed`. It may still be emulated by the hardware, which
    /// only timing tells.
    pub packed_dot: bool,
    /// Compiled pipelines can be kept across starts.
    pub pipeline_cache: bool,
}

/// Why an adapter is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It computes on the CPU.
    #[error(
        "`{name}` is a software adapter, slower than the CPU engine: install the GPU's own Vulkan \
         driver, or go on without a GPU"
    )]
    Software {
        /// Its name.
        name: String,
    },
    /// A limit is below what the kernels need.
    #[error("`{name}` has {has} {limit}, the kernels need {needs}: inference stays on the CPU")]
    Limit {
        /// Its name.
        name: String,
        /// Which limit.
        limit: &'static str,
        /// What the adapter has.
        has: u64,
        /// What the kernels need.
        needs: u64,
    },
}

/// One adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// The driver's name for it.
    pub name: String,
    /// Driver and its version: the `V` of "digest D on driver V".
    pub driver: String,
    /// The interface it is reached by, for instance `vulkan`.
    pub backend: String,
    /// What is behind it.
    pub kind: AdapterKind,
    /// What it can do.
    pub features: AdapterFeatures,
    /// The largest buffer a kernel can see.
    pub buffer_bytes_max: u64,
    /// `Err` says why it is not used.
    pub usable: Result<(), Refusal>,
}

/// Why the list of adapters is empty.
#[derive(Debug, thiserror::Error)]
pub enum Absence {
    /// No loader, no driver, or no device.
    #[error(
        "no GPU is seen ({said}): install `libvulkan1` and the GPU's Vulkan driver, and let the \
         worker's user into the `render` group; until then inference runs on the CPU"
    )]
    NoAdapter {
        /// What the graphics library said.
        said: String,
    },
    /// The driver hung or panicked.
    #[error("no GPU is used: probing gave no answer")]
    Unanswered {
        /// How it failed.
        source: Unanswered,
    },
}

/// What a probe found.
#[derive(Debug)]
pub struct Probe {
    /// All adapters, the preferred one first, the refused ones too.
    pub adapters: Vec<AdapterInfo>,
    /// Set exactly when `adapters` is empty.
    pub absence: Option<Absence>,
}

impl Probe {
    /// The adapter that [`crate::device::Gpu::open`] would open.
    pub fn chosen(&self) -> Option<&AdapterInfo> {
        self.adapters.iter().find(|adapter| adapter.usable.is_ok())
    }
}

/// Lists the adapters. Returns after `wait` at the latest and never panics.
pub fn adapters(software: AllowSoftware, wait: Duration) -> Probe {
    match within(wait, "listing the GPUs", move || found(software)) {
        Err(source) => {
            Probe { adapters: Vec::new(), absence: Some(Absence::Unanswered { source }) }
        }
        Ok(Err(said)) => Probe { adapters: Vec::new(), absence: Some(Absence::NoAdapter { said }) },
        Ok(Ok(found)) => {
            Probe { adapters: found.into_iter().map(|(_, info)| info).collect(), absence: None }
        }
    }
}

/// Adapters with their descriptions, the preferred one first; an empty list is an error that
/// carries what the graphics library said. May hang: call it within [`within`].
pub(crate) fn found(software: AllowSoftware) -> Result<Vec<(wgpu::Adapter, AdapterInfo)>, String> {
    let mut asked = wgpu::InstanceDescriptor::new_without_display_handle();
    asked.backends = wgpu::Backends::VULKAN;
    let instance = wgpu::Instance::new(asked);
    let packed_dot = instance
        .wgsl_language_features()
        .contains(wgpu::WgslLanguageFeatures::Packed4x8IntegerDotProduct);
    let mut found: Vec<_> = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN))
        .into_iter()
        .map(|adapter| {
            let info = described(&adapter, packed_dot, software);
            (adapter, info)
        })
        .collect();
    if found.is_empty() {
        let none =
            pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()));
        return Err(none.err().map_or_else(|| "it came and went".into(), |why| why.to_string()));
    }
    found.sort_by_key(|(_, info)| (Reverse(preference(info.kind)), info.name.clone()));
    Ok(found)
}

fn described(adapter: &wgpu::Adapter, packed_dot: bool, software: AllowSoftware) -> AdapterInfo {
    let info = adapter.get_info();
    let features = adapter.features();
    let limits = adapter.limits();
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        wgpu::DeviceType::Other => AdapterKind::Other,
    };
    AdapterInfo {
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        backend: info.backend.to_string(),
        kind,
        features: AdapterFeatures {
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            packed_dot,
            pipeline_cache: features.contains(wgpu::Features::PIPELINE_CACHE),
        },
        buffer_bytes_max: limits.max_buffer_size.min(limits.max_storage_buffer_binding_size),
        usable: usable(&info.name, kind, &limits, software),
        name: info.name,
    }
}

fn usable(
    name: &str,
    kind: AdapterKind,
    limits: &wgpu::Limits,
    software: AllowSoftware,
) -> Result<(), Refusal> {
    if kind == AdapterKind::Software && software == AllowSoftware::No {
        return Err(Refusal::Software { name: name.into() });
    }
    let needs = [
        (
            "bytes of workgroup memory",
            limits.max_compute_workgroup_storage_size.into(),
            WORKGROUP_BYTES,
        ),
        (
            "invocations per workgroup",
            limits.max_compute_invocations_per_workgroup.into(),
            INVOCATIONS,
        ),
        (
            "storage buffers per shader",
            limits.max_storage_buffers_per_shader_stage.into(),
            STORAGE_BUFFERS,
        ),
        ("bytes per buffer", limits.max_buffer_size, BUFFER_BYTES),
    ];
    match needs.into_iter().find(|(_, has, needs)| has < needs) {
        Some((limit, has, needs)) => Err(Refusal::Limit { name: name.into(), limit, has, needs }),
        None => Ok(()),
    }
}

/// Workgroup memory of the largest tile of any kernel.
const WORKGROUP_BYTES: u64 = 16 * 1024;
/// Threads in the largest workgroup of any kernel.
const INVOCATIONS: u64 = 256;
/// Storage bindings of the kernel that has most.
const STORAGE_BUFFERS: u64 = 5;
/// Room for the largest single tensor of the smallest models.
const BUFFER_BYTES: u64 = 128 * 1024 * 1024;

fn preference(kind: AdapterKind) -> u8 {
    match kind {
        AdapterKind::Discrete => 4,
        AdapterKind::Virtual => 3,
        AdapterKind::Integrated => 2,
        AdapterKind::Other => 1,
        AdapterKind::Software => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_is_refused_unless_allowed() {
        let limits = wgpu::Limits::default();
        let judged = |kind, software| usable("x", kind, &limits, software);
        assert_eq!(
            judged(AdapterKind::Software, AllowSoftware::No),
            Err(Refusal::Software { name: "x".into() })
        );
        assert_eq!(judged(AdapterKind::Software, AllowSoftware::Yes), Ok(()));
        assert_eq!(judged(AdapterKind::Discrete, AllowSoftware::No), Ok(()));
    }

    #[test]
    fn a_limit_below_need_is_named() {
        let limits =
            wgpu::Limits { max_compute_workgroup_storage_size: 4096, ..wgpu::Limits::default() };
        let refusal = usable("old", AdapterKind::Discrete, &limits, AllowSoftware::No).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "`old` has 4096 bytes of workgroup memory, the kernels need 16384: inference stays on \
             the CPU"
        );
    }

    #[test]
    fn own_memory_is_preferred_and_software_comes_last() {
        let kinds = [
            AdapterKind::Discrete,
            AdapterKind::Virtual,
            AdapterKind::Integrated,
            AdapterKind::Other,
            AdapterKind::Software,
        ];
        assert!(kinds.is_sorted_by_key(|kind| Reverse(preference(*kind))));
    }
}
