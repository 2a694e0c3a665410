//! `socle-agent`: the gateway, a worker, the updater, or all of them under one parent.

use std::{
    collections::BTreeMap,
    env,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use agent::{
    daemon::gateway::{self, Options},
    fleet::{
        bundle,
        enrolment::{self, EnrolOptions},
    },
    installed::{Installed, release_from_env},
    observe::{clock, collector::Wanted, logging, status::Mode},
    single::{
        plan::{Plan, SUPERVISOR_VARIABLE},
        supervisor,
    },
    sockets::PassedSockets,
    update::run::{self as updater, UpdateConfig},
    worker::process as worker,
};
use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use engine::worker::spoken::Spoken;
use rustix::{
    fs::Mode as FileMode,
    process::{Signal, getppid, set_parent_process_death_signal, umask},
};
use slots::layout::StateDir;
use tokio::runtime;

const UMASK: u32 = 0o027;
const LISTEN: &str = "127.0.0.1:7411";

/// Serves signed, quantized models on this machine, and updates itself.
#[derive(Parser)]
#[command(name = "socle-agent", version, arg_required_else_help = true)]
#[command(
    after_help = "Examples:\n  socle-agent enrol --state /var/lib/socle --controller https://fleet.example:8443 --token socle1.…\n  \
socle-agent run --single --state ./state --factory /usr/lib/socle/factory\n  \
curl --unix-socket /run/socle/api.sock http://localhost/v1/status"
)]
struct Cli {
    /// Print what this program is, as JSON, and end: proof that it runs on this machine.
    #[arg(long)]
    self_check: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// The process with the network: local API, link to the fleet. Started by socle-launch.
    Gateway(GatewayArgs),
    /// The process that owns the models of one slot. Started by socle-launch.
    Worker(WorkerArgs),
    /// Does what is due on the slots, then ends. Started by socle-launch.
    Updater(UpdaterArgs),
    /// Run all processes under this one, without systemd.
    Run(RunArgs),
    /// Join a fleet with a token from `socle device enrol`.
    Enrol(EnrolArgs),
    /// Take a release from a bundle, on a machine that no network reaches; the updater installs it.
    #[command(
        after_help = "Example, as the agent's own user:\n  runuser -u socle -- socle-agent update --bundle /media/stick/bundle\n\nThe bundle is a folder that `socle bundle export --device` made, and holds the controller's assignment for this\nmachine: the release must be genuine and assigned, as over the network."
    )]
    Update(UpdateArgs),
}

#[derive(Args)]
struct UpdateArgs {
    /// The device's state folder.
    #[arg(long, default_value = "/var/lib/socle")]
    state: PathBuf,
    /// The bundle's folder.
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
}

#[derive(Args)]
struct GatewayArgs {
    /// The device's state folder.
    #[arg(long, default_value = "/var/lib/socle")]
    state: PathBuf,
    /// Folder of the sockets.
    #[arg(long, default_value = "/run/socle")]
    runtime: PathBuf,
    /// Folder of the release this process runs from.
    #[arg(long)]
    slot_dir: PathBuf,
    /// Where the local API listens when no socket is passed in.
    #[arg(long, default_value = LISTEN)]
    listen: SocketAddr,
    /// Collector of traces (OTLP over HTTP): http://host:4318. Without it none are sent.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Certificates (PEM) of who may speak for the collector over TLS.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    otlp_authority: Option<PathBuf>,
    /// Headers for the collector: key=value,key=value.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true, default_value = "")]
    otlp_headers: String,
    /// Part of the requests to trace that belong to no trace yet: 0 to 1.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value_t = 1.0)]
    otlp_ratio: f64,
}

impl GatewayArgs {
    fn traces(&self) -> Option<Wanted> {
        let endpoint = self.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty())?;
        let authority = self.otlp_authority.clone();
        let headers = self.otlp_headers.clone();
        Some(Wanted { endpoint, authority, headers, ratio: self.otlp_ratio })
    }
}

#[derive(Args)]
struct WorkerArgs {
    /// Folder of the release whose models are served.
    #[arg(long)]
    slot_dir: PathBuf,
}

#[derive(Args)]
struct UpdaterArgs {
    /// The device's state folder.
    #[arg(long, default_value = "/var/lib/socle")]
    state: PathBuf,
    /// The package's own agent.
    #[arg(long, default_value = "/usr/lib/socle/factory")]
    factory: PathBuf,
}

#[derive(Args)]
struct RunArgs {
    /// All processes under this one; the only way there is besides the systemd units.
    #[arg(long, required = true)]
    single: bool,
    /// The device's state folder.
    #[arg(long, default_value = "/var/lib/socle")]
    state: PathBuf,
    /// The package's own agent.
    #[arg(long, default_value = "/usr/lib/socle/factory")]
    factory: PathBuf,
    /// socle-launch; by default the one beside this program.
    #[arg(long)]
    launch: Option<PathBuf>,
    /// Where the local API listens.
    #[arg(long, default_value = LISTEN)]
    listen: SocketAddr,
    /// Folder of the sockets; by default `run` in the state folder.
    #[arg(long)]
    runtime: Option<PathBuf>,
}

