//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use controller::link::relay::BrokerUrl;
use protocol::id::FleetId;

const EXAMPLES: &str = "\
Examples:
  socle-controller init --state /var/lib/socle-controller --fleet hospital-7 --name controller.lan
  socle-controller pki broker --state /var/lib/socle-controller --out /etc/mosquitto/socle \\
      --name broker.lan --port 8883
  socle-controller serve --state /var/lib/socle-controller --listen 0.0.0.0:8443 \\
      --broker mqtts://broker.lan:8883

Exit codes: 0 done or stopped as asked, 1 failed (the message says what to do), 2 wrong usage.
SOCLE_LOG sets what is logged, for example SOCLE_LOG=debug.";

/// The fleet controller: enrols devices, serves signed releases, rolls them out in waves, opens what devices report.
#[derive(Debug, Parser)]
#[command(name = "socle-controller", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new controller: certificate authority, keys, admin token.
    Init(Init),
    /// Certificates for the programs around the controller.
    Pki {
        #[command(subcommand)]
        command: PkiCommand,
    },
    /// Run the controller.
    Serve(Serve),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Write a broker's certificate, a mosquitto configuration and the access list.
    Broker(Broker),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Folder that will hold everything the controller must not lose.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Name of the fleet: 1 to 32 of a-z, 0-9 and -.
    #[arg(long, value_name = "NAME")]
    pub(crate) fleet: FleetId,
    /// Host name or address under which the controller is reached; repeat for more.
    #[arg(long = "name", value_name = "HOST", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Broker {
    /// The controller's state folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Folder to write the broker's files to.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Host name or address under which the broker is reached; repeat for more.
    #[arg(long = "name", value_name = "HOST", required = true)]
    pub(crate) names: Vec<String>,
    /// Port the broker listens on.
    #[arg(long, default_value_t = 8883)]
    pub(crate) port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The controller's state folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub(crate) listen: SocketAddr,
    /// The broker.
    #[arg(long, value_name = "mqtts://HOST:PORT")]
    pub(crate) broker: BrokerUrl,
    /// Address under which devices and people reach the controller [default: https://<first name>:<port>].
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Hours a timestamp holds, 1 to 720; it is signed again after a quarter of that. Devices that hear nothing newer
    /// for so long stop installing, not answering.
    #[arg(long, value_name = "HOURS", default_value_t = controller::init::TIMESTAMP_HOURS,
        value_parser = clap::value_parser!(u32).range(1..=720))]
    pub(crate) timestamp_hours: u32,
    /// File to write {"url","pid"} to once the controller listens and is connected; removed when it stops.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}
