//! `socle demo`: its arguments, and how it ends.

use std::{io, path::PathBuf};

use clap::Args;

use crate::{
    demo::{script, stage, timeline},
    terminal::Terminal,
};

/// Arguments of `socle demo`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  socle demo --model ~/.cache/socle/models/minilm-int8\n  socle demo --model DIR --keep          leaves everything running and prints the addresses\n  socle demo --model DIR --json          one JSON object with every check\n\nExit code 0 only if every check held."
)]
pub struct DemoArgs {
    /// Folder with model.onnx and tokenizer.json (all-MiniLM-L6-v2)
    #[arg(long)]
    pub model: PathBuf,
    /// Folder with the other programs; default: where this one lies
    #[arg(long)]
    pub bin_dir: Option<PathBuf>,
    /// An outside broker, mqtts://host:port; needs --state made ready, see docs/guides/broker.md
    #[arg(long, requires = "state")]
    pub broker: Option<String>,
    /// Folder for keys, certificates and state; default: a temporary one, removed afterwards
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Leave everything running until Enter or Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

/// Why the demo could not be told to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A step failed.
    #[error("the demo stopped at: {step}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        source: Box<stage::StepError>,
    },
    /// The story was told, but not every check held.
    #[error("{0} of {1} checks did not hold")]
    Checks(usize, usize),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle demo`.
pub fn run(args: &DemoArgs, terminal: &Terminal) -> Result<(), DemoError> {
    let mut timeline = timeline::Timeline::start(*terminal);
    let told = script::tell(args, &mut timeline);
    timeline.finish(told.as_ref().err().map(|failure| failure.to_string()))?;
    told?;
    match timeline.failed() {
        0 => Ok(()),
        failed => Err(DemoError::Checks(failed, timeline.checked())),
    }
}
