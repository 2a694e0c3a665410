//! The command line: what may be typed, nothing of what it does.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Developer commands of Socle. All of them run from any folder of the checkout.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Prints one JSON object last on standard output; everything else goes to standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                     the whole path with real processes, in about a minute
  cargo xtask demo --mosquitto         the same over a real mosquitto with mutual TLS
  cargo xtask demo --keep              leaves the fleet running and prints its addresses
  cargo xtask test                     everything that CI runs
  cargo xtask test --only clippy       one stage of it
  ADVISORY_DB=~/advisory-db cargo xtask check
  cargo xtask crash --kills 200 --seed 7
  cargo xtask attacks --fuzz 10000     all attacks; tough and python-tuf as other clients
  cargo xtask crash --states           every cut, kill and fault of a modelled disk
  cargo xtask crash --blocks 200       power cuts of a disk under ext4; 2000 for the long form
  cargo xtask conformance              the node tests of ONNX beside the written list
  cargo xtask hostile                  hostile models and inputs at a real agent
  cargo xtask swap --swaps 50          releases replaced under load; no request may fail
  cargo xtask bench engine             the engine beside onnxruntime, OpenVINO and fastembed
  cargo xtask bench serve              the agent beside Triton and MLServer

Exit codes: 0 all held; 1 something did not; 2 wrong usage; 3 the machine lacks something (what,
and how to get it, is said); any other comes from the program that was driven.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetches the default model into the user's cache, verified byte for byte
    Fetch(Fetch),
    /// Runs the demo: a controller, three agents, four releases, every check
    Demo(Demo),
    /// Runs all that CI runs: formatting, lints, tidy, unit and integration tests, the demo
    Test(Stages),
    /// Holds lints, licences, advisories and systemd units, without starting the product
    Check(Stages),
    /// Tries every attack, compares with other TUF clients, and feeds random inputs
    Attacks(Attacks),
    /// Kills processes at random moments of an update and sees that nothing is lost
    Crash(Crash),
    /// Replaces releases and the agent under load and sees that no request fails
    Swap(Swap),
    /// Tries the node tests of ONNX on the engine; what comes of each is written down
    Conformance(Conformance),
    /// Gives hostile models and inputs to a real agent, which must go on serving its good model
    Hostile(Hostile),
    /// Boots machines with systemd, and does to the package what machines go through
    Nspawn(Nspawn),
    /// What `nspawn` asks a machine with
    #[command(hide = true)]
    Load(Load),
    /// Builds the Debian package and prints where it is
    Package(Package),
    /// Measures the launcher: its size, and the time from its start to the gateway's first answer
    Launcher(Launcher),
    /// Measures requests at an agent of a running fleet
    Bench(Bench),
    /// Compares with other programs
    #[command(subcommand)]
    Peer(Peer),
}

/// Options of `fetch`.
#[derive(Args, Debug)]
pub(crate) struct Fetch {
    #[command(flatten)]
    pub(crate) model: Model,
    /// multilingual-e5-small instead, in French and English at 4 bits: builds the programs, fetches the weights and lists
    /// of words (124 MB), and imports them
    #[arg(long, conflicts_with = "model")]
    pub(crate) multilingual: bool,
}

/// Where the model is.
#[derive(Args, Debug)]
pub(crate) struct Model {
    /// A folder with model.onnx and tokenizer.json, instead of the default model
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
}

/// The demo's options.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) model: Model,
    /// Leaves the fleet running and prints its addresses
    #[arg(long)]
    pub(crate) keep: bool,
    /// Uses a mosquitto of its own instead of the embedded broker
    #[arg(long)]
    pub(crate) mosquitto: bool,
    /// More options for `socle demo`
    #[arg(last = true, value_name = "OPTION")]
    pub(crate) more: Vec<OsString>,
}

/// Which stages are run.
#[derive(Args, Debug)]
pub(crate) struct Stages {
    /// Runs only this stage; may be given more than once
    #[arg(long, value_name = "STAGE")]
    pub(crate) only: Vec<String>,
}

