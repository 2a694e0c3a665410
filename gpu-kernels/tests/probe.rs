//! What a probe says of machines with a software adapter, without a driver, without a loader.
//!
//! Each machine is a fresh process: the loader reads its environment once.

use std::fs::File;
use std::process::{Command, Output};

use gpu_kernels::probe::{AdapterKind, AllowSoftware, PROBE_WAIT, Refusal, adapters};

#[test]
fn the_software_adapter_is_found_and_refused() {
    let software = |allow| {
        let probe = adapters(allow, PROBE_WAIT * 6);
        let found =
            probe.adapters.iter().find(|adapter| adapter.kind == AdapterKind::Software).cloned();
        found.unwrap_or_else(|| {
            panic!(
                "no software adapter among {:?} ({:?}): apt-get install -y mesa-vulkan-drivers \
                 libvulkan1",
                probe.adapters, probe.absence
            )
        })
    };
    let refused = software(AllowSoftware::No);
    assert_eq!(refused.usable, Err(Refusal::Software { name: refused.name.clone() }));
    let allowed = software(AllowSoftware::Yes);
    assert_eq!(allowed.usable, Ok(()));
    assert!(!allowed.driver.is_empty() && allowed.backend == "vulkan", "{allowed:?}");
}

#[test]
fn a_machine_without_a_driver_is_told_what_to_install() {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_gpu-probe"));
    probe.env("VK_DRIVER_FILES", "/nonexistent.json").env("VK_ICD_FILENAMES", "/nonexistent.json");
    expect_none(&probe.arg("--allow-software").output().unwrap());
}

#[test]
fn a_machine_without_a_loader_is_told_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libvulkan.so.1", "libvulkan.so"] {
        File::create(folder.path().join(name)).unwrap();
    }
    let mut probe = Command::new(env!("CARGO_BIN_EXE_gpu-probe"));
    expect_none(
        &probe.arg("--allow-software").env("LD_LIBRARY_PATH", folder.path()).output().unwrap(),
    );
}

#[test]
fn an_unknown_option_is_named() {
    let said = Command::new(env!("CARGO_BIN_EXE_gpu-probe")).arg("--fast").output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("`--fast`"), "{said:?}");
}

fn expect_none(said: &Output) {
    let text = String::from_utf8_lossy(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(
        text.starts_with("no GPU is seen (") && text.contains("install `libvulkan1`"),
        "{said:?}"
    );
    assert!(!String::from_utf8_lossy(&said.stderr).contains("panicked"), "{said:?}");
}
