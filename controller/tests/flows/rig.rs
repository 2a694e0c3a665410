//! A controller in this process, with a clock that tests turn.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use axum::http::Method;
use controller::{
    clock::Clock,
    init,
    layout::Layout,
    serve::{self, Options, Running},
    settings::Settings,
};
use protocol::{enrol::EnrolToken, time::UnixMs};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::Client,
    device::Device,
    releases::{Built, Signers},
};

/// A controller and what is needed to talk to it.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) address: SocketAddr,
    pub(crate) running: Running,
    pub(crate) signers: Signers,
}

/// The state folder of a new controller, not started.
pub(crate) struct Prepared {
    pub(crate) folder: TempDir,
    pub(crate) layout: Layout,
    now: UnixMs,
}

impl Prepared {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ctl").tempdir().unwrap();
        let layout = Layout::new(&folder.path().join("c"));
        let settings = Settings { fleet: "demo".parse().unwrap(), names: vec!["localhost".into()] };
        // TLS goes by the real clock, so the rig starts with it.
        #[expect(clippy::disallowed_methods, reason = "the edge of the test")]
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = UnixMs(u64::try_from(since.as_millis()).unwrap());
        init::create(&layout, &settings, now).unwrap();
        Self { folder, layout, now }
    }

    pub(crate) async fn start(self, broker: &str) -> Rig {
        let clock = Arc::new(AtomicU64::new(self.now.0));
        let options = Options {
            state: self.layout.state().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            broker: broker.parse().unwrap(),
            public_url: None,
            timestamp_hours: 24,
        };
        let read = Arc::clone(&clock);
        let clock_ = Clock::new(move || UnixMs(read.load(Ordering::SeqCst)));
        let running = serve::start(&options, clock_).await.unwrap();
        Rig {
            signers: Signers::of(&self.layout),
            folder: self.folder,
            layout: self.layout,
            clock,
            address: running.address,
            running,
        }
    }
}

impl Rig {
    /// A controller whose broker is away.
    pub(crate) async fn without_broker() -> Self {
        // Port 9 is `discard`: nothing listens there.
        Prepared::new().start("mqtts://localhost:9").await
    }

    pub(crate) fn now(&self) -> UnixMs {
        UnixMs(self.clock.load(Ordering::SeqCst))
    }

    pub(crate) fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.layout.pki_file("ca.crt.pem")
    }

    pub(crate) fn admin_token(&self) -> String {
        fs::read_to_string(self.layout.admin_token()).unwrap()
    }

    /// Someone without any authority.
    pub(crate) fn stranger(&self) -> Client {
        Client::new(self.address, &self.ca())
    }

    /// The administrator.
    pub(crate) fn admin(&self) -> Client {
        self.stranger().with_bearer(&self.admin_token())
    }

    pub(crate) async fn publish_root(&self) {
        let answer = self.admin().send(Method::POST, "/api/v1/root", self.signers.root()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    pub(crate) async fn token(&self) -> EnrolToken {
        let answer = self.admin().post("/api/v1/tokens", &json!({})).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["token"].as_str().unwrap().parse().unwrap()
    }

    /// A device that has joined; a root must be published.
    pub(crate) async fn device(&self, name: &str) -> Device {
        let token = self.token().await;
        Device::join(&self.stranger(), &token, name).await
    }

    /// Uploads and publishes a release.
    pub(crate) async fn publish(&self, built: &Built) -> Value {
        for object in &built.objects {
            let answer = self.admin().put_object(object).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let answer = self.admin().post("/api/v1/releases", &built.publication()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.admin().get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }
}
