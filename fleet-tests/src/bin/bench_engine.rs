//! `bench-engine`: the engine beside onnxruntime, OpenVINO and fastembed.

use std::{
    io::{self, Write as _},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use fleet_tests::bench::{
    course::{self, Corpus, Plan},
    field::{FIELD, Ground},
    resident::{self, From, Load},
    tables::{self, By},
};

/// Measures the engine beside its peers: interleaved, medians, same threads.
#[derive(Parser)]
#[command(name = "bench-engine", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts everyone and measures in turn
    Compare(Compare),
    /// Our engine as one of those who are asked
    Resident(Resident),
}

#[derive(Args)]
struct Compare {
    /// Python with the peers.
    #[arg(long)]
    python: PathBuf,
    /// resident.py
    #[arg(long)]
    script: PathBuf,
    /// Folder with the forms of the model and its tokenizer.
    #[arg(long)]
    models: PathBuf,
    /// Width of an embedding.
    #[arg(long, default_value_t = 384)]
    dim: u32,
    /// Sentences whose embeddings are compared, one a line.
    #[arg(long)]
    sentences: PathBuf,
    /// Files whose words make up the texts.
    #[arg(long, required = true)]
    words: Vec<PathBuf>,
    /// Threads; repeat for several.
    #[arg(long)]
    threads: Vec<NonZeroUsize>,
    /// Lengths of single texts, in tokens.
    #[arg(long, value_delimiter = ',', default_values_t = [16, 32, 64, 128, 256])]
    lengths: Vec<usize>,
    /// Sizes of the batches.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 16, 32])]
    batches: Vec<usize>,
    /// Rounds of single texts.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Rounds of batches.
    #[arg(long, default_value_t = 5)]
    batch_rounds: usize,
    /// Only those whose name (`socle q8`, `onnxruntime dynamic8`) has this in it; repeat for several.
    #[arg(long)]
    only: Vec<String>,
    /// Which time the tables show; the JSON has both.
    #[arg(long, value_enum, default_value_t = By::Wall)]
    by: By,
    /// Seed of words, lengths and their order.
    #[arg(long, default_value_t = 20_261_123)]
    seed: u64,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Resident {
    /// The graph.
    model: PathBuf,
    /// Its tokenizer.
    tokenizer: PathBuf,
    /// Width of an embedding.
    #[arg(long, default_value_t = 384)]
    dim: u32,
    /// Longest sequence.
    #[arg(long, default_value_t = 256)]
    tokens_max: u32,
    /// Threads for one batch.
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Where timing begins.
    #[arg(long, value_enum, default_value_t = From::Ids)]
    from: From,
}

fn main() -> ExitCode {
    let run = match Cli::parse().command {
        Command::Compare(options) => compare(&options),
        Command::Resident(options) => serve(&options),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "bench-engine: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Resident) -> anyhow::Result<()> {
    let load = Load {
        model: &options.model,
        tokenizer: &options.tokenizer,
        dim: options.dim,
        tokens_max: options.tokens_max,
        threads: options.threads,
        from: options.from,
    };
    resident::serve(&load, io::stdin().lock(), io::stdout().lock())
}

fn compare(options: &Compare) -> anyhow::Result<()> {
    let models = std::path::absolute(&options.models)?;
    let ground = Ground {
        own: std::env::current_exe().context("finding this program")?,
        python: options.python.clone(),
        script: options.script.clone(),
        models: models.clone(),
        dim: options.dim,
    };
    let tokenizer = models.join("tokenizer.json");
    let corpus =
        Corpus { tokenizer: &tokenizer, sentences: &options.sentences, words: &options.words };
    let threads = if options.threads.is_empty() {
        [1, 2].into_iter().filter_map(NonZeroUsize::new).collect()
    } else {
        options.threads.clone()
    };
    let plan = Plan {
        threads,
        lengths: options.lengths.clone(),
        batches: options.batches.clone(),
        rounds: options.rounds,
        batch_rounds: options.batch_rounds,
        seed: options.seed,
    };
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()))
    };
    let field: Vec<_> = FIELD
        .into_iter()
        .filter(|entrant| wanted(&entrant.name()) && entrant.model(&models).is_file())
        .collect();
    let mut say = |words: &str| drop(writeln!(io::stderr().lock(), "{words}"));
    let seen = course::run(&ground, &corpus, &field, &plan, &mut say)?;
    let mut out = io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&seen)?)?;
    } else {
        for line in tables::all(&seen, options.by) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
