//! Devices: tokens to enrol them, and what they run.

use std::io;

use clap::{Args, Subcommand};
use protocol::id::Environment;
use serde_json::{Value, json};

use crate::{
    api::{ApiError, Controller, ControllerArgs},
    terminal::{Colour, Terminal},
};

/// Most devices that `list` asks for.
const DEVICES_SHOWN: usize = 200;

/// `socle device …`
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Make a single-use token for one device
    #[command(
        after_help = "Example:\n  socle device enrol --ttl-hours 24\nthen on the device:\n  socle-agent enrol --controller https://controller:8443 --token socle1.…"
    )]
    Enrol(EnrolArgs),
    /// List the fleet's devices
    #[command(
        after_help = "Example:\n  socle device list --json | jq '.devices[] | select(.online | not)'"
    )]
    List(ControllerArgs),
    /// Assign a release to one device, outside any rollout
    #[command(
        after_help = "Example:\n  socle device assign 3f2a9c 2026.11.2\n\nAn older release than the device runs needs a permit: `socle release permit --help`."
    )]
    Assign(AssignArgs),
    /// Show one device with its last events
    #[command(after_help = "Example:\n  socle device show 3f2a9c")]
    Show(ShowArgs),
}

/// Arguments of `socle device enrol`.
#[derive(Debug, Args)]
pub struct EnrolArgs {
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
    /// Environment the device will belong to: it takes only releases that are signed for it
    #[arg(long = "env", default_value = "prod")]
    pub environment: Environment,
    /// Hours until the token ceases to hold
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
    pub ttl_hours: u32,
}

/// Arguments of `socle device show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The device's id, or the start of it
    pub device: String,
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
}

/// Arguments of `socle device assign`.
#[derive(Debug, Args)]
pub struct AssignArgs {
    /// The device's id, or the start of it
    pub device: String,
    /// The release: its name or SHA-256
    pub release: String,
    /// Try it although the device quarantined it
    #[arg(long)]
    pub retry_quarantined: bool,
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The controller.
    #[error("asking the controller")]
    Api(#[from] ApiError),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle device …`.
pub fn run(command: &DeviceCommand, terminal: &Terminal) -> Result<(), DeviceError> {
    match command {
        DeviceCommand::Enrol(args) => {
            let controller = Controller::connect(&args.controller)?;
            let asked = json!({
                "ttl_s": u64::from(args.ttl_hours) * 3600, "environment": args.environment,
            });
            let token: Value = controller.post("tokens", &asked)?;
            let text = format!(
                "{}\n\nFor one device of {}, once, within {} hours. On the device:\n  socle-agent enrol --controller {} --token <token>",
                text_of(&token, "token"),
                args.environment,
                args.ttl_hours,
                args.controller.controller,
            );
            terminal.result(&text, &token)?;
        }
        DeviceCommand::List(args) => {
            let answer: Value = Controller::connect(args)?.get("devices")?;
            terminal.result(&table(&answer, terminal), &answer)?;
        }
        DeviceCommand::Assign(args) => {
            let controller = Controller::connect(&args.controller)?;
            let body = json!({
                "release": args.release, "retry_quarantined": args.retry_quarantined,
            });
            let path = format!("devices/{}/assign", args.device);
            let answer: Value = controller.post(&path, &body)?;
            let text = format!("Assigned {} to {}", text_of(&answer, "release"), args.device);
            terminal.result(&text, &answer)?;
        }
        DeviceCommand::Show(args) => {
            let controller = Controller::connect(&args.controller)?;
            let device: Value = controller.get(&format!("devices/{}", args.device))?;
            let text = serde_json::to_string_pretty(&device).map_err(io::Error::from)?;
            terminal.result(&text, &device)?;
        }
    }
    Ok(())
}

fn table(answer: &Value, terminal: &Terminal) -> String {
    let devices = answer["devices"].as_array().cloned().unwrap_or_default();
    if devices.is_empty() {
        return "No device is enrolled. Make a token with `socle device enrol`.".into();
    }
    let mut lines = vec![terminal.paint(
        Colour::Bold,
        "device        name                 env       online  release          phase",
    )];
    lines.extend(devices.iter().take(DEVICES_SHOWN).map(|device| {
        let online = device["online"].as_bool() == Some(true);
        let (word, colour) = if online { ("yes", Colour::Green) } else { ("no ", Colour::Red) };
        format!(
            "{:12}  {:20} {:9} {}     {:16} {}",
            text_of(device, "short"),
            text_of(device, "name"),
            text_of(device, "environment"),
            terminal.paint(colour, word),
            device["committed"]["name"].as_str().unwrap_or("factory"),
            text_of(device, "phase"),
        )
    }));
    if devices.len() > DEVICES_SHOWN {
        lines.push(format!("… and {} more; --json lists all", devices.len() - DEVICES_SHOWN));
    }
    lines.join("\n")
}

fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("–")
}