#[derive(Args)]
struct EnrolArgs {
    /// The device's state folder.
    #[arg(long, default_value = "/var/lib/socle")]
    state: PathBuf,
    /// The controller: https://host:port.
    #[arg(long)]
    controller: String,
    /// The token, or @FILE to read it from a file, which keeps it out of the process list.
    #[arg(long)]
    token: String,
    /// Name of this machine for people; by default its host name.
    #[arg(long)]
    name: Option<String>,
    /// A label for groups, such as site=lyon; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

fn main() -> ExitCode {
    // Before anything else opens a file descriptor.
    let passed = PassedSockets::from_env();
    let cli = Cli::parse();
    // What the agent writes concerns its user and group alone.
    umask(FileMode::from_raw_mode(UMASK));
    match run(cli, passed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, passed: PassedSockets) -> anyhow::Result<()> {
    if cli.self_check {
        // That it runs is what is checked; what it says is for people.
        let (version, protocol) = (env!("CARGO_PKG_VERSION"), Spoken::OURS.newest);
        writeln!(io::stdout().lock(), "{{\"version\":\"{version}\",\"protocol\":{protocol}}}")
            .context("printing the self-check")?;
        return Ok(());
    }
    match cli.role {
        Some(Role::Gateway(args)) => run_gateway(args, passed),
        Some(Role::Worker(args)) => {
            end_with_supervisor()?;
            logging::start("worker")?;
            let policy = worker::policy_from(|name| env::var(name).ok())?;
            worker::run(args.slot_dir, release_from_env()?, policy, passed)?;
            Ok(())
        }
        Some(Role::Updater(args)) => {
            end_with_supervisor()?;
            logging::start("updater")?;
            let outcome =
                updater::run_once(&UpdateConfig::of_this_machine(args.state), clock::now())?;
            tracing::debug!(phase = outcome.phase, did = ?outcome.did, "updater ran");
            Ok(())
        }
        Some(Role::Run(args)) => run_single(args),
        Some(Role::Enrol(args)) => enrol(args),
        Some(Role::Update(args)) => {
            logging::start("update")?;
            let placed = bundle::place(&StateDir::new(args.state), &args.bundle, clock::now())?;
            writeln!(io::stdout().lock(), "{}", placed.in_words())?;
            Ok(())
        }
        None => bail!("nothing to do; see --help"),
    }
}

fn run_gateway(args: GatewayArgs, passed: PassedSockets) -> anyhow::Result<()> {
    let mode = end_with_supervisor()?;
    logging::start("gateway")?;
    let installed = Installed::from_env(&args.state, &args.runtime, &args.slot_dir)?;
    let traces = args.traces();
    let options = Options { installed, mode, listen: args.listen, traces };
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(gateway::run(options, passed));
    // What still blocks a thread must not hold the process.
    runtime.shutdown_background();
    Ok(ended?)
}

fn run_single(args: RunArgs) -> anyhow::Result<()> {
    logging::start("single")?;
    let state = std::path::absolute(&args.state)?;
    let launch = match args.launch {
        Some(launch) => launch,
        None => env::current_exe().context("finding this program")?.with_file_name("socle-launch"),
    };
    let plan = Plan {
        runtime: std::path::absolute(args.runtime.unwrap_or_else(|| state.join("run")))?,
        state: StateDir::new(state),
        factory: std::path::absolute(args.factory)?,
        launch,
        listen: args.listen,
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(supervisor::run(plan))?)
}

fn enrol(args: EnrolArgs) -> anyhow::Result<()> {
    logging::start("enrol")?;
    let token = match args.token.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("reading the token from `{path}`"))?,
        None => args.token,
    };
    let options = EnrolOptions {
        state: StateDir::new(args.state),
        controller: args.controller,
        token: token.trim().to_owned(),
        name: args.name.unwrap_or_else(|| sysinfo::System::host_name().unwrap_or_default()),
        labels: args.labels.into_iter().collect::<BTreeMap<_, _>>(),
    };
    let enrolled = enrolment::enrol(&options, clock::now())?;
    let mut out = io::stdout().lock();
    writeln!(out, "enrolled as {} in fleet {}", enrolled.device, enrolled.fleet)?;
    Ok(())
}

/// In single mode, has the kernel end this process with its supervisor, and says which mode it is.
fn end_with_supervisor() -> anyhow::Result<Mode> {
    let Some(supervisor) = env::var_os(SUPERVISOR_VARIABLE) else { return Ok(Mode::Services) };
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("tying this process to its supervisor")?;
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string()).unwrap_or_default();
    if supervisor != parent.as_str() {
        bail!("the supervisor that started this process has ended");
    }
    Ok(Mode::Single)
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("a label is KEY=VALUE".to_owned()),
    }
}

/// Said plainly when a person started this, and to whoever collects standard error otherwise.
fn complain(error: &anyhow::Error) {
    drop(writeln!(io::stderr().lock(), "socle-agent: {error:#}"));
}
