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
    crash::{bench::instant, processes},
    serving::{
        processor::Group,
        target::{Form, Link, Target, Tensor},
        wire::Address,
    },
};

/// Longest wait for a server to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// `timeout` ends a server after this, should we be killed before we end it.
const LIFE_SECONDS: &str = "7200";

/// The version of Triton's models, which is a number there.
pub const VERSION: &str = "1";

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
    /// The encoder's name.
    pub model: String,
    /// How the two cores are shared out.
    pub share: Share,
    /// What Triton is told of batches.
    pub batches: Batches,
}

/// Who makes batches of what Triton is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batches {
    /// Triton, of whole requests; its shapes are of one text then.
    Triton,
    /// Nobody: a request is a batch, as its shapes say.
    Nobody,
}

impl Ground {
    /// The shape of one text.
    pub const fn shape(&self) -> &'static [i64] {
        match self.batches {
            Batches::Triton => &[1, 1],
            Batches::Nobody => &[1],
        }
    }
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
    rest: SocketAddr,
    /// Where it listens for gRPC; none of MLServer, whose REST alone is compared.
    grpc: Option<SocketAddr>,
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
        let dim = ground.dim;
        let shape = match ground.batches {
            Batches::Triton => format!(
                "max_batch_size: 32\ndynamic_batching {{ }}\ninput [{{ name: \"text\" data_type: TYPE_STRING dims: [1] }}]\noutput [{{ name: \"embedding\" data_type: TYPE_FP32 dims: [{dim}] }}]\n"
            ),
            Batches::Nobody => format!(
                "max_batch_size: 0\ninput [{{ name: \"text\" data_type: TYPE_STRING dims: [-1] }}]\noutput [{{ name: \"embedding\" data_type: TYPE_FP32 dims: [-1, {dim}] }}]\n"
            ),
        };
        let encoder = format!("{shape}instance_group [{{ count: {copies} kind: KIND_CPU }}]\n");
        let identity = "max_batch_size: 0\ninput [{ name: \"numbers\" data_type: TYPE_FP32 dims: [-1] }]\noutput [{ name: \"same\" data_type: TYPE_FP32 dims: [-1] }]\ninstance_group [{ count: 1 kind: KIND_CPU }]\n";
        let encoder_name = ground.model.as_str();
        let all = [(encoder_name, "encoder", encoder.as_str()), ("identity", "identity", identity)];
        for (name, script, config) in all {
            let place = models.join(name).join(VERSION);
            fs::create_dir_all(&place)?;
            copy(&ground.scripts.join(format!("triton_{script}.py")), &place.join("model.py"))?;
            let head = format!("name: \"{name}\"\nbackend: \"python\"\n");
            put(&models.join(name).join("config.pbtxt"), &format!("{head}{config}"))?;
        }
        let (rest, grpc) = (free()?, free()?);
        let mut command = guarded(&bundled.join("bin/tritonserver"));
        command
            .arg(format!("--model-repository={}", models.display()))
            .arg(format!("--backend-directory={}", backends.display()))
            .arg(format!("--http-address={}", rest.ip()))
            .arg(format!("--http-port={}", rest.port()))
            .arg(format!("--grpc-address={}", grpc.ip()))
            .arg(format!("--grpc-port={}", grpc.port()))
            .arg("--allow-metrics=false")
            .env("LD_LIBRARY_PATH", site.join("nvidia_pytriton.libs"));
        start(command, ground, &site, (rest, Some(grpc)), folder, "triton")
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
        for (name, class) in [(ground.model.as_str(), "Encoder"), ("identity", "Identity")] {
            let mut model = serde_json::json!({
                "name": name,
                "implementation": format!("mlserver_models.{class}"),
            });
            if let (true, Some(fields)) = (class == "Encoder", model.as_object_mut()) {
                fields.insert("max_batch_size".to_owned(), 32.into());
                fields.insert("max_batch_time".to_owned(), 0.001.into());
            }
            fs::create_dir_all(models.join(name))?;
            put(&models.join(name).join("model-settings.json"), &model.to_string())?;
        }
        put(&models.join("settings.json"), &settings.to_string())?;
        let mut command = guarded(&ground.python);
        command.args(["-c", "from mlserver.cli import main; main()", "start"]).arg(&models);
        start(command, ground, &site, (address, None), folder, "mlserver")
    }

    /// Where `model` is asked in this form.
    pub fn target(&self, model: &str, form: Form) -> Target {
        let address = match form {
            Form::Json | Form::Binary => self.rest,
            Form::Grpc => self.grpc.unwrap_or(self.rest),
        };
        Target { address: Address::Tcp(address), model: model.to_owned(), token: None, form }
    }

    /// Its addresses: for REST, and for gRPC where it has that.
    pub const fn addresses(&self) -> (SocketAddr, Option<SocketAddr>) {
        (self.rest, self.grpc)
    }

    /// The processes that answer.
    pub fn processes(&self) -> Vec<Group> {
        let tree = processes::tree(self.child.id());
        vec![Group { name: "server", pids: tree.iter().map(|process| process.pid).collect() }]
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
    fn wait(&mut self, target: &Target, request: &[u8]) -> anyhow::Result<()> {
        let until = instant() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            let asked =
                Link::open(target).and_then(|mut open| open.ask(request).map(|(status, _)| status));
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
    (rest, grpc): (SocketAddr, Option<SocketAddr>),
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
    let mut peer = Peer { child, rest, grpc, log };
    let encoder = peer.target(&ground.model, Form::Json);
    let waited = peer.wait(&encoder, &encoder.request(&Tensor::text("ready", ground.shape())));
    waited.with_context(|| format!("{name}; its log is {}", peer.log.display()))?;
    Ok(peer)
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
