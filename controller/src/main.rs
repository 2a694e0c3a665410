//! `socle-controller`: makes a controller, prepares a broker, serves.

mod cli;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use controller::{
    broker::Broker,
    clock::Clock,
    disk::{self, Access},
    init,
    layout::Layout,
    serve,
    settings::Settings,
};
use protocol::time::UnixMs;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::cli::{Cli, Command, PkiCommand};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail(&cli, &error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Init(asked) => {
            let layout = Layout::new(&asked.state);
            let settings = Settings { fleet: asked.fleet.clone(), names: asked.names.clone() };
            init::create(&layout, &settings, now())?;
            let token = layout.admin_token();
            let authority = layout.pki_file("ca.crt.pem");
            let online = layout.online_keys();
            let told = json!({
                "state": asked.state, "fleet": asked.fleet, "admin_token_file": token,
                "ca_file": authority, "online_keys_file": online,
            });
            let text = format!(
                "Made a controller for the fleet {} in {}.\n  admin token   {}\n  authority     {}\n  online keys   {} (public; for `socle keys init --online`)\nNext: socle-controller pki broker, then socle-controller serve.",
                asked.fleet,
                asked.state.display(),
                token.display(),
                authority.display(),
                online.display()
            );
            say(cli, &told, &text)
        }
        Command::Pki { command: PkiCommand::Broker(asked) } => {
            let broker = Broker { out: &asked.out, names: &asked.names, port: asked.port };
            let files = broker.write(&Layout::new(&asked.state), now())?;
            let lines: Vec<String> =
                files.iter().map(|path| format!("  {}", path.display())).collect();
            let text = format!(
                "Wrote the broker's files:\n{}\nStart it with: mosquitto -c {}",
                lines.join("\n"),
                asked.out.join("mosquitto.conf").display()
            );
            say(cli, &json!({ "files": files, "port": asked.port }), &text)
        }
        Command::Serve(asked) => {
            start_log();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("starting the asynchronous runtime")?;
            runtime.block_on(serve(cli, asked))
        }
    }
}

async fn serve(cli: &Cli, asked: &cli::Serve) -> Result<()> {
    let options = serve::Options {
        state: asked.state.clone(),
        listen: asked.listen,
        broker: asked.broker.clone(),
        public_url: asked.public_url.clone(),
        timestamp_hours: asked.timestamp_hours,
    };
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut running = serve::start(&options, Clock::new(now)).await?;
    tracing::info!(address = %running.address, url = running.url, "listening");
    let mut ready = false;
    let connected = running.connected();
    tokio::pin!(connected);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut connected, if !ready => {
                ready = true;
                announce(cli, asked, &running.url)?;
            }
            () = running.broken() => {
                anyhow::bail!("a part of the controller ended; its log says which");
            }
        }
    }
    tracing::info!("stopping");
    if let Some(path) = &asked.ready_file {
        // It told of this run only; gone already is as well.
        drop(std::fs::remove_file(path));
    }
    running.stop().await;
    Ok(())
}

/// Tells that the controller is ready: the same line to the log, to standard output and into the file.
fn announce(cli: &Cli, asked: &cli::Serve, url: &str) -> Result<()> {
    let told = json!({ "url": url, "pid": std::process::id() });
    if let Some(path) = &asked.ready_file {
        write_ready(path, &told)?;
    }
    tracing::info!("ready: {told}");
    say(cli, &told, &format!("Ready: {url}"))
}

fn write_ready(path: &Path, told: &Value) -> Result<()> {
    disk::write(path, format!("{told}\n").as_bytes(), Access::Anyone)
        .context("writing the ready file")
}

fn say(cli: &Cli, told: &Value, text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = if cli.json { writeln!(out, "{told}") } else { writeln!(out, "{text}") };
    written.and_then(|()| out.flush()).context("writing to standard output")
}

fn fail(cli: &Cli, error: &anyhow::Error) {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let text = causes.join(": ");
    let mut out = io::stderr().lock();
    let written = if cli.json {
        writeln!(out, "{}", json!({ "error": { "code": "failed", "message": text } }))
    } else {
        writeln!(out, "socle-controller: {text}")
    };
    // Nobody is left to tell when standard error is closed.
    drop(written);
}

/// To the journal where systemd gave us one, else to standard error.
fn start_log() {
    let filter = EnvFilter::try_from_env("SOCLE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .with_ansi(io::stderr().is_terminal())
                .with_target(false);
            registry.with(layer).init();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place of this program that reads the clock")]
fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
