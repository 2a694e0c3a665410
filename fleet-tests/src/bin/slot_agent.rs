//! `socle-slot-agent`: a small agent for the releases of the power-cut test. As gateway it says which release it was
//! started from and ends; as updater it becomes the real one.

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

/// As in `blocks::machine`: linking that would bring the whole library along, and this is hashed at every start.
const UPDATER_VARIABLE: &str = "SOCLE_CRASH_UPDATER";

fn main() -> ExitCode {
    match run(env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "socle-slot-agent: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: Vec<OsString>) -> io::Result<()> {
    let role = words.first().and_then(|word| word.to_str()).unwrap_or_default();
    match role {
        "--self-check" => {
            // The real one says as well which protocol its gateway and its worker speak; this one has none of either.
            let version = env!("CARGO_PKG_VERSION");
            writeln!(io::stdout().lock(), "{{\"version\":\"{version}\"}}")
        }
        "gateway" => {
            let release = env::var("SOCLE_RELEASE").unwrap_or_default();
            let release = if release.is_empty() { "factory" } else { &release };
            writeln!(io::stdout().lock(), "gateway of {release}")
        }
        "updater" => {
            let updater = env::var_os(UPDATER_VARIABLE)
                .ok_or_else(|| io::Error::other(format!("{UPDATER_VARIABLE} is not set")))?;
            Err(Command::new(updater).args(words).exec())
        }
        other => Err(io::Error::other(format!("no role `{other}`"))),
    }
}
