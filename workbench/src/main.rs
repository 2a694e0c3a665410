//! `socle`: reads clock and arguments, prints the result or the whole chain of why there is none.

use std::{
    error::Error as _,
    io::Write as _,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Parser as _;
use protocol::time::UnixMs;
use serde_json::json;
use workbench::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Err(error) = cli::run(&cli, now()) else { return ExitCode::SUCCESS };
    let mut chain = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        chain.push(cause.to_string());
        source = cause.source();
    }
    let text = if cli.json {
        json!({ "error": chain.join(": ") }).to_string()
    } else {
        format!("error: {}", chain.join("\n  because: "))
    };
    match writeln!(std::io::stderr().lock(), "{text}") {
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

#[expect(clippy::disallowed_methods, reason = "main alone reads the clock")]
fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
