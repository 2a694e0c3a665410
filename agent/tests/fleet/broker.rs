//! mosquitto with mutual TLS and access by certificate name, as a fleet runs it; and a controller's client of it.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use agent::fleet::{
    identity::{Credentials, Endpoint},
    relay::Relay,
};
use rumqttc::{
    Transport,
    v5::{
        AsyncClient, Event, MqttOptions,
        mqttbytes::{QoS, v5::Packet},
    },
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::pki::Pki;

/// Longest wait for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Broker {
    pub(crate) port: u16,
    folder: TempDir,
    child: Child,
}

impl Broker {
    pub(crate) fn start(pki: &Pki) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = pki.server("localhost");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for (name, content) in [
            ("broker.crt.pem", certificate),
            ("broker.key.pem", key),
            ("ca.crt.pem", pki.ca_pem()),
            ("acl", acl()),
        ] {
            put(&folder.path().join(name), &content);
        }
        let user = if rustix::process::getuid().is_root() { "user root\n" } else { "" };
        let conf = format!(
            "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nacl_file {}\n\
             require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\n\
             allow_anonymous false\npersistence false\nlog_type all\n{user}",
            at("ca.crt.pem"),
            at("broker.crt.pem"),
            at("broker.key.pem"),
            at("acl"),
        );
        put(&folder.path().join("mosquitto.conf"), &conf);
        let child = launch(folder.path());
        Self { port, folder, child }
    }

    /// Kills the broker; it forgets everything.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.child = launch(self.folder.path());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts it and waits until it says that it runs.
fn launch(folder: &Path) -> Child {
    let mut child = Command::new("mosquitto")
        .arg("-c")
        .arg(folder.join("mosquitto.conf"))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("mosquitto is not installed: apt-get install mosquitto");
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "mosquitto ended: {said}");
        said.push_str(&line);
        if line.contains("running") {
            break;
        }
    }
    // Its pipe must not fill up.
    std::thread::spawn(move || drop(std::io::copy(&mut log, &mut std::io::sink())));
    child
}

fn acl() -> String {
    "user controller\ntopic readwrite socle/1/demo/#\n\n\
     pattern read socle/1/demo/%u/desired\npattern read socle/1/demo/%u/cmd\n\
     pattern write socle/1/demo/%u/state\npattern write socle/1/demo/%u/tele\n\
     pattern write socle/1/demo/%u/event\npattern write socle/1/demo/%u/presence\n\
     pattern read socle/1/demo/all/#\n"
        .to_owned()
}

#[expect(clippy::disallowed_methods, reason = "a test's own files")]
fn put(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
}

/// The controller's side of the broker.
pub(crate) struct Controller {
    client: AsyncClient,
    arrived: mpsc::Receiver<(String, Vec<u8>)>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _folder: TempDir,
}

impl Controller {
    pub(crate) async fn connect(pki: &Pki, port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("mqtt.sock");
        let (certificate, key) = pki.client("controller");
        let credentials = Credentials {
            certificate,
            authority: pki.ca_der(),
            key: PrivatePkcs8KeyDer::from(key),
        };
        let endpoint = Endpoint { host: "localhost".into(), port };
        let relay = Relay::bind(&socket, endpoint, credentials.client_config().unwrap()).unwrap();
        let relaying = tokio::spawn(relay.run(watch::channel(None).0));
        let mut options = MqttOptions::new("controller", socket.display().to_string(), 1);
        options.set_transport(Transport::Unix);
        options.set_max_packet_size(Some(200_000));
        let (client, mut events) = AsyncClient::new(options, 64);
        let (sender, arrived) = mpsc::channel(1024);
        let subscriber = client.clone();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let polling = tokio::spawn(async move {
            let mut ready = Some(ready);
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        subscriber.try_subscribe("socle/1/demo/+/+", QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        ready.take().map(|ready| ready.send(()));
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        if sender.send((topic, publish.payload.to_vec())).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        timeout(PATIENCE, is_ready).await.expect("the controller never connected").unwrap();
        Self { client, arrived, tasks: vec![relaying, polling], _folder: folder }
    }

    pub(crate) async fn publish(&self, topic: &str, retain: bool, payload: Vec<u8>) {
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).await.unwrap();
    }

    /// The next message that `pick` makes something of; others are passed over.
    pub(crate) async fn next<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&str, &[u8]) -> Option<T>,
    ) -> T {
        let wait = async {
            loop {
                let (topic, payload) = self.arrived.recv().await.unwrap();
                if let Some(found) = pick(&topic, &payload) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Shared by all devices of a test.
pub(crate) fn shared_pki() -> Arc<Pki> {
    Arc::new(Pki::new())
}
