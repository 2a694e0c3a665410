//! The words of `socle`, parsed; what they mean stands in the module of each command.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use protocol::blob::Blob;
use protocol::time::UnixMs;
use serde_json::{Value, json};

use crate::{
    api::{ApiError, Controller, ControllerArgs},
    ask::{self, AskArgs, AskError},
    bundle::command::{self as bundle, BundleCommand, BundleError},
    demo::{
        arguments::DemoArgs,
        command::{self as demo, DemoError},
    },
    device::{self, DeviceCommand, DeviceError},
    files::{self, FileError},
    keys::command::{self as keys, KeysCommand, KeysError},
    metadata::standing::Standing,
    model::{self, ModelCommand, ModelError},
    release::{
        build::{self, BuildArgs, BuildError},
        permit::{self, PermitArgs, PermitError},
        promote::{self, PromoteArgs, PromoteError},
        publish::{self, PublishArgs, PublishError},
        sign::{self, MergeArgs, SignArgs, SignError},
    },
    repo::command::{self as repo, RepoCommand, RepoError},
    rollout::{self, RolloutCommand, RolloutError},
    root::command::{self as root, RootCommand, RootError},
    terminal::{Audience, Terminal},
};

/// Signed models and agents for your own servers: build, sign, roll out, ask.
#[derive(Debug, Parser)]
#[command(
    name = "socle",
    version,
    after_help = "Start here:\n  socle demo --help      the whole path on this machine\n  socle keys init --help the keys of a new fleet"
)]
pub struct Cli {
    /// Print one JSON value instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What `socle` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keys that sign releases
    #[command(subcommand)]
    Keys(KeysCommand),
    /// The root of trust: renewed, changed, signed by several people
    #[command(subcommand)]
    Root(RootCommand),
    /// Model packages
    #[command(subcommand)]
    Model(ModelCommand),
    /// Releases: build, sign, promote, publish
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Repositories of signed metadata: delegations, endorsements, copies
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Releases on a stick, for sites without a network
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Devices of the fleet
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Rollouts of releases
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Ask the assistant on a machine
    #[command(after_help = "Example:\n  socle ask 'Comment installer une imprimante ?'")]
    Ask(AskArgs),
    /// Run the whole path on this machine and check every promise
    Demo(DemoArgs),
    /// Print shell completions
    #[command(after_help = "Example:\n  socle completions bash > /etc/bash_completion.d/socle")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// `socle release …`
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Make an unsigned release from an agent and model packages
    #[command(
        after_help = "Example:\n  socle release build --name 2026.11.1 --counter 1 --env prod --agent ./socle-agent --model ./packages/it-faq --out ./r1"
    )]
    Build(BuildArgs),
    /// Add signatures; on other machines, with other keys, until the threshold is met
    #[command(
        after_help = "Examples:\n  socle release sign --release ./r1 --key ./targets-1.pem --root ./keys/metadata/1.root.json\n  socle release sign --release ./r1 --role prod --key ./approver-2.pem --root ./targets.json"
    )]
    Sign(SignArgs),
    /// Bring signatures together that were made on copies of the release
    #[command(
        after_help = "Example:\n  socle release merge --release ./r1 --root ./keys/metadata/1.root.json --from /media/alice/targets.json --from /media/bob/targets.json"
    )]
    Merge(MergeArgs),
    /// List the same release for another environment, to be signed by those who answer for that
    #[command(
        after_help = "Example:\n  socle release promote --release ./r1 --env prod --role prod --previous ./prod.json\n  socle release sign --release ./r1 --role prod --root ./targets.json --key approver-1.pem"
    )]
    Promote(PromoteArgs),
    /// Make the permit that lets one device go back to one older release
    #[command(
        after_help = "Example:\n  socle release permit --fleet hospital-7 --device <id> --release <sha256> --out permit.json\n  socle repo sign permit.json --parent 1.root.json --key targets-1.pem --key targets-2.pem\n  socle release permit-publish permit.json\nand then assign the release to the device: socle device assign <id> <release>"
    )]
    Permit(PermitArgs),
    /// Send a signed permit to the controller
    #[command(after_help = "Example:\n  socle release permit-publish permit.json")]
    PermitPublish(PermitPublishArgs),
    /// Send a signed release to the controller
    #[command(
        after_help = "Example:\n  socle release publish --release ./r1 --root ./keys/metadata/1.root.json --controller https://controller:8443 --ca ca.pem --token-file token"
    )]
    Publish(PublishCommand),
}

/// Arguments of `socle release publish`.
#[derive(Debug, Args)]
pub struct PublishCommand {
    /// What to publish
    #[command(flatten)]
    pub publish: PublishArgs,
    /// Root metadata, to publish it first where the controller has none
    #[arg(long)]
    pub root: Option<std::path::PathBuf>,
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
}

/// Arguments of `socle release permit-publish`.
#[derive(Debug, Args)]
pub struct PermitPublishArgs {
    /// The signed permit
    pub permit: std::path::PathBuf,
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
}

