//! Developer commands: `cargo xtask {fetch,demo,test,check,crash,bench,peer}`.
//!
//! # Layout
//! `arguments` is the command line; `machine` what is known of the machine; `stage` runs tables of
//! named work, of which `test` and `check` are the two; `wheel`, `pip`, `venv`, `fetch`, `tools`
//! and `packages` bring what is not in the checkout; `demo`, `broker`, `crash`, `swap`, `kept`, `peer`,
//! `clients`, `conformance`, `hostile` and `bench`, `bench_update`, `bench_engine`, `bench_serve` (both with `bench_models`) drive the
//! product's own programs. It imports nothing of the product, so that it builds in seconds on a cold
//! machine.

mod advisories;
mod arguments;
mod attacks;
mod bench;
mod bench_engine;
mod bench_models;
mod bench_serve;
mod bench_update;
mod broker;
mod cache;
mod check;
mod clients;
mod conformance;
mod crash;
mod demo;
mod digest;
mod failure;
mod fetch;
mod hardening;
mod hostile;
mod http;
mod kept;
mod launcher;
mod machine;
mod model_pins;
mod multilingual;
mod nspawn;
mod package;
mod packages;
mod peer;
mod pip;
mod progress;
mod say;
mod shell;
mod stage;
mod swap;
mod test;
mod tools;
mod venv;
mod wheel;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use crate::arguments::{Arguments, Bench, BenchWhat, Command, Crash, Peer, Target};
use crate::conformance::Then;
use crate::crash::{Faults, Flushes};
use crate::demo::{Demo, Via};
use crate::failure::Failure;
use crate::fetch::Fetched;
use crate::hostile::Extent;
use crate::http::Agent;
use crate::kept::Kept;
use crate::machine::{Machine, Output};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = if arguments.json { Output::Json } else { Output::Person };
    match machine(output).and_then(|machine| run(&machine, arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::line(&format!("xtask: {failure}"));
            ExitCode::from(failure.status().code())
        }
    }
}

fn run(machine: &Machine, command: Command) -> Result<(), Failure> {
    match command {
        Command::Fetch(options) if options.multilingual => {
            demo::build(machine)?;
            told(machine, &multilingual::ensure(machine)?, &[])
        }
        Command::Fetch(options) => {
            let given = options.model.model.as_deref();
            let fetched = fetch::model(machine, given)?;
            // Whoever has a folder of the default model may have no way to fetch others.
            let others = if given.is_none() { fetch::test_models(machine)? } else { Vec::new() };
            told(machine, &fetched, &others)
        }
        Command::Demo(options) => {
            let mut more = options.more;
            if options.keep {
                more.insert(0, OsString::from("--keep"));
            }
            let via = if options.mosquitto { Via::Mosquitto } else { Via::Embedded };
            let model = options.model.model.as_deref();
            demo::run(machine, &Demo { via, model, output: machine.output, more })
        }
        Command::Test(options) => stage::run_all(machine, test::STAGES, &options.only),
        Command::Check(options) => stage::run_all(machine, &check::STAGES, &options.only),
        Command::Swap(options) => {
            let plan = swap::Plan {
                swaps: options.swaps,
                poisoned: options.poisoned,
                requests: options.requests,
                seed: options.seed,
            };
            let model = options.model.model.as_deref();
            swap::run(machine, plan, machine.output, model, &options.more)
        }
        Command::Conformance(options) => {
            let then = if options.write { Then::Write } else { Then::Compare };
            conformance::run(machine, then, options.only.as_deref())
        }
        Command::Hostile(options) => {
            let extent = if options.quick { Extent::Quick } else { Extent::Full };
            let (only, fuzz, seed) = (options.only.as_deref(), options.fuzz, options.seed);
            let plan = hostile::Plan { only, extent, fuzz, seed };
            hostile::run(machine, plan, options.model.model.as_deref())
        }
        Command::Crash(Crash {
            blocks: Some(states), faults, without_fsync, seed, more, ..
        }) => {
            let flushes = if without_fsync { Flushes::Ignored } else { Flushes::Done };
            crash::blocks(machine, crash::Cuts { states, faults, flushes, seed }, &more)
        }
        Command::Attacks(options) if options.write => attacks::write(machine),
        Command::Attacks(options) => {
            let plan =
                attacks::Plan { cases: options.cases, fuzz: options.fuzz, seed: options.seed };
            attacks::run(machine, plan)
        }
        Command::Crash(Crash { states: true, full, seed, .. }) => {
            let faults = if full { Faults::All } else { Faults::Some };
            crash::states(machine, faults, seed)
        }
        Command::Launcher(options) => {
            launcher::run(machine, options.model.model.as_deref(), options.runs)
        }
        Command::Crash(options) => {
            let plan = crash::Plan { kills: options.kills, seed: options.seed };
            crash::run(machine, plan, options.model.model.as_deref(), &options.more)
        }
        Command::Nspawn(options) => {
            let plan = nspawn::run::Plan {
                only: &options.only,
                quick: options.quick,
                list: options.list,
                launch: options.launch.as_deref(),
                bin_dir: options.bin_dir.as_deref(),
                model: options.model.model.as_deref(),
            };
            nspawn::run::run(machine, &plan)
        }
        Command::Load(options) => nspawn::load::run(&options.token_file),
        Command::Package(options) => {
            let package = package::Package {
                bin_dir: options.bin_dir.as_deref(),
                launch: options.launch.as_deref(),
                out: options.out.as_deref(),
                version: options.deb_version.as_deref(),
                squeeze: package::Squeeze::Small,
            };
            package::run(machine, &package)
        }
        Command::Bench(Bench { what: Some(BenchWhat::Update(options)), .. }) => {
            bench_update::run(machine, &options)
        }
        Command::Bench(Bench { what: Some(BenchWhat::Engine(options)), .. }) => {
            bench_engine::run(machine, &options.more)
        }
        Command::Bench(Bench { what: Some(BenchWhat::Serve(options)), .. }) => {
            bench_serve::run(machine, &options.more)
        }
        Command::Bench(options) => {
            let plan = bench::Plan { requests: options.requests, connections: options.connections };
            let model = options.model.model.as_deref();
            on_agent(machine, &options.target, model, |agent, _| bench::run(machine, agent, plan))
        }
        Command::Peer(Peer::Clients(options)) if options.write => clients::write(machine),
        Command::Peer(Peer::Clients(options)) => {
            let model = options.model.model.as_deref();
            on_agent(machine, &options.target, model, |agent, folder| {
                clients::run(machine, agent, folder)
            })
        }
        Command::Peer(Peer::Embeddings(options)) => {
            let model = options.model.model.as_deref();
            on_agent(machine, &options.target, model, |agent, model| {
                peer::embeddings(machine, agent, model)
            })
        }
    }
}

