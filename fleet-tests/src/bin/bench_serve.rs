//! `bench-serve`: our agent beside Triton and MLServer under the same open-loop load.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use fleet_tests::serving::{
    contest::{self, Kept, Plan, Rival, Way},
    ours::Ours,
    peers::{Ground, Peer, Share, text_body},
    table,
};
use serde::Serialize;

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
    /// Leave a server out; repeat for several.
    #[arg(long, value_enum)]
    skip: Vec<Server>,
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    /// Ours.
    Socle,
    /// NVIDIA's.
    Triton,
    /// Seldon's.
    Mlserver,
}

#[derive(Serialize)]
struct Figures {
    form: String,
    peer_form: String,
    share: Share,
    plan: Plan,
    kept: Vec<Kept>,
    ways: Vec<Way>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "bench-serve: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("socle-bench-").tempdir()?;
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
    let models = std::path::absolute(&cli.models)?;
    let encoder = models.join(format!("{}.onnx", cli.form));
    let with = |server: Server| !cli.skip.contains(&server);
    let place = |name: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).map(|()| place)
    };
    let ground = |python: &PathBuf| Ground {
        python: python.clone(),
        scripts: cli.scripts.clone(),
        encoder: models.join(format!("{}.onnx", cli.peer_form)),
        dim: cli.dim,
        share: cli.share,
    };
    let mut rivals = Vec::new();
    let mut peers = Vec::new();
    let mut socle = None;
    if with(Server::Socle) {
        say("starting our agent");
        let ours = Ours::start(&place("socle")?, &cli.bin_dir, &encoder, cli.dim)?;
        rivals.push(ours_as_rival(&ours)?);
        socle = Some(ours);
    }
    if with(Server::Triton) {
        say("starting Triton");
        let peer = Peer::triton(&place("triton")?, &ground(&cli.triton))?;
        rivals.push(rival("Triton", &peer));
        peers.push(peer);
    }
    if with(Server::Mlserver) {
        say("starting MLServer");
        let peer = Peer::mlserver(&place("mlserver")?, &ground(&cli.mlserver))?;
        rivals.push(rival("MLServer", &peer));
        peers.push(peer);
    }
    let texts = contest::texts(&models.join("tokenizer.json"), &cli.words, cli.seed)?;
    let ways = contest::ways(&rivals, &plan)?;
    let kept = contest::rates(&rivals, &texts, &plan, &mut say)?;
    for peer in peers {
        peer.end()?;
    }
    if let Some(ours) = socle {
        ours.end()?;
    }
    let mut out = io::stdout().lock();
    if cli.json {
        let (form, peer_form) = (cli.form.clone(), cli.peer_form.clone());
        let figures = Figures { form, peer_form, share: cli.share, plan, kept, ways };
        writeln!(out, "{}", serde_json::to_string(&figures)?)?;
    } else {
        for line in table::all(&kept, &ways, cli.limit_ms) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn ours_as_rival(ours: &Ours) -> anyhow::Result<Rival> {
    let small = text_body("ready", "[1]");
    let json = |name: &str, target| (format!("socle, {name}"), target, small.clone());
    Ok(Rival {
        name: "socle".to_owned(),
        encoder: ours.tcp("encoder").context("finding our agent")?,
        shape: "[1]",
        ways: vec![
            json("JSON over a Unix socket", ours.unix("identity")),
            json("JSON over TCP", ours.tcp("identity")?),
        ],
    })
}

fn rival(name: &str, peer: &Peer) -> Rival {
    let numbers =
        r#"{"inputs":[{"name":"numbers","datatype":"FP32","shape":[8],"data":[1,2,3,4,5,6,7,8]}]}"#;
    Rival {
        name: name.to_owned(),
        encoder: peer.target("encoder"),
        shape: "[1,1]",
        ways: vec![(format!("{name}, JSON over TCP"), peer.target("identity"), numbers.to_owned())],
    }
}

fn say(words: &str) {
    drop(writeln!(io::stderr().lock(), "{words}"));
}
