//! `attacks`: other TUF clients beside ours, random inputs, and the table of attacks. `cargo xtask attacks` drives it.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand};
use fleet_tests::attacks::{
    cases::{Answer, Case},
    differential::{self, Count, Differences, Report},
    fuzz::{
        allocations::Counting,
        every,
        run::{self, Fed, Plan},
    },
    interop::{self, Peer, Tried},
    kinds::table::cases,
    ours, table,
};
use protocol::time::UnixMs;
use serde::Serialize;
use slots::disk::{self, RealDisk};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Attacks on what a device trusts.
#[derive(Parser)]
#[command(name = "attacks", version)]
#[command(
    after_help = "Examples:\n  attacks peers --folder fleet-tests/peers --python venv/bin/python --cases 860\n  \
attacks fuzz --inputs 10000 --seed 7\n  attacks fuzz --target archive --inputs 1 --seed 4711\n  attacks table --root . --write"
)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Give other clients the same repositories as ours, and compare.
    Peers(Peers),
    /// Feed everything that reads bytes from outside.
    Fuzz(Fuzz),
    /// The table of attacks in the threat model.
    Table(Table),
}

#[derive(Args)]
struct Peers {
    /// The folder with the peers' programs and the list of known differences.
    #[arg(long)]
    folder: PathBuf,
    /// A Python that has python-tuf.
    #[arg(long)]
    python: Option<PathBuf>,
    /// The program made of tough.
    #[arg(long)]
    tough: Option<PathBuf>,
    /// Repositories to compare on.
    #[arg(long, default_value_t = 860)]
    cases: u64,
    /// Seed of the first; printed, so that a run can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Fuzz {
    /// Inputs to each target.
    #[arg(long, default_value_t = 10_000)]
    inputs: u64,
    /// Seed of the first; printed, so that a run can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Table {
    /// The root of the checkout.
    #[arg(long)]
    root: PathBuf,
    /// Write it into docs/threat-model.md.
    #[arg(long)]
    write: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Verb::Peers(options) => peers(&options),
        Verb::Fuzz(options) => fuzz(&options),
        Verb::Table(options) => show_table(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "attacks: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[derive(Serialize)]
struct Compared {
    seed: u64,
    holds: bool,
    interop: Vec<Tried>,
    differential: Report,
}

fn peers(options: &Peers) -> anyhow::Result<()> {
    let now = now();
    let seed = options.seed.unwrap_or(now.0);
    let mut programs = programs(options)?;
    ensure!(!programs.is_empty(), "name a peer: --python, --tough, or both");
    let mut tried = Vec::new();
    for peer in &mut programs {
        tried.extend(interop::try_peer(peer, now)?);
    }
    let path = options.folder.join("differences.toml");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let list = Differences::read(&text)?;
    let cases = cases(seed, options.cases, now)?;
    let report = compare(&mut programs, &cases, &list)?;
    let holds = report.holds() && tried.iter().all(|tried| tried.failed.is_none());
    let compared = Compared { seed, holds, interop: tried, differential: report };
    if options.json {
        print(&serde_json::to_string(&compared)?)?;
    } else {
        show(&compared, &list)?;
    }
    ensure!(
        holds,
        "clients disagree where no row of {} says why; repeat with --seed {seed}",
        path.display()
    );
    Ok(())
}

fn programs(options: &Peers) -> anyhow::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    if let Some(python) = &options.python {
        let script = |name: &str| {
            let mut command = Command::new(python);
            command.arg(options.folder.join("python").join(name));
            command
        };
        let (client, maker) = (script("client.py"), script("maker.py"));
        peers.push(Peer { name: "python-tuf", client, maker });
    }
    if let Some(tough) = &options.tough {
        let tough = absolute(tough)?;
        let verb = |verb: &str| {
            let mut command = Command::new(&tough);
            command.arg(verb);
            command
        };
        peers.push(Peer { name: "tough", client: verb("client"), maker: verb("make") });
    }
    Ok(peers)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("finding {}", path.display()))
}

