//! Triton and MLServer, each with onnxruntime and with a model that gives back what it gets.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    crash::bench::instant,
    serving::wire::{Address, Connection, Target},
};

/// Longest wait for a server to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// `timeout` ends a server after this, should we be killed before we end it.
const LIFE_SECONDS: &str = "7200";

/// What peers are made from.
#[derive(Clone, Debug)]
pub struct Ground {
    /// A Python with the server.
    pub python: PathBuf,
    /// Folder of the models' scripts.
    pub scripts: PathBuf,
    /// The encoder, an ONNX file for onnxruntime, with its tokenizer beside it.
    pub encoder: PathBuf,
    /// Width of its embeddings.
    pub dim: u32,
    /// How the two cores are shared out.
    pub share: Share,
}

/// Ways to use two cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// Two copies of the model with one thread each.
    Copies,
    /// One copy with two threads.
    Threads,
}

/// A running peer. It is killed when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Peer {
    /// Starts Triton in `folder`.
    ///
    /// # Errors
    /// It does not answer in time; the log is named.
    pub fn triton(folder: &Path, ground: &Ground) -> anyhow::Result<Self> {
        let site = site_packages(&ground.python)?;
        let bundled = site.join("pytriton/tritonserver");
        let backends = folder.join("backends");
        let python = backends.join("python");
        fs::create_dir_all(&python)?;
        let version = site.parent().and_then(Path::file_name).context("no Python version")?;
        let version = version.to_string_lossy().replace("python", "");
        for file in ["libtriton_python.so", "triton_python_backend_utils.py"] {
            copy(&bundled.join("backends/python").join(file), &python.join(file))?;
        }
        let stub = "triton_python_backend_stub";
        let from = bundled.join("python_backend_stubs").join(version).join(stub);
        copy(&from, &python.join(stub))?;
        let models = folder.join("models");
        let (copies, _) = shares(ground.share);
        let encoder = format!(
            "max_batch_size: 32\ninput [{{ name: \"text\" data_type: TYPE_STRING dims: [1] }}]\noutput [{{ name: \"embedding\" data_type: TYPE_FP32 dims: [{}] }}]\ninstance_group [{{ count: {copies} kind: KIND_CPU }}]\ndynamic_batching {{ }}\n",
            ground.dim
        );
        let identity = "max_batch_size: 0\ninput [{ name: \"numbers\" data_type: TYPE_FP32 dims: [-1] }]\noutput [{ name: \"same\" data_type: TYPE_FP32 dims: [-1] }]\ninstance_group [{ count: 1 kind: KIND_CPU }]\n";
        for (name, config) in [("encoder", encoder.as_str()), ("identity", identity)] {
            let place = models.join(name).join("1");
            fs::create_dir_all(&place)?;
            copy(&ground.scripts.join(format!("triton_{name}.py")), &place.join("model.py"))?;
            let head = format!("name: \"{name}\"\nbackend: \"python\"\n");
            put(&models.join(name).join("config.pbtxt"), &format!("{head}{config}"))?;
        }
        let address = free()?;
        let mut command = guarded(&bundled.join("bin/tritonserver"));
        command
            .arg(format!("--model-repository={}", models.display()))
            .arg(format!("--backend-directory={}", backends.display()))
            .arg(format!("--http-address={}", address.ip()))
            .arg(format!("--http-port={}", address.port()))
            .args(["--allow-grpc=false", "--allow-metrics=false"])
            .env("LD_LIBRARY_PATH", site.join("nvidia_pytriton.libs"));
        start(command, ground, &site, address, folder, "triton")
    }

    /// Starts MLServer in `folder`.
    ///
    /// # Errors
    /// It does not answer in time; the log is named.
    pub fn mlserver(folder: &Path, ground: &Ground) -> anyhow::Result<Self> {
        let site = site_packages(&ground.python)?;
        let (address, other) = (free()?, free()?);
        let workers = match ground.share {
            Share::Copies => 2,
            // In the server's own process.
            Share::Threads => 0,
        };
        let settings = serde_json::json!({
            "host": address.ip().to_string(),
            "http_port": address.port(),
            "grpc_port": other.port(),
            "metrics_endpoint": null,
            "parallel_workers": workers,
        });
        let models = folder.join("models");
        for (name, class) in [("encoder", "Encoder"), ("identity", "Identity")] {
            let mut model = serde_json::json!({
                "name": name,
                "implementation": format!("mlserver_models.{class}"),
            });
            if let (true, Some(fields)) = (name == "encoder", model.as_object_mut()) {
                fields.insert("max_batch_size".to_owned(), 32.into());
                fields.insert("max_batch_time".to_owned(), 0.001.into());
            }
            fs::create_dir_all(models.join(name))?;
            put(&models.join(name).join("model-settings.json"), &model.to_string())?;
        }
        put(&models.join("settings.json"), &settings.to_string())?;
        let mut command = guarded(&ground.python);
        command.args(["-c", "from mlserver.cli import main; main()", "start"]).arg(&models);
        start(command, ground, &site, address, folder, "mlserver")
    }

    /// Where `model` is asked.
    pub fn target(&self, model: &str) -> Target {
        Target {
            address: Address::Tcp(self.address),
            path: format!("/v2/models/{model}/infer"),
            headers: String::new(),
        }
    }

    /// Ends it: in order, and if that takes too long by force.
    ///
    /// # Errors
    /// It is not there any more.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.terminate()?;
        let until = instant() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(instant() < until, "the peer did not end; its log is {}", self.log.display());
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn terminate(&self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process")?, Signal::TERM).context("ending a peer")
    }

    /// Waits until `request` is answered with 200.
    fn wait(&mut self, request: &Target, body: &str) -> anyhow::Result<()> {
        let until = instant() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            let asked = Connection::open(&request.address)
                .and_then(|mut open| open.ask(&request.request(body)).map(|(status, _)| status));
            if matches!(asked, Ok(200)) {
                return Ok(());
            }
            ensure!(instant() < until, "it did not answer within {PATIENCE:?}: {asked:?}");
            thread::sleep(POLL);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already; `timeout` passes its own end on to the server.
        if self.terminate().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// A program under `timeout`, so that it ends even if we do not end it.
fn guarded(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "10", LIFE_SECONDS]).arg(program);
    command
}