fn told(machine: &Machine, fetched: &Fetched, others: &[Fetched]) -> Result<(), Failure> {
    let folder = fetched.folder().display().to_string();
    let others: Vec<String> =
        others.iter().map(|other| other.folder().display().to_string()).collect();
    let text = match machine.output {
        Output::Json => {
            json!({ "model": folder, "how": fetched.how(), "for_tests": others }).to_string()
        }
        Output::Person => {
            let others = others.iter().map(|other| format!("\n{other} (for tests)"));
            format!("{folder} ({}){}", fetched.how(), others.collect::<String>())
        }
    };
    say::result(&text).map_err(|error| Failure::new("printing the model's folder").because(error))
}

/// Does `work` with the named agent, or with one of a fleet that is started for it and ended after.
fn on_agent(
    machine: &Machine,
    target: &Target,
    model: Option<&Path>,
    work: impl FnOnce(&Agent, &Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match (&target.agent, &target.token_file) {
        (Some(url), Some(token_file)) => {
            let agent = Agent::new(url, token_file)?;
            work(&agent, fetch::model(machine, model)?.folder())
        }
        (None | Some(_), _) => {
            let model = demo::prepare(machine, model)?;
            let kept = Kept::start(machine, &model)?;
            let result = work(kept.agent(), &model);
            kept.stop();
            result
        }
    }
}

/// Reads the environment, once.
fn machine(output: Output) -> Result<Machine, Failure> {
    let root = env::var_os("CARGO_MANIFEST_DIR")
        .and_then(|own| Path::new(&own).parent().map(Path::to_path_buf))
        .ok_or_else(|| {
            Failure::new("the root of the checkout is not known")
                .next("start this as `cargo xtask …` in the checkout")
        })?;
    let mut path: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    path.extend(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let cargo_variables = env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| machine::is_set_by_cargo_run(&name.to_string_lossy()))
        .collect();
    // A relative one is relative to the root, where every cargo that we start runs.
    let target = env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
    let target = root.join(target.unwrap_or_else(|| OsString::from("target")));
    Ok(Machine {
        root,
        target,
        cache: cache_folder()?,
        cargo: env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")),
        path,
        superuser: rustix::process::geteuid().is_root(),
        advisory_db: env::var_os("ADVISORY_DB").filter(|db| !db.is_empty()).map(PathBuf::from),
        source_date_epoch: env::var("SOURCE_DATE_EPOCH").ok(),
        output,
        cargo_variables,
    })
}

/// `$XDG_CACHE_HOME/socle`, which the specification wants absolute, or `~/.cache/socle`.
fn cache_folder() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("socle"))
        .ok_or_else(|| {
            Failure::missing("neither XDG_CACHE_HOME nor HOME names an absolute folder")
                .next("set XDG_CACHE_HOME to a folder for caches")
        })
}