/// Why a command failed; the source says more.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// `keys`.
    #[error("keys")]
    Keys(#[from] KeysError),
    /// `root`.
    #[error("root")]
    Root(#[from] RootError),
    /// `model`.
    #[error("model")]
    Model(#[from] ModelError),
    /// `release build`.
    #[error("release build")]
    Build(#[from] BuildError),
    /// `release sign` and `merge`.
    #[error("signing the release")]
    Sign(#[from] SignError),
    /// `release publish`.
    #[error("release publish")]
    Publish(#[from] PublishError),
    /// `release promote`.
    #[error("release promote")]
    Promote(#[from] PromoteError),
    /// `release permit`.
    #[error("release permit")]
    Permit(#[from] PermitError),
    /// `repo`.
    #[error("repo")]
    Repo(#[from] RepoError),
    /// `bundle`.
    #[error("bundle")]
    Bundle(#[from] BundleError),
    /// A call.
    #[error("calling the controller")]
    Api(#[from] ApiError),
    /// A file.
    #[error("reading a file")]
    File(#[from] FileError),
    /// `device`.
    #[error("device")]
    Device(#[from] DeviceError),
    /// `rollout`.
    #[error("rollout")]
    Rollout(#[from] RolloutError),
    /// `ask`.
    #[error("ask")]
    Ask(#[from] AskError),
    /// `demo`.
    #[error("demo")]
    Demo(#[from] DemoError),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Does what the words say.
pub fn run(cli: &Cli, now: UnixMs) -> Result<(), CommandError> {
    let terminal = Terminal::new(if cli.json { Audience::Machine } else { Audience::Person });
    match &cli.command {
        Command::Keys(command) => Ok(keys::run(command, now, &terminal)?),
        Command::Root(command) => Ok(root::run(command, now, &terminal)?),
        Command::Model(command) => Ok(model::run(command, &terminal)?),
        Command::Release(command) => release(command, now, &terminal),
        Command::Repo(command) => Ok(repo::run(command, now, &terminal)?),
        Command::Bundle(command) => Ok(bundle::run(command, now, &terminal)?),
        Command::Device(command) => Ok(device::run(command, &terminal)?),
        Command::Rollout(command) => Ok(rollout::run(command, &terminal)?),
        Command::Ask(args) => Ok(ask::run(args, &terminal)?),
        Command::Demo(args) => Ok(demo::run(args, &terminal)?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "socle", &mut script);
            Ok(io::stdout().lock().write_all(&script)?)
        }
    }
}

fn release(command: &ReleaseCommand, now: UnixMs, terminal: &Terminal) -> Result<(), CommandError> {
    match command {
        ReleaseCommand::Build(args) => {
            let built = build::build(args, now)?;
            let text = format!(
                "Release {} (counter {}) for {} with {} files in {}\n  SHA-256 {}\nNext: `socle release sign --help`.",
                built.manifest.name,
                built.manifest.counter,
                args.environment,
                built.manifest.files.len(),
                args.out.display(),
                built.digest,
            );
            let value = json!({ "release": built.digest, "name": built.manifest.name, "counter": built.manifest.counter, "environment": args.environment, "targets_version": built.targets_version });
            Ok(terminal.result(&text, &value)?)
        }
        ReleaseCommand::Sign(args) => Ok(say_standing(&sign::sign(args)?, terminal)?),
        ReleaseCommand::Merge(args) => Ok(say_standing(&sign::merge(args)?, terminal)?),
        ReleaseCommand::Promote(args) => {
            let promoted = promote::promote(args, now)?;
            let text = format!(
                "{} version {} lists release {} for {}\n  SHA-256 {}\nNext: `socle release sign --role {}`.",
                promoted.path.display(),
                promoted.version,
                promoted.name,
                args.environment,
                promoted.digest,
                args.role,
            );
            let value = json!({ "release": promoted.digest, "name": promoted.name, "environment": args.environment, "metadata": promoted.path, "version": promoted.version });
            Ok(terminal.result(&text, &value)?)
        }
        ReleaseCommand::Permit(args) => {
            let permit = permit::make(args, now)?;
            let text = format!(
                "{} lets device {} go back to release {} until {}, once it is signed\nNext: `socle repo sign`.",
                args.out.display(),
                args.device.short(),
                args.release.short(),
                permit.expires,
            );
            Ok(terminal.result(&text, &json!({ "permit": args.out, "content": permit }))?)
        }
        ReleaseCommand::PermitPublish(args) => {
            let permit = Blob::from(files::read(&args.permit, files::TEXT_BYTES_MAX)?);
            let controller = Controller::connect(&args.controller)?;
            let answer: Value = controller.post("permits", &json!({ "permit": permit }))?;
            let text = "Published the permit. Next: `socle device assign`.";
            Ok(terminal.result(text, &answer)?)
        }
        ReleaseCommand::Publish(args) => {
            let controller = Controller::connect(&args.controller)?;
            if let Some(root) = &args.root {
                controller.post_root(&files::read(root, files::TEXT_BYTES_MAX)?)?;
            }
            let sent = publish::publish(&args.publish, &controller, terminal)?;
            let text = format!(
                "Published: sent {} of {} objects, {} bytes",
                sent.objects, sent.all, sent.bytes
            );
            let value = json!({ "objects_sent": sent.objects, "objects": sent.all, "bytes_sent": sent.bytes });
            Ok(terminal.result(&text, &value)?)
        }
    }
}

fn say_standing(standing: &Standing, terminal: &Terminal) -> io::Result<()> {
    let next = if standing.complete() { ". Next: `socle release publish --help`." } else { "" };
    let value = json!({ "complete": standing.complete(), "standing": standing });
    terminal.result(&format!("{standing}{next}"), &value)
}