fn start(
    mut command: Command,
    ground: &Ground,
    site: &Path,
    address: SocketAddr,
    folder: &Path,
    name: &str,
) -> anyhow::Result<Peer> {
    let log = folder.join(format!("{name}.log"));
    let file = File::create(&log).context("making a log")?;
    let path = std::env::join_paths([site, &ground.scripts]).context("joining paths")?;
    let (_, threads) = shares(ground.share);
    command
        .env("PEER_PATH", &path)
        .env("PYTHONPATH", &ground.scripts)
        .env("MODEL", &ground.encoder)
        .env("TOKENIZER", ground.encoder.with_file_name("tokenizer.json"))
        .env("THREADS", threads.to_string())
        .env("TOKENIZERS_PARALLELISM", "false")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let child = command.spawn().with_context(|| format!("starting {name}"))?;
    let mut peer = Peer { child, address, log };
    let encoder = peer.target("encoder");
    let waited = peer.wait(&encoder, &text_body("ready", "[1,1]"));
    waited.with_context(|| format!("{name}; its log is {}", peer.log.display()))?;
    Ok(peer)
}

/// A request of the Open Inference Protocol for the embedding of one text.
pub fn text_body(text: &str, shape: &str) -> String {
    let text = serde_json::Value::from(text);
    format!(
        r#"{{"inputs":[{{"name":"text","datatype":"BYTES","shape":{shape},"data":[{text}]}}]}}"#
    )
}

/// Copies and threads of each.
const fn shares(share: Share) -> (u32, u32) {
    match share {
        Share::Copies => (2, 1),
        Share::Threads => (1, 2),
    }
}

/// `lib/python3.x/site-packages` of the environment that `python` belongs to.
fn site_packages(python: &Path) -> anyhow::Result<PathBuf> {
    let root = python.ancestors().nth(2).context("no environment")?;
    let found = fs::read_dir(root.join("lib"))?.flatten().find_map(|entry| {
        let site = entry.path().join("site-packages");
        site.is_dir().then_some(site)
    });
    found.with_context(|| format!("{} has no packages", root.display()))
}

/// An address that is free now.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "settings of a server that lives for minutes")]
fn put(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
