//! The machine's controller, its broker and the releases that there are, on our side of the network: a
//! power cut of the machine is none of theirs.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::nspawn::network::Network;
use crate::nspawn::wait;
use crate::shell;

const START_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
const CONTROLLER: &str = "https://localhost:8443";
const BROKER_PORT: &str = "8883";
/// Longest that a rollout is watched.
const ROLLOUT_S: &str = "240";

/// A release: its name, and what is in it.
struct Kind {
    name: &'static str,
    /// The agent's executable in the rig.
    agent: &'static str,
    /// Version of the model.
    model: &'static str,
    /// More words for `socle release build`.
    policy: &'static [&'static str],
}

/// Every release of the fleet, each newer than the one before. `next` is another build of the agent with
/// a retrained model, and `again` the same once more, for a machine that refused it; `slow` wants so many
/// answers that it is long on trial while nobody asks, `slower` so many that it is while many ask; the
/// others have faults.
const RELEASES: [Kind; 8] = [
    Kind { name: "first", agent: "socle-agent", model: "v1", policy: &[] },
    Kind { name: "next", agent: "socle-agent-next", model: "v2", policy: &[] },
    Kind { name: "again", agent: "socle-agent-next", model: "v2", policy: &[] },
    Kind {
        name: "slow",
        agent: "socle-agent-next",
        model: "v2",
        policy: &["--probation-answers", "800"],
    },
    Kind {
        name: "slower",
        agent: "socle-agent-next",
        model: "v2",
        policy: &["--probation-answers", "10000"],
    },
    Kind { name: "crashing", agent: "socle-crash-agent", model: "v2", policy: &["--tries", "10"] },
    Kind { name: "hanging", agent: "socle-hang-agent", model: "v2", policy: &["--tries", "1"] },
    Kind { name: "mute", agent: "socle-mute-agent", model: "v2", policy: &["--tries", "1"] },
];

/// Where the fleet runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'a> {
    /// Our machine.
    pub(crate) machine: &'a Machine,
    /// The network of the machine that is tested.
    pub(crate) network: &'a Network,
    /// The folder of the programs.
    pub(crate) rig: &'a Path,
}

impl Side<'_> {
    /// A program on our side of the network.
    fn command(&self, program: &Path) -> Command {
        self.network.command(self.machine, program)
    }
}

/// A fleet of one machine.
#[derive(Debug)]
pub(crate) struct Fleet<'a> {
    side: Side<'a>,
    folder: PathBuf,
    controller: Option<Child>,
    broker: Option<Child>,
}

impl<'a> Fleet<'a> {
    /// Makes keys, controller, broker, model packages and every release in `folder`, and starts it.
    pub(crate) fn make(side: Side<'a>, folder: &Path) -> Result<Self, Failure> {
        let fleet = Self { side, folder: folder.to_owned(), controller: None, broker: None };
        let rig = side.rig.display();
        let state = folder.join("controller");
        let state = state.to_string_lossy();
        let broker = folder.join("broker");
        let broker = broker.to_string_lossy();
        let controller = |words: &[&str]| {
            shell::run(fleet.program("socle-controller").args(words).stdout(std::io::stderr()))
        };
        controller(&["init", "--state", &state, "--fleet", "test", "--name", "localhost"])?;
        controller(&[
            "pki",
            "broker",
            "--state",
            &state,
            "--out",
            &broker,
            "--name",
            "localhost",
            "--port",
            BROKER_PORT,
        ])?;
        let config = folder.join("broker/mosquitto.conf");
        // It would become another user, who could not read its keys.
        OpenOptions::new()
            .append(true)
            .open(&config)
            .and_then(|mut file| file.write_all(b"\nuser root\n"))
            .map_err(|error| {
                Failure::new(format!("adding to `{}`", config.display())).because(error)
            })?;
        fleet.socle(&KEYS)?;
        for (version, number) in [("v1", "1"), ("v2", "2")] {
            let faq = format!("{rig}/faq/faq-{version}.jsonl");
            let calibration = format!("{rig}/faq/calibration.jsonl");
            let model = format!("{rig}/model");
            let out = format!("{version}/it-faq");
            std::fs::create_dir(folder.join(version))
                .map_err(|error| Failure::new("making a folder for a model").because(error))?;
            fleet.socle(&[
                "model",
                "pack",
                "--from",
                &model,
                "--faq",
                &faq,
                "--calibration",
                &calibration,
                "--name",
                "it-faq",
                "--version",
                number,
                "--out",
                &out,
            ])?;
        }
        let fleet = fleet.start()?;
        let mut previous = None;
        for (number, release) in (1..).zip(&RELEASES) {
            fleet.publish(release, number, previous)?;
            previous = Some(release.name);
        }
        Ok(fleet)
    }

    /// The fleet in `folder`, made before and ended since.
    pub(crate) fn resume(side: Side<'a>, folder: &Path) -> Result<Self, Failure> {
        Self { side, folder: folder.to_owned(), controller: None, broker: None }.start()
    }

