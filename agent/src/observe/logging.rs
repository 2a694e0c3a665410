//! Logs: to the journal when standard error is connected to it, else to standard error.

use std::{env, io};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged when `RUST_LOG` says nothing.
const DEFAULT_FILTER: &str = "info,rumqttc=warn,tract=warn,hyper=warn";

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `RUST_LOG` is not a filter.
    #[error(
        "RUST_LOG=`{text}` is not a log filter; use something like `info` or `agent=debug,warn`"
    )]
    Filter {
        /// What it says.
        text: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Set up twice.
    #[error("setting up logs")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up the logs of this process, whose role (`gateway`, `worker`, …) is its identifier in the journal.
///
/// systemd sets `JOURNAL_STREAM` when standard error is its journal; a journal that cannot be reached then is no reason
/// not to start, so standard error is used.
///
/// # Errors
/// `RUST_LOG` is wrong.
pub fn start(role: &str) -> Result<(), LoggingError> {
    let text = env::var("RUST_LOG").unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let filter =
        EnvFilter::try_new(&text).map_err(|source| LoggingError::Filter { text, source })?;
    let journal = env::var_os("JOURNAL_STREAM")
        .and_then(|_| tracing_journald::layer().ok())
        .map(|layer| layer.with_syslog_identifier(format!("socle-{role}")));
    let stderr = journal.is_none().then(|| {
        fmt::layer().compact().with_target(false).with_ansi(false).with_writer(io::stderr)
    });
    tracing_subscriber::registry().with(filter).with(journal).with(stderr).try_init()?;
    Ok(())
}

/// An error with all its causes, for one log line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(reason) = cause {
        text.push_str(": ");
        text.push_str(&reason.to_string());
        cause = reason.source();
    }
    text
}
