//! `cargo xtask demo`: builds the release programs, fetches the model once, and hands over to
//! `socle demo`, which an installed system runs directly.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::broker::Broker;
use crate::failure::Failure;
use crate::fetch;
use crate::machine::{Machine, Output};
use crate::{say, shell};

/// What the demo is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The broker inside `socle demo`.
    Embedded,
    /// A mosquitto of our own, with mutual TLS and access by certificate name.
    Mosquitto,
}

/// The options of `cargo xtask demo`.
#[derive(Debug)]
pub(crate) struct Demo<'a> {
    /// The broker.
    pub(crate) via: Via,
    /// Another model folder than the fetched one.
    pub(crate) model: Option<&'a Path>,
    /// Who reads what the demo says, which need not be who reads what we say.
    pub(crate) output: Output,
    /// Options passed through to `socle demo`.
    pub(crate) more: Vec<OsString>,
}

/// Builds every program of the workspace.
pub(crate) fn build(machine: &Machine) -> Result<(), Failure> {
    say::line("building the release programs");
    let mut command = machine.cargo(&["build", "--locked", "--release", "--workspace", "--bins"]);
    shell::run(command.stdout(std::io::stderr()))
}

/// Builds what the demo starts and fetches what it needs.
pub(crate) fn prepare(machine: &Machine, model: Option<&Path>) -> Result<PathBuf, Failure> {
    build(machine)?;
    let fetched = fetch::model(machine, model)?;
    say::line(&format!("model ({}): {}", fetched.how(), fetched.folder().display()));
    Ok(fetched.folder().to_path_buf())
}

/// Becomes the demo, so that its exit code and the signals of the terminal are its own; with a
/// broker to stop afterwards, runs it to its end, and its exit code is the failure's.
pub(crate) fn run(machine: &Machine, demo: &Demo<'_>) -> Result<(), Failure> {
    let model = prepare(machine, demo.model)?;
    match demo.via {
        Via::Embedded => {
            let mut command = command(machine, &model, demo);
            let error = command.exec();
            Err(Failure::new(format!("`{}` could not be started", shell::line(&command)))
                .because(error))
        }
        Via::Mosquitto => with_mosquitto(machine, &model, demo),
    }
}

/// The demo as a stage of `cargo xtask test`.
pub(crate) fn stage(machine: &Machine) -> Result<String, Failure> {
    let demo = Demo { via: Via::Embedded, model: None, output: Output::Person, more: Vec::new() };
    let model = prepare(machine, None)?;
    shell::run(&mut command(machine, &model, &demo))
        .map(|()| "every check of the demo held".to_owned())
}

/// The same over a broker that is not ours.
pub(crate) fn stage_mosquitto(machine: &Machine) -> Result<String, Failure> {
    let demo = Demo { via: Via::Mosquitto, model: None, output: Output::Person, more: Vec::new() };
    run(machine, &demo).map(|()| "every check held over mosquitto".to_owned())
}

/// The command line of `socle demo`.
pub(crate) fn command(machine: &Machine, model: &Path, demo: &Demo<'_>) -> Command {
    let bin_dir = machine.bin_dir();
    let mut command = machine.command(&bin_dir.join("socle"));
    command.arg("demo").arg("--model").arg(model).arg("--bin-dir").arg(&bin_dir);
    match demo.output {
        Output::Person => {}
        Output::Json => {
            command.arg("--json").stdout(std::process::Stdio::inherit());
        }
    }
    command.args(&demo.more);
    command
}

fn with_mosquitto(machine: &Machine, model: &Path, demo: &Demo<'_>) -> Result<(), Failure> {
    let state = tempfile::Builder::new()
        .prefix("socle-demo-")
        .tempdir()
        .map_err(|error| Failure::new("making the demo's temporary folder").because(error))?;
    let broker = Broker::start(machine, state.path())?;
    say::line(&format!("mosquitto listens at {}", broker.url()));
    let mut command = command(machine, model, demo);
    command.arg("--broker").arg(broker.url()).arg("--state").arg(state.path());
    let ended = shell::run(&mut command);
    let stopped = broker.stop();
    ended.and(stopped)
}