fn compare(peers: &mut [Peer], cases: &[Case], list: &Differences) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let ours: Vec<Answer> = cases.iter().map(ours::answer).collect();
    let mut report = Report::default();
    for peer in peers {
        let theirs = differential::ask(&mut peer.client, cases, folder.path())
            .with_context(|| format!("asking {}", peer.name))?;
        report.compare(peer.name, cases, &ours, &theirs, list);
    }
    Ok(report)
}

fn show(compared: &Compared, list: &Differences) -> anyhow::Result<()> {
    let Compared { seed, interop, differential: report, .. } = compared;
    print(&format!("seed {seed}"))?;
    for Tried { what, files, failed } in interop {
        match failed {
            None => print(&format!("ok      {what}: {files} files"))?,
            Some(why) => print(&format!("FAILED  {what}: {why}"))?,
        }
    }
    print(&format!("\n{:34} answers: the same + as listed / compared", "repository"))?;
    let mut sums: BTreeMap<&str, Count> = BTreeMap::new();
    for (kind, peers) in &report.kinds {
        let mut line = format!("{kind:34}");
        for (peer, count) in peers {
            let Count { answers, same, listed } = *count;
            line.push_str(&format!(" {peer} {same}+{listed}/{answers}"));
            let sum = sums.entry(peer).or_default();
            sum.answers += answers;
            sum.same += same;
            sum.listed += listed;
        }
        print(&line)?;
    }
    for (peer, Count { answers, same, listed }) in sums {
        let other = answers - same - listed;
        print(&format!(
            "{peer}: {answers} answers compared in {} repositories: {same} the same, {listed} otherwise as listed, {other} otherwise",
            report.cases
        ))?;
    }
    let met = report.met.len();
    print(&format!("{met} of {} written differences were met", list.difference.len()))?;
    for unlisted in &report.unlisted {
        print(&format!("NOT LISTED {}", serde_json::to_string(unlisted)?))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct AllFed {
    seed: u64,
    targets: Vec<Fed>,
}

fn fuzz(options: &Fuzz) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or_else(|| now().0);
    say(&format!("seed {seed}"))?;
    let mut targets = Vec::new();
    for mut target in every::targets()? {
        if options.target.as_ref().is_some_and(|name| name != target.name()) {
            continue;
        }
        let started = instant();
        let fed = run::feed(target.as_mut(), Plan { inputs: options.inputs, seed })?;
        let seconds = started.elapsed().as_secs_f64();
        let line = format!(
            "{:12} {} inputs in {seconds:.1} s, {} accepted, 0 panics, at most {} KiB for one",
            fed.target,
            fed.inputs,
            fed.accepted,
            fed.peak_bytes / 1024
        );
        if options.json {
            say(&line)?
        } else {
            print(&line)?
        }
        targets.push(fed);
    }
    if targets.is_empty() {
        bail!("there is no target {}", options.target.as_deref().unwrap_or_default());
    }
    if options.json {
        print(&serde_json::to_string(&AllFed { seed, targets })?)?;
    }
    Ok(())
}

fn show_table(options: &Table) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for file in table::files() {
        let path = options.root.join(format!("fleet-tests/tests/attacks/{file}.rs"));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        rows.extend(table::rows(file, &text));
    }
    let text = table::render(&rows);
    if !options.write {
        return print(&text);
    }
    let path = options.root.join("docs/threat-model.md");
    let page =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let page = table::replace(&page, &text)
        .with_context(|| format!("{} has no place for the table", path.display()))?;
    disk::replace(&RealDisk, &path, page.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

fn print(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr().lock(), "{line}")?)
}

#[expect(clippy::disallowed_methods, reason = "main reads the clock")]
fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[expect(clippy::disallowed_methods, reason = "durations are what is shown here")]
fn instant() -> Instant {
    Instant::now()
}
