//! Says which GPUs this machine has and why one is not used.
//!
//! `gpu-probe [--allow-software]`: exit code 0 when one can be used, 1 when none can.

use std::io::{self, Write};
use std::process::ExitCode;

use gpu_kernels::probe::{AllowSoftware, PROBE_WAIT, Probe, adapters};

fn main() -> io::Result<ExitCode> {
    let mut software = AllowSoftware::No;
    for argument in std::env::args().skip(1) {
        if argument != "--allow-software" {
            writeln!(
                io::stderr().lock(),
                "gpu-probe: `{argument}` is not known; the one option is --allow-software"
            )?;
            return Ok(ExitCode::from(2));
        }
        software = AllowSoftware::Yes;
    }
    let probe = adapters(software, PROBE_WAIT);
    say(&probe, &mut io::stdout().lock())?;
    Ok(if probe.chosen().is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(probe: &Probe, out: &mut impl Write) -> io::Result<()> {
    for adapter in &probe.adapters {
        writeln!(
            out,
            "{} ({:?}, {}, driver {})",
            adapter.name, adapter.kind, adapter.backend, adapter.driver
        )?;
        writeln!(
            out,
            "  {:?}, buffers up to {} bytes",
            adapter.features, adapter.buffer_bytes_max
        )?;
        match &adapter.usable {
            Ok(()) => writeln!(out, "  usable")?,
            Err(refusal) => writeln!(out, "  refused: {refusal}")?,
        }
    }
    if let Some(absence) = &probe.absence {
        writeln!(out, "{absence}")?;
        let mut cause = std::error::Error::source(absence);
        while let Some(next) = cause {
            writeln!(out, "  because {next}")?;
            cause = next.source();
        }
    }
    Ok(())
}