/// How much is attacked.
#[derive(Args, Debug)]
pub(crate) struct Attacks {
    /// Repositories that the clients are compared on; 86 is one of each kind
    #[arg(long, default_value_t = 860)]
    pub(crate) cases: u64,
    /// Random inputs to each reader of bytes as well; 1000000 in the long form
    #[arg(long, default_value_t = 0, value_name = "INPUTS")]
    pub(crate) fuzz: u64,
    /// Repeats the run of this seed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Only writes the table of attacks into docs/threat-model.md
    #[arg(long)]
    pub(crate) write: bool,
}

/// The crash harness's options.
#[derive(Args, Debug)]
pub(crate) struct Crash {
    /// How many processes are killed
    #[arg(long, default_value_t = 200)]
    pub(crate) kills: u32,
    /// Cuts the power of a disk under a real file system instead, this many times; needs root
    #[arg(long, value_name = "STATES", conflicts_with_all = ["kills", "model"])]
    pub(crate) blocks: Option<u32>,
    /// Besides, has so many disks fail with input/output errors
    #[arg(long, value_name = "DISKS", requires = "blocks", default_value_t = 0)]
    pub(crate) faults: u32,
    /// Has that disk ignore flushes, which must then show as losses
    #[arg(long, requires = "blocks")]
    pub(crate) without_fsync: bool,
    /// Enumerates instead what cuts, kills, full and failing disks leave of a modelled disk, and leaves each sync out
    #[arg(long, conflicts_with_all = ["kills", "model", "blocks"])]
    pub(crate) states: bool,
    /// Has every operation fail in every way, and not one in two hundred
    #[arg(long, requires = "states")]
    pub(crate) full: bool,
    /// Repeats the run of this seed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) model: Model,
    /// More options for the harness
    #[arg(last = true, value_name = "OPTION")]
    pub(crate) more: Vec<OsString>,
}

/// How often the launcher is measured.
#[derive(Args, Debug)]
pub(crate) struct Launcher {
    #[command(flatten)]
    pub(crate) model: Model,
    /// Starts of the gateway, of each kind
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: u32,
}

/// Which scenarios are run.
#[derive(Args, Debug)]
pub(crate) struct Nspawn {
    /// Runs only this scenario, after those it starts from; may be given more than once
    #[arg(long, value_name = "SCENARIO")]
    pub(crate) only: Vec<String>,
    /// Runs the scenarios of the quick form
    #[arg(long, conflicts_with = "only")]
    pub(crate) quick: bool,
    /// Names the scenarios and runs none
    #[arg(long)]
    pub(crate) list: bool,
    /// Where the programs lie; they are built if this is not given
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// A socle-launch for the package; one that is linked statically is built if this is not given
    #[arg(long, value_name = "FILE")]
    pub(crate) launch: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: Model,
}

/// Whom to ask.
#[derive(Args, Debug)]
pub(crate) struct Load {
    /// The file that holds the agent's token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
}

/// The swap harness's options.
#[derive(Args, Debug)]
pub(crate) struct Swap {
    /// How many releases commit
    #[arg(long, default_value_t = 50)]
    pub(crate) swaps: u32,
    /// How many more, between them, have to be given up
    #[arg(long, default_value_t = 10)]
    pub(crate) poisoned: u32,
    /// How many requests are asked, at least
    #[arg(long, default_value_t = 100_000)]
    pub(crate) requests: u64,
    /// Repeats the run of this seed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) model: Model,
    /// More options for the harness
    #[arg(last = true, value_name = "OPTION")]
    pub(crate) more: Vec<OsString>,
}

/// Which tests of ONNX are tried.
#[derive(Args, Debug)]
pub(crate) struct Conformance {
    /// Writes the list of what is expected again
    #[arg(long, conflicts_with = "only")]
    pub(crate) write: bool,
    /// Tries only tests whose names contain this, and says why each does not pass
    #[arg(long, value_name = "PART")]
    pub(crate) only: Option<String>,
}

/// Which hostile cases are tried.
#[derive(Args, Debug)]
pub(crate) struct Hostile {
    /// Tries only cases whose names contain this
    #[arg(long, value_name = "PART")]
    pub(crate) only: Option<String>,
    /// Tries one case of each kind, as CI does
    #[arg(long)]
    pub(crate) quick: bool,
    /// Random inputs to each reader of model packages as well; 1000000 in the long form
    #[arg(long, default_value_t = 0, value_name = "INPUTS")]
    pub(crate) fuzz: u64,
    /// Repeats the random inputs of this seed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) model: Model,
}

