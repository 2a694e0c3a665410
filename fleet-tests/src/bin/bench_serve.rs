//! `bench-serve`: our agent beside Triton and MLServer under the same open-loop load.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use fleet_tests::serving::{
    contest::{self, Kept, Maker, Plan, Rival, Way},
    ours::Ours,
    peers::{Batches, Ground, Peer, Share},
    table,
    target::{Form, Tensor},
};
use serde::Serialize;

const ENCODER: &str = "encoder";
const IDENTITY: &str = "identity";

/// Finds the highest request rate that each server keeps, and what the way to a model costs.
#[derive(Parser)]
#[command(name = "bench-serve", version)]
struct Cli {
    /// Folder of socle-agent and socle-launch.
    #[arg(long)]
    bin_dir: PathBuf,
    /// Folder with the forms of the model and its tokenizer.
    #[arg(long)]
    models: PathBuf,
    /// Form of the model that our agent serves.
    #[arg(long, default_value = "q8")]
    form: String,
    /// Form that the peers serve.
    #[arg(long, default_value = "dynamic8")]
    peer_form: String,
    /// Width of an embedding.
    #[arg(long, default_value_t = 384)]
    dim: u32,
    /// Python with Triton.
    #[arg(long)]
    triton: PathBuf,
    /// Python with MLServer.
    #[arg(long)]
    mlserver: PathBuf,
    /// How the peers share two cores.
    #[arg(long, value_enum, default_value_t = Share::Copies)]
    share: Share,
    /// Folder of the peers' models.
    #[arg(long)]
    scripts: PathBuf,
    /// Files whose words make up the texts.
    #[arg(long, required = true)]
    words: Vec<PathBuf>,
    /// Only rows whose name holds these words, such as `gRPC`; repeat for several.
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// No rows whose name holds these words; repeat for several.
    #[arg(long, value_name = "WORDS")]
    skip: Vec<String>,
    /// Only the way to a model that does nothing, no rates.
    #[arg(long)]
    ways: bool,
    /// Seconds of a trial that count.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Requests a second of the first trial.
    #[arg(long, default_value_t = 40.0)]
    first_rate: f64,
    /// Times that a rate found is tried again.
    #[arg(long, default_value_t = 3)]
    confirmations: usize,
    /// Connections to each server, all kept alive.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// 99 of 100 requests must be answered in this time.
    #[arg(long, default_value_t = 50.0)]
    limit_ms: f64,
    /// Seed of texts and arrivals.
    #[arg(long, default_value_t = 20_261_123)]
    seed: u64,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// A row of the tables: a server, and how it is asked.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    maker: Maker,
    form: Form,
    by: By,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Tcp,
    UnixSocket,
}

const ROWS: [Row; 8] = [
    Row::new("socle, JSON over TCP", Maker::Socle, Form::Json),
    Row {
        by: By::UnixSocket,
        ..Row::new("socle, JSON over a Unix socket", Maker::Socle, Form::Json)
    },
    Row::new("socle, binary tensors", Maker::Socle, Form::Binary),
    Row::new("socle, gRPC", Maker::Socle, Form::Grpc),
    Row::new("Triton, JSON", Maker::Triton, Form::Json),
    Row::new("Triton, binary tensors", Maker::Triton, Form::Binary),
    Row::new("Triton, gRPC", Maker::Triton, Form::Grpc),
    Row::new("MLServer, JSON", Maker::Mlserver, Form::Json),
];

impl Row {
    const fn new(name: &'static str, maker: Maker, form: Form) -> Self {
        Self { name, maker, form, by: By::Tcp }
    }
}

