//! The demo's controller and agents: set up, started, enrolled, asked.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    api::{self, ApiError, Controller, ControllerArgs},
    demo::{
        broker::{self, BrokerError},
        process::{self, Process, ProcessError},
        tls::{Identity, TlsError},
        traffic::Target,
        wait::{self, Look, Overdue},
    },
    files::{self, Access, FileError},
};

/// How long a program may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Files of the demo are small.
const SMALL: u64 = 1 << 20;

/// Why the fleet does not stand.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A program.
    #[error("running a program")]
    Process(#[from] ProcessError),
    /// A file.
    #[error("handling the demo's files")]
    File(#[from] FileError),
    /// The controller's API.
    #[error("asking the controller")]
    Api(#[from] ApiError),
    /// The broker.
    #[error("starting the broker")]
    Broker(#[from] BrokerError),
    /// Certificates.
    #[error("reading the demo's certificates")]
    Tls(#[from] TlsError),
    /// It takes too long.
    #[error("waiting")]
    Overdue(#[from] Overdue),
    /// A program ended that should run.
    #[error("`{program}` ended early; its log is {}", .log.display())]
    Ended {
        /// Which.
        program: String,
        /// Where it says why.
        log: PathBuf,
    },
    /// The certificate authority cannot be read.
    #[error("the controller's certificate authority is not a certificate in PEM")]
    Ca,
    /// An answer that is not as agreed.
    #[error("the controller's answer lacks `{0}`")]
    Lacks(&'static str),
}

/// Where things lie.
#[derive(Clone, Debug)]
pub struct Ground {
    /// All state of the demo.
    pub state: PathBuf,
    /// The programs.
    pub bin: PathBuf,
}

impl Ground {
    /// A program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The controller's folder.
    pub fn controller(&self) -> PathBuf {
        self.state.join("controller")
    }

    /// A file of the controller's certificates.
    pub fn pki(&self, name: &str) -> PathBuf {
        self.controller().join("pki").join(name)
    }

    /// The controller's public keys for snapshot and timestamp.
    pub fn online_keys(&self) -> PathBuf {
        self.controller().join("online-keys.json")
    }

    /// A log file.
    pub fn log(&self, name: &str) -> PathBuf {
        self.state.join("logs").join(format!("{name}.log"))
    }

    /// The controller's certificate towards the broker: the eavesdropper borrows it.
    pub fn broker_client(&self) -> Result<std::sync::Arc<rustls::ClientConfig>, TlsError> {
        let (certificate, key) =
            (self.pki("broker-client.crt.pem"), self.pki("broker-client.key.pem"));
        Identity { certificate: &certificate, key: &key, ca: &self.pki("ca.crt.pem") }.client()
    }
}

/// Makes the controller's keys and certificates, unless they are there.
pub fn set_up_controller(ground: &Ground) -> Result<(), FleetError> {
    files::make_folder(&ground.state.join("logs"))?;
    if ground.pki("ca.crt.pem").exists() {
        return Ok(());
    }
    let state = ground.controller().display().to_string();
    let args =
        ["init", "--state", &state, "--fleet", "demo", "--name", "localhost"].map(str::to_owned);
    process::output(&ground.program("socle-controller"), &args)?;
    Ok(())
}

/// Starts the demo's own broker with a certificate of the controller's authority.
pub fn start_broker(ground: &Ground) -> Result<String, FleetError> {
    let out = ground.state.join("broker");
    let (state, folder) = (ground.controller().display().to_string(), out.display().to_string());
    let args = ["pki", "broker", "--state", &state, "--out", &folder, "--name", "localhost"]
        .map(str::to_owned);
    process::output(&ground.program("socle-controller"), &args)?;
    let (certificate, key) = (out.join("broker.crt.pem"), out.join("broker.key.pem"));
    let tls = Identity { certificate: &certificate, key: &key, ca: &ground.pki("ca.crt.pem") }
        .server()?;
    Ok(broker::start(tls)?)
}

/// The running controller.
pub struct RunningController {
    /// Its API.
    pub api: Controller,
    /// Its address.
    pub url: String,
    _process: Process,
}

/// Starts the controller and waits until it is ready.
pub fn start_controller(ground: &Ground, broker: &str) -> Result<RunningController, FleetError> {
    let ready = ground.state.join("controller-ready.json");
    let port = broker::free_port()?;
    let url = format!("https://localhost:{port}");
    let args = [
        "serve".to_owned(),
        "--state".to_owned(),
        ground.controller().display().to_string(),
        "--listen".to_owned(),
        format!("127.0.0.1:{port}"),
        "--public-url".to_owned(),
        url.clone(),
        "--broker".to_owned(),
        broker.to_owned(),
        "--ready-file".to_owned(),
        ready.display().to_string(),
    ];
    let log = ground.log("controller");
    let mut process = Process::start(&ground.program("socle-controller"), &args, &log)?;
    wait::until("the controller to be ready", READY_WITHIN, || {
        if ready.exists() {
            Ok(Look::Done(()))
        } else if process.runs() {
            Ok(Look::NotYet("it is starting".into()))
        } else {
            Err(FleetError::Ended { program: "socle-controller".into(), log: log.clone() })
        }
    })?;
    let api = Controller::connect(&ControllerArgs {
        controller: url.clone(),
        ca: ground.pki("ca.crt.pem"),
        token_file: ground.controller().join("admin-token"),
    })?;
    Ok(RunningController { api, url, _process: process })
}

/// One machine of the demo.
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its device id.
    pub id: String,
    /// Its state folder.
    pub state: PathBuf,
    /// Its local API.
    pub target: Target,
    process: Process,
    log: PathBuf,
}

/// The factory slot that a package would install: the agent without any model.
pub fn make_factory(ground: &Ground) -> Result<PathBuf, FleetError> {
    let factory = ground.state.join("factory");
    files::make_folder(&factory.join("bin"))?;
    let agent = files::read(&ground.program("socle-agent"), files::OBJECT_BYTES_MAX)?;
    let path = factory.join("bin/socle-agent");
    files::write(&path, &agent, Access::All)?;
    make_executable(&path)?;
    let facts = json!({ "version": env!("CARGO_PKG_VERSION"), "sha256": protocol::digest::Digest::of(&agent) });
    files::write(&factory.join("factory.json"), facts.to_string().as_bytes(), Access::All)?;
    Ok(factory)
}

fn make_executable(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Enrols one machine with a fresh token and starts it.
pub fn start_machine(
    ground: &Ground,
    controller: &RunningController,
    factory: &Path,
    name: &str,
) -> Result<Machine, FleetError> {
    let state = ground.state.join(name);
    files::make_folder(&state)?;
    let token: Value = controller.api.post("tokens", &json!({ "ttl_s": 600 }))?;
    let token = token["token"].as_str().ok_or(FleetError::Lacks("token"))?.to_owned();
    let agent = ground.program("socle-agent");
    let shown = state.display().to_string();
    let enrol = [
        "enrol",
        "--state",
        &shown,
        "--controller",
        &controller.url,
        "--token",
        &token,
        "--name",
        name,
    ];
    process::output(&agent, &enrol.map(str::to_owned))?;

    let port = broker::free_port()?;
    let args = [
        "run".to_owned(),
        "--single".to_owned(),
        "--state".to_owned(),
        shown,
        "--factory".to_owned(),
        factory.display().to_string(),
        "--launch".to_owned(),
        ground.program("socle-launch").display().to_string(),
        "--listen".to_owned(),
        format!("127.0.0.1:{port}"),
    ];
    let log = ground.log(name);
    let process = Process::start(&agent, &args, &log)?;
    let identity: Value =
        serde_json::from_slice(&files::read(&state.join("identity/fleet.json"), SMALL)?)
            .unwrap_or_default();
    let id = identity["device"].as_str().ok_or(FleetError::Lacks("device"))?.to_owned();
    let target = Target { url: format!("http://127.0.0.1:{port}"), token: String::new() };
    let mut machine = Machine { name: name.to_owned(), id, state, target, process, log };
    machine.wait_for_api()?;
    Ok(machine)
}

impl Machine {
    /// `/v1/status`.
    pub fn status(&self) -> Result<Value, Box<ureq::Error>> {
        let mut answer = api::local_agent()
            .get(format!("{}/v1/status", self.target.url))
            .header("authorization", format!("Bearer {}", self.target.token))
            .header("connection", "close")
            .call()
            .map_err(Box::new)?;
        let text =
            answer.body_mut().with_config().limit(SMALL).read_to_string().map_err(Box::new)?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// Where its API token lies.
    pub fn token_file(&self) -> PathBuf {
        self.state.join("identity/api-token")
    }

    /// Stops the machine.
    pub fn stop(&mut self) -> io::Result<()> {
        self.process.end().map_err(io::Error::other)
    }

    fn wait_for_api(&mut self) -> Result<(), FleetError> {
        let token = self.token_file();
        let client = api::local_agent();
        let live = format!("{}/livez", self.target.url);
        let what = format!("{} to answer", self.name);
        wait::until(&what, READY_WITHIN, || {
            if !self.process.runs() {
                return Err(FleetError::Ended {
                    program: "socle-agent".into(),
                    log: self.log.clone(),
                });
            }
            Ok(match client.get(&live).call() {
                Ok(answer) if answer.status().is_success() && token.exists() => Look::Done(()),
                Ok(answer) => Look::NotYet(format!("status {}", answer.status())),
                Err(failure) => Look::NotYet(failure.to_string()),
            })
        })?;
        self.target.token = files::read_text(&token)?.trim().to_owned();
        Ok(())
    }
}
