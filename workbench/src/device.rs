//! Devices: tokens to enrol them, and what they run.

use std::io;

use clap::{Args, Subcommand};
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
            let token: Value =
                controller.post("tokens", &json!({ "ttl_s": u64::from(args.ttl_hours) * 3600 }))?;
            let text = format!(
                "{}\n\nFor one device, once, within {} hours. On the device:\n  socle-agent enrol --controller {} --token <token>",
                text_of(&token, "token"),
                args.ttl_hours,
                args.controller.controller,
            );
            terminal.result(&text, &token)?;
        }
        DeviceCommand::List(args) => {
            let answer: Value = Controller::connect(args)?.get("devices")?;
            terminal.result(&table(&answer, terminal), &answer)?;
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
    let mut lines =
        vec![terminal.paint(
            Colour::Bold,
            "device        name                 online  release          phase",
        )];
    lines.extend(devices.iter().take(DEVICES_SHOWN).map(|device| {
        let online = device["online"].as_bool() == Some(true);
        let (word, colour) = if online { ("yes", Colour::Green) } else { ("no ", Colour::Red) };
        format!(
            "{:12}  {:20} {}     {:16} {}",
            text_of(device, "short"),
            text_of(device, "name"),
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