/// What is packed.
#[derive(Args, Debug)]
pub(crate) struct Package {
    /// Where socle-agent lies; it is built if this is not given
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// A socle-launch; one that is linked statically is built if this is not given
    #[arg(long, value_name = "FILE")]
    pub(crate) launch: Option<PathBuf>,
    /// Where the package goes [default: target/deb]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Another version than the workspace's
    #[arg(long, value_name = "VERSION")]
    pub(crate) deb_version: Option<String>,
}

/// Which agent is asked.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// An agent that runs already, as http://127.0.0.1:PORT; else a fleet is started for it
    #[arg(long, value_name = "URL", requires = "token_file")]
    pub(crate) agent: Option<String>,
    /// The file that holds that agent's token
    #[arg(long, value_name = "FILE", requires = "agent")]
    pub(crate) token_file: Option<PathBuf>,
}

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Requests of each kind
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) requests: u32,
    /// Connections at the same time in the load case
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) connections: u32,
    #[command(subcommand)]
    pub(crate) what: Option<BenchWhat>,
}

/// What else is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchWhat {
    /// Measures updates: bytes moved, staging rate beside sha256sum, peak memory for a 4 GB release
    Update(BenchUpdate),
    /// Measures the engine beside onnxruntime, OpenVINO and fastembed: time, throughput, memory, accuracy
    Engine(BenchPeers),
    /// Measures the agent beside Triton and MLServer: the highest request rate that each keeps
    Serve(BenchPeers),
}

/// How we are measured beside peers.
#[derive(Args, Debug)]
pub(crate) struct BenchPeers {
    /// More options for the benchmark, such as --threads, --only, --by cpu (engine) or --seconds, --only, --skip, --ways, --share (serve)
    #[arg(last = true, value_name = "OPTION")]
    pub(crate) more: Vec<OsString>,
}

/// How updates are measured.
#[derive(Args, Debug)]
pub(crate) struct BenchUpdate {
    #[command(flatten)]
    pub(crate) model: Model,
    /// An agent, to measure what the same agent moves when it is rebuilt after a change
    #[arg(long, value_name = "FILE", requires = "agent_rebuilt")]
    pub(crate) agent_before: Option<PathBuf>,
    /// That agent, rebuilt
    #[arg(long, value_name = "FILE", requires = "agent_before")]
    pub(crate) agent_rebuilt: Option<PathBuf>,
    /// More options for the benchmark, such as --staging-bytes, --rounds, --memory-bytes, --work
    #[arg(last = true, value_name = "OPTION")]
    pub(crate) more: Vec<OsString>,
}

/// Which peer we are compared with.
#[derive(Debug, Subcommand)]
pub(crate) enum Peer {
    /// onnxruntime on the same model file: the embeddings must be the same
    Embeddings(Embeddings),
    /// Unmodified clients from the package index: tritonclient, kserve, openai, huggingface_hub, cohere, mlflow; then the
    /// same requests to the agent and to Triton, whose differences must be those that are written down
    Clients(Clients),
}

/// What clients ask.
#[derive(Args, Debug)]
pub(crate) struct Clients {
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only writes the list of differences to Triton into docs/guides/triton.md
    #[arg(long)]
    pub(crate) write: bool,
}

/// What is compared.
#[derive(Args, Debug)]
pub(crate) struct Embeddings {
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Arguments, Command};

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_goes_to_the_demo() {
        let words = ["xtask", "demo", "--json", "--", "--state", "x"];
        let arguments = Arguments::try_parse_from(words).unwrap();
        assert!(arguments.json);
        let Command::Demo(demo) = arguments.command else { panic!("another command") };
        assert_eq!(demo.more, ["--state", "x"]);
    }

    #[test]
    fn an_agent_without_its_token_is_refused() {
        let words = ["xtask", "bench", "--agent", "http://127.0.0.1:1"];
        assert!(Arguments::try_parse_from(words).is_err());
    }
}
