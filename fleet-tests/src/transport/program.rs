//! Programs that are run to their end, timed, with the most memory they ever held.

use std::{
    ffi::OsStr,
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

/// Time between two looks at a running program. Its high-water mark only rises, so little is missed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a run cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// The most resident memory the kernel ever counted (`VmHWM`), in bytes.
    pub memory_bytes: u64,
}

/// Runs `program` with `arguments` to its end.
pub fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> anyhow::Result<Cost> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let began = now();
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let mut memory_bytes = 0;
    loop {
        memory_bytes = memory_bytes.max(high_water(&child).unwrap_or_default());
        if let Some(status) = child.try_wait().with_context(|| format!("waiting for {program}"))? {
            let seconds = began.elapsed().as_secs_f64();
            ensure!(status.success(), "{program} ended with {status}");
            return Ok(Cost { seconds, memory_bytes });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What `program` prints.
pub fn output<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> anyhow::Result<String> {
    let done = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !done.status.success() {
        bail!("{program} ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// `VmHWM` of this process, in bytes.
pub fn own_high_water() -> Option<u64> {
    mark("self")
}

/// The present of a clock that only goes on.
#[expect(clippy::disallowed_methods, reason = "durations are what is measured here")]
pub fn now() -> Instant {
    Instant::now()
}

fn high_water(child: &Child) -> Option<u64> {
    mark(&child.id().to_string())
}

fn mark(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