#[derive(Serialize)]
struct Figures {
    form: String,
    peer_form: String,
    share: Share,
    plan: Plan,
    /// Of the machine, over a minute, before and after.
    load: [f64; 2],
    kept: Vec<Kept>,
    ways: Vec<Way>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let folder = tempfile::Builder::new().prefix("socle-bench-").tempdir();
    let ran = folder.context("making a working folder").and_then(|folder| {
        let ran = run(&cli, folder.path());
        if ran.is_err() {
            // What servers said of themselves is worth reading.
            say(&format!("left in {}", folder.keep().display()));
        }
        ran
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "bench-serve: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, folder: &Path) -> anyhow::Result<()> {
    let plan = Plan {
        seconds: cli.seconds,
        first_rate: cli.first_rate,
        trials: 16,
        confirmations: cli.confirmations,
        connections: cli.connections,
        limit_ms: cli.limit_ms,
        one_by_one: 400,
        rounds: 5,
        seed: cli.seed,
    };
    let holds = |words: &[String], name: &str| words.iter().any(|words| name.contains(words));
    let rows: Vec<Row> = ROWS
        .into_iter()
        .filter(|row| cli.only.is_empty() || holds(&cli.only, row.name))
        .filter(|row| !holds(&cli.skip, row.name))
        .collect();
    ensure!(!rows.is_empty(), "no row is left by --only and --skip");
    let servers = Servers::start(cli, folder, &rows)?;
    let rivals = servers.rivals(&rows)?;
    let models = std::path::absolute(&cli.models)?;
    let texts = contest::texts(&models.join("tokenizer.json"), &cli.words, cli.seed)?;
    let before = load();
    let ways = contest::ways(&rivals, &plan)?;
    let kept =
        if cli.ways { Vec::new() } else { contest::rates(&rivals, &texts, &plan, &mut say)? };
    let load = [before, load()];
    servers.end()?;
    let mut out = io::stdout().lock();
    if cli.json {
        let (form, peer_form) = (cli.form.clone(), cli.peer_form.clone());
        let figures = Figures { form, peer_form, share: cli.share, plan, load, kept, ways };
        writeln!(out, "{}", serde_json::to_string(&figures)?)?;
    } else {
        for line in table::all(&kept, &ways, cli.limit_ms) {
            writeln!(out, "{line}")?;
        }
        writeln!(
            out,
            "\nsocle serves {}, the peers {}; load of the machine {:.1} before and {:.1} after",
            cli.form, cli.peer_form, load[0], load[1]
        )?;
    }
    Ok(())
}

/// Those that rows are about.
struct Servers {
    ours: Option<Ours>,
    triton: Option<Peer>,
    mlserver: Option<Peer>,
    /// The shape of one text, as the peers want it.
    shape: &'static [i64],
}

impl Servers {
    fn start(cli: &Cli, folder: &Path, rows: &[Row]) -> anyhow::Result<Self> {
        let models = std::path::absolute(&cli.models)?;
        let model = |form: &str| models.join(format!("{form}.onnx"));
        let wanted = |maker: Maker| rows.iter().any(|row| row.maker == maker);
        let place = |name: &str| {
            say(&format!("starting {name}"));
            let place = folder.join(name);
            std::fs::create_dir(&place).map(|()| place)
        };
        let ground = |python: &PathBuf| Ground {
            python: python.clone(),
            scripts: cli.scripts.clone(),
            encoder: model(&cli.peer_form),
            dim: cli.dim,
            model: ENCODER.to_owned(),
            share: cli.share,
            batches: Batches::Triton,
        };
        let ours = || {
            Ours::start(
                &place("socle")?,
                &cli.bin_dir,
                (&model(&cli.form), cli.dim),
                &model(IDENTITY),
            )
        };
        let triton = || Peer::triton(&place("triton")?, &ground(&cli.triton));
        let mlserver = || Peer::mlserver(&place("mlserver")?, &ground(&cli.mlserver));
        Ok(Self {
            ours: wanted(Maker::Socle).then(ours).transpose()?,
            triton: wanted(Maker::Triton).then(triton).transpose()?,
            mlserver: wanted(Maker::Mlserver).then(mlserver).transpose()?,
            shape: ground(&cli.triton).shape(),
        })
    }

    fn rivals(&self, rows: &[Row]) -> anyhow::Result<Vec<Rival>> {
        rows.iter().map(|row| self.rival(row)).collect()
    }

    fn rival(&self, row: &Row) -> anyhow::Result<Rival> {
        let missing = || format!("{} was not started", row.name);
        let (name, maker) = (row.name.to_owned(), row.maker);
        let peer = match maker {
            Maker::Socle => {
                let ours = self.ours.as_ref().with_context(missing)?;
                let target = |model: &str| match row.by {
                    By::Tcp => ours.tcp(model, row.form),
                    By::UnixSocket => Ok(ours.unix(model, row.form)),
                };
                return Ok(Rival {
                    name,
                    maker,
                    encoder: target(ENCODER)?,
                    shape: &[1],
                    identity: target(IDENTITY)?,
                    // A model of texts, so that making tokens is part of our way.
                    nothing: Tensor::text("ready", &[1]),
                    processes: ours.processes(),
                });
            }
            Maker::Triton => self.triton.as_ref(),
            Maker::Mlserver => self.mlserver.as_ref(),
        };
        let peer = peer.with_context(missing)?;
        Ok(Rival {
            name,
            maker,
            encoder: peer.target(ENCODER, row.form),
            shape: self.shape,
            identity: peer.target(IDENTITY, row.form),
            nothing: Tensor::numbers(),
            processes: peer.processes(),
        })
    }

    fn end(self) -> anyhow::Result<()> {
        self.triton.into_iter().chain(self.mlserver).try_for_each(Peer::end)?;
        self.ours.map_or(Ok(()), Ours::end)
    }
}

/// How many threads wanted to run over the last minute, on average; 0 where the kernel does not say.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

fn say(words: &str) {
    drop(writeln!(io::stderr().lock(), "{words}"));
}
