//! The arguments of `socle demo`.

use std::path::PathBuf;

use clap::Args;

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
