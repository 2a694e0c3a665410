//! A real mosquitto, configured as the controller says.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use controller::{broker::Broker, layout::Layout};
use protocol::time::UnixMs;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::device::SOON;

/// A broker that runs until it is dropped.
pub(crate) struct Mosquitto {
    child: Child,
    configuration: PathBuf,
    port: u16,
}

/// Where mosquitto is; installed if this user may, named otherwise.
async fn program() -> PathBuf {
    let places = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    let found = || places.iter().map(PathBuf::from).find(|path| path.exists());
    if let Some(path) = found() {
        return path;
    }
    let install = ["install", "-y", "--no-install-recommends", "mosquitto"];
    let status = Command::new("apt-get").args(install).stdout(Stdio::null()).status().await;
    found().unwrap_or_else(|| {
        panic!("mosquitto is missing ({status:?}); run as root: apt-get {}", install.join(" "))
    })
}

impl Mosquitto {
    /// Starts a broker for the controller in `layout`.
    pub(crate) async fn start(layout: &Layout, folder: &Path, now: UnixMs) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let out = folder.join("b");
        let names = ["localhost".to_owned()];
        Broker { out: &out, names: &names, port }.write(layout, now).unwrap();
        let configuration = out.join("mosquitto.conf");
        // Started as root it would become another user, who cannot read this test's files.
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        let text = fs::read_to_string(&configuration).unwrap();
        let text = format!("{text}user {user}\nlog_dest stderr\n");
        let written = controller::disk::Access::Anyone;
        controller::disk::write(&configuration, text.as_bytes(), written).unwrap();
        let child = run(&configuration).await;
        Self { child, configuration, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtts://localhost:{}", self.port)
    }

    /// Kills the broker, which forgets everything, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        self.child = run(&self.configuration).await;
    }
}

async fn run(configuration: &Path) -> Child {
    let mut child = Command::new(program().await)
        .arg("-c")
        .arg(configuration)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let started = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("running") {
                return;
            }
        }
        panic!("mosquitto ended before it ran");
    };
    timeout(SOON, started).await.expect("mosquitto in time");
    // Read on, so that it never waits for us.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}
