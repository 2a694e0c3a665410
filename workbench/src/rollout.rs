//! Rollouts: started, watched, halted.

use std::{io, thread, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    api::{ApiError, Controller, ControllerArgs},
    terminal::{Colour, Terminal},
};

/// How often `watch` asks the controller.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// `socle rollout …`
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Roll a published release out: a canary wave, then the rest
    #[command(
        after_help = "Example:\n  socle rollout start 2026.11.2 --canary 1 --success-percent 100"
    )]
    Start(StartArgs),
    /// Follow a rollout until it is complete or halted; exit code 1 when halted
    #[command(after_help = "Example:\n  socle rollout watch 3")]
    Watch(WatchArgs),
    /// Halt a rollout: no device arms its release any more
    #[command(after_help = "Example:\n  socle rollout halt 3 --reason 'answers look wrong'")]
    Halt(HaltArgs),
}

/// Arguments of `socle rollout start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Name or digest of the release
    pub release: String,
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
    /// Devices in the first wave
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub canary: u32,
    /// Percent of a wave that must commit before the next opens
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub success_percent: u32,
    /// Seconds after which a device that said nothing counts as failed
    #[arg(long, default_value_t = 3600)]
    pub timeout_s: u64,
}

/// Arguments of `socle rollout watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Number of the rollout
    pub rollout: u64,
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
    /// Seconds to watch at most
    #[arg(long, default_value_t = 86_400)]
    pub for_s: u64,
}

/// Arguments of `socle rollout halt`.
#[derive(Debug, Args)]
pub struct HaltArgs {
    /// Number of the rollout
    pub rollout: u64,
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
    /// Why, for the log and the devices
    #[arg(long)]
    pub reason: String,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The controller.
    #[error("asking the controller")]
    Api(#[from] ApiError),
    /// The rollout was halted.
    #[error("rollout {0} was halted: {1}")]
    Halted(u64, String),
    /// It takes longer than we were told to wait.
    #[error(
        "rollout {0} is still running after {1} seconds; watch it again with `socle rollout watch {0}`"
    )]
    StillRunning(u64, u64),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle rollout …`.
pub fn run(command: &RolloutCommand, terminal: &Terminal) -> Result<(), RolloutError> {
    match command {
        RolloutCommand::Start(args) => {
            let controller = Controller::connect(&args.controller)?;
            let started = start(&controller, args)?;
            let text = format!(
                "Rollout {} started; follow it with `socle rollout watch {}`",
                started["id"], started["id"]
            );
            Ok(terminal.result(&text, &started)?)
        }
        RolloutCommand::Watch(args) => watch(args, terminal),
        RolloutCommand::Halt(args) => {
            let controller = Controller::connect(&args.controller)?;
            let path = format!("rollouts/{}/halt", args.rollout);
            let halted: Value = controller.post(&path, &json!({ "reason": args.reason }))?;
            Ok(terminal.result(&format!("Rollout {} is halted", args.rollout), &halted)?)
        }
    }
}

fn start(controller: &Controller, args: &StartArgs) -> Result<Value, ApiError> {
    let body = json!({
        "release": args.release,
        "waves": [{ "name": "canary", "devices": args.canary }, { "name": "rest", "percent": 100 }],
        "gate": { "success_percent": args.success_percent, "min_sample": 1, "timeout_s": args.timeout_s },
    });
    controller.post("rollouts", &body)
}

fn watch(args: &WatchArgs, terminal: &Terminal) -> Result<(), RolloutError> {
    let controller = Controller::connect(&args.controller)?;
    let path = format!("rollouts/{}", args.rollout);
    let mut shown = String::new();
    let rounds = args.for_s.saturating_mul(1000) / WATCH_EVERY.as_millis().max(1) as u64;
    for _ in 0..rounds.max(1) {
        let rollout: Value = controller.get(&path)?;
        let picture = picture(&rollout, terminal);
        if picture != shown {
            terminal.line(&picture)?;
            shown = picture;
        }
        match rollout["state"].as_str() {
            Some("complete") => {
                return Ok(terminal.result("Complete: every wave passed its gate.", &rollout)?);
            }
            Some("halted") => {
                terminal.result("Halted.", &rollout)?;
                let reason = rollout["reason"].as_str().unwrap_or_default().to_owned();
                return Err(RolloutError::Halted(args.rollout, reason));
            }
            _ => thread::sleep(WATCH_EVERY),
        }
    }
    Err(RolloutError::StillRunning(args.rollout, args.for_s))
}

fn picture(rollout: &Value, terminal: &Terminal) -> String {
    let waves = rollout["waves"].as_array().cloned().unwrap_or_default();
    let lines = waves.iter().map(|wave| {
        let devices = wave["devices"].as_array().cloned().unwrap_or_default();
        let dots: String = devices
            .iter()
            .map(|device| match device["status"].as_str().unwrap_or_default() {
                "committed" => terminal.paint(Colour::Green, "●"),
                "pending" => terminal.paint(Colour::Dim, "○"),
                "assigned" => terminal.paint(Colour::Yellow, "◐"),
                _ => terminal.paint(Colour::Red, "✗"),
            })
            .collect();
        format!(
            "  {:10} {:10} {dots}",
            wave["name"].as_str().unwrap_or("–"),
            wave["state"].as_str().unwrap_or("–")
        )
    });
    let heading = format!(
        "{} {}",
        rollout["name"].as_str().unwrap_or("–"),
        rollout["state"].as_str().unwrap_or("–")
    );
    std::iter::once(heading).chain(lines).collect::<Vec<_>>().join("\n")
}
