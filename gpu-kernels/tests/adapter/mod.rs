//! The adapter that the kernel tests run on: a GPU where there is one, else the software one.

use std::time::Duration;

use gpu_kernels::device::{Gpu, OpenRequest};
use gpu_kernels::probe::AllowSoftware;

/// A busy machine may take long over a software adapter; a hang must still end the test.
pub(crate) const WAIT: Duration = Duration::from_secs(120);

/// Opens it, or fails the test by saying what to install.
#[expect(clippy::panic, reason = "a test fails by panicking")]
pub(crate) fn opened(memory_bytes_max: u64) -> Gpu {
    Gpu::open(OpenRequest { software: AllowSoftware::Yes, memory_bytes_max, wait: WAIT })
        .unwrap_or_else(|why| {
            panic!(
                "no Vulkan adapter to test kernels on: {why:?}\n\
                 install the software one: apt-get install -y mesa-vulkan-drivers libvulkan1"
            )
        })
}
