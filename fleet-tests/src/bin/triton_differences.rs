//! `triton-differences`: a running agent and a Triton with the same model, asked the same things.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand};
use fleet_tests::serving::{
    differences::{self, Asked, Differences, Server, Servers, Verdict},
    peers::{Batches, Ground, Peer, Share, VERSION},
    wire::{Address, Connection},
};
use serde_json::{Value, json};

/// Where an agent answers otherwise than Triton.
#[derive(Parser)]
#[command(name = "triton-differences", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Folder of the scripts and of the written list.
    #[arg(long, global = true, default_value = "fleet-tests/peers/serve")]
    scripts: PathBuf,
}

#[derive(Subcommand)]
enum What {
    /// Asks both; fails where they differ otherwise than the written list says.
    Ask(Ask),
    /// Writes the list into the page that shows it.
    Write {
        /// The page.
        #[arg(long)]
        page: PathBuf,
    },
}

#[derive(Args)]
struct Ask {
    /// Where the agent answers, as 127.0.0.1:PORT; its token is read from standard input.
    #[arg(long)]
    agent: SocketAddr,
    /// The model that is asked.
    #[arg(long)]
    model: String,
    /// The folder of that model, whose model.onnx and tokenizer.json Triton is given.
    #[arg(long)]
    model_dir: PathBuf,
    /// Python with Triton and its clients.
    #[arg(long)]
    triton: PathBuf,
    /// Print one JSON object instead of a list.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "triton-differences: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether all that was asked is as written.
fn run(cli: &Cli) -> anyhow::Result<bool> {
    let list = Differences::read(&cli.scripts.join("triton-differences.toml"))?;
    match &cli.what {
        What::Write { page } => write(page, &list).map(|()| true),
        What::Ask(ask) => {
            let asked = asked(ask, &cli.scripts)?;
            let verdict = list.judge(&asked);
            print(ask, &list, &asked, &verdict)?;
            Ok(verdict.holds())
        }
    }
}

fn asked(cli: &Ask, scripts: &Path) -> anyhow::Result<Vec<Asked>> {
    let mut token = String::new();
    io::stdin().read_to_string(&mut token).context("reading the token")?;
    let token = token.trim();
    let (version, dim) = described(cli, token)?;
    let folder = tempfile::Builder::new().prefix("socle-triton-").tempdir()?;
    let ground = Ground {
        python: cli.triton.clone(),
        scripts: std::path::absolute(scripts)?,
        encoder: std::path::absolute(cli.model_dir.join("model.onnx"))?,
        dim,
        model: cli.model.clone(),
        share: Share::Copies,
        batches: Batches::Nobody,
    };
    let peer = Peer::triton(folder.path(), &ground)?;
    let (rest, grpc) = peer.addresses();
    let socle = Server {
        rest: cli.agent.to_string(),
        grpc: cli.agent.to_string(),
        version,
        token: Some(token.to_owned()),
    };
    let triton = Server {
        rest: rest.to_string(),
        grpc: grpc.context("Triton has no gRPC")?.to_string(),
        version: VERSION.to_owned(),
        token: None,
    };
    let servers = Servers { model: cli.model.clone(), socle, triton };
    let asked = differences::ask(&cli.triton, &scripts.join("differences.py"), &servers)?;
    peer.end()?;
    Ok(asked)
}

/// Version and width of the agent's model.
fn described(cli: &Ask, token: &str) -> anyhow::Result<(String, u32)> {
    let mut connection =
        Connection::open(&Address::Tcp(cli.agent)).context("reaching the agent")?;
    let request = format!(
        "GET /v2/models/{} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n",
        cli.model
    );
    let (status, body) = connection.ask(request.as_bytes()).context("asking the agent")?;
    ensure!(status == 200, "the agent answered {status}: {}", String::from_utf8_lossy(body));
    let metadata: Value = serde_json::from_slice(body).context("reading the agent's metadata")?;
    let version = metadata.pointer("/versions/0").and_then(Value::as_str).context("no version")?;
    let shape = metadata.pointer("/outputs/0/shape").and_then(Value::as_array);
    let dim = shape.and_then(|shape| shape.last()?.as_u64()).context("no width")?;
    Ok((version.to_owned(), u32::try_from(dim)?))
}

fn print(cli: &Ask, list: &Differences, asked: &[Asked], verdict: &Verdict) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if cli.json {
        writeln!(out, "{}", json!({ "asked": asked, "verdict": verdict }))?;
        return Ok(());
    }
    for one in asked.iter().filter(|one| one.socle != one.triton) {
        let why = list.difference.iter().find(|row| row.case == one.case);
        let why = why.filter(|_| !verdict.unlisted.contains(one));
        writeln!(out, "{}\n    socle:  {}\n    Triton: {}", one.case, one.socle, one.triton)?;
        match why {
            Some(row) => writeln!(out, "    {}", row.why)?,
            None => writeln!(
                out,
                "    NOT EXPLAINED; socle says: {}; Triton says: {}",
                one.said[0], one.said[1]
            )?,
        }
    }
    for case in &verdict.stale {
        writeln!(out, "{case}\n    NO DIFFERENCE ANY MORE: take it out of the list")?;
    }
    writeln!(
        out,
        "{} requests to both: {} answered alike, {} otherwise as the list explains, {} otherwise without; {} rows of the list are stale",
        verdict.asked,
        verdict.same,
        verdict.listed,
        verdict.unlisted.len(),
        verdict.stale.len()
    )?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a page of the checkout, which git keeps")]
fn write(file: &Path, list: &Differences) -> anyhow::Result<()> {
    let page =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let Some(page) = differences::replace(&page, &list.table()) else {
        bail!("{} has no place for the table", file.display());
    };
    std::fs::write(file, page).with_context(|| format!("writing {}", file.display()))
}