    /// Starts broker and controller, and waits until that is connected to this.
    fn start(mut self) -> Result<Self, Failure> {
        let ready = self.folder.join("ready");
        drop(std::fs::remove_file(&ready));
        let mosquitto =
            self.side.machine.program("mosquitto").unwrap_or_else(|| PathBuf::from("mosquitto"));
        let mut broker = self.side.command(&mosquitto);
        broker.arg("-c").arg(self.folder.join("broker/mosquitto.conf"));
        self.broker = Some(self.spawn(&mut broker, "broker.log")?);
        let mut controller = self.program("socle-controller");
        controller.args([
            "serve",
            "--state",
            "controller",
            "--listen",
            "127.0.0.1:8443",
            "--broker",
        ]);
        controller.arg(format!("mqtts://localhost:{BROKER_PORT}")).arg("--ready-file").arg(&ready);
        self.controller = Some(self.spawn(&mut controller, "controller.log")?);
        match wait::until(START_MAX, LOOK, || ready.exists().then_some(())) {
            Some(()) => Ok(self),
            None => Err(Failure::new(format!("the controller did not start:\n{}", self.log()))),
        }
    }

    fn spawn(&self, command: &mut Command, log: &str) -> Result<Child, Failure> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join(log));
        let spawned = log.and_then(|log| {
            let other = log.try_clone()?;
            command.current_dir(&self.folder).stdin(Stdio::null()).stdout(log).stderr(other).spawn()
        });
        spawned.map_err(|error| {
            Failure::new(format!("`{}` could not be started", shell::line(command))).because(error)
        })
    }

    fn program(&self, name: &str) -> Command {
        let mut command = self.side.command(&self.side.rig.join(name));
        command.current_dir(&self.folder);
        command.env("SOCLE_CONTROLLER", CONTROLLER);
        command.env("SOCLE_CA", self.folder.join("controller/pki/ca.crt.pem"));
        command.env("SOCLE_TOKEN_FILE", self.folder.join("controller/admin-token"));
        command
    }

    /// `socle` with these words; what it prints, or why it failed.
    pub(crate) fn socle(&self, words: &[&str]) -> Result<String, Failure> {
        let mut command = self.program("socle");
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        let printed = shell::read(&mut command)?;
        if printed.status.success() {
            return Ok(printed.out);
        }
        let words = words.join(" ");
        Err(Failure::new(format!("`socle {words}`: {}{}", printed.out.trim(), printed.err.trim())))
    }

    fn json(&self, words: &[&str]) -> Result<Value, Failure> {
        let words = [&["--json"], words].concat();
        let text = self.socle(&words)?;
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|error| {
            Failure::new(format!("reading what `socle {}` says", words.join(" "))).because(error)
        })
    }

    fn publish(&self, release: &Kind, counter: u32, previous: Option<&str>) -> Result<(), Failure> {
        let agent = self.side.rig.join(release.agent);
        let agent = agent.to_string_lossy();
        let model = format!("{}/it-faq", release.model);
        let counter = counter.to_string();
        let before = previous.map(|name| format!("{name}/targets.json"));
        let mut build = vec![
            "release",
            "build",
            "--name",
            release.name,
            "--counter",
            &counter,
            "--agent",
            &agent,
            "--model",
            &model,
            "--out",
            release.name,
        ];
        build.extend(release.policy);
        if let Some(before) = &before {
            build.extend(["--previous", before]);
        }
        self.socle(&build)?;
        let sign = [&["release", "sign", "--release", release.name], &SIGN[..]].concat();
        self.socle(&sign)?;
        let publish = [&["release", "publish", "--release", release.name], &PUBLISH[..]].concat();
        self.socle(&publish).map(|_| ())
    }

    /// A token with which one machine may join.
    pub(crate) fn token(&self) -> Result<String, Failure> {
        let said = self.json(&["device", "enrol"])?;
        let token = said.get("token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| Failure::new("`socle device enrol` gave no token"))
    }

    /// Starts a rollout; its number.
    pub(crate) fn start_rollout(&self, release: &str) -> Result<u64, Failure> {
        let said = self.json(&["rollout", "start", release])?;
        said.get("id").and_then(Value::as_u64).ok_or_else(|| {
            Failure::new(format!("`socle rollout start {release}` gave no number: {said}"))
        })
    }

    /// Waits for a rollout's end; whether every machine took the release.
    pub(crate) fn watch_rollout(&self, number: u64) -> Result<bool, Failure> {
        let mut command = self.program("socle");
        command.args(["rollout", "watch", &number.to_string(), "--for-s", ROLLOUT_S]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let printed = shell::read(&mut command)?;
        match printed.status.code() {
            Some(0) if printed.out.contains("complete") => Ok(true),
            Some(1) if printed.out.contains("halted") => Ok(false),
            Some(_) | None => {
                let said = format!("{}{}", printed.out, printed.err);
                Err(Failure::new(format!("rollout {number} did not end: {}", said.trim())))
            }
        }
    }

    /// The last lines of the controller's log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("controller.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends broker and controller; the machine is on its own.
    pub(crate) fn stop(&mut self) {
        for mut child in [self.controller.take(), self.broker.take()].into_iter().flatten() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

const KEYS: [&str; 7] =
    ["keys", "init", "--out", "keys", "--online", "controller/online-keys.json", "--no-passphrase"];
const SIGN: [&str; 6] = [
    "--key",
    "keys/targets-1.pem",
    "--key",
    "keys/targets-2.pem",
    "--root",
    "keys/metadata/1.root.json",
];
const PUBLISH: [&str; 2] = ["--root", "keys/metadata/1.root.json"];
