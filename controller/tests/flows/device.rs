//! A device: its key, its certificate, and its end of the link.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use controller::{
    link::relay::Relay,
    stop::{self, Stopper},
    tls::Identity,
};
use protocol::{
    cbor,
    command::{Reader, SealKey},
    digest::Digest,
    enrol::{EnrolRequest, EnrolToken, Enrolled},
    id::{DeviceId, Slot},
    key::SigningKey,
    report::{Body, DeviceState, Event, EventKind, Installed, Presence, Report},
    seal::Sealer,
    time::UnixMs,
    topic::{Channel, Topic},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use ring::rand::SystemRandom;
use rumqttc::v5::{
    AsyncClient, Event as Happening, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Packet, Publish},
    },
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::{sync::mpsc, time::timeout};

use crate::client::{Answer, Client};

/// Longest wait for anything that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A device that has joined.
pub(crate) struct Device {
    pub(crate) pkcs8: Vec<u8>,
    pub(crate) key: SigningKey,
    pub(crate) enrolled: Enrolled,
}

/// A device's connection to the broker.
pub(crate) struct Connected {
    client: AsyncClient,
    messages: mpsc::Receiver<Publish>,
    _stopper: Stopper,
}

pub(crate) fn new_key() -> Vec<u8> {
    SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap()
}

/// A certificate request by the key in `pkcs8`.
pub(crate) fn csr(pkcs8: &[u8]) -> String {
    let der = PrivatePkcs8KeyDer::from(pkcs8.to_vec());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

/// A request to join with `token`.
pub(crate) fn request(token: &EnrolToken, csr_pem: String) -> serde_json::Value {
    let request = EnrolRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        csr_pem,
        name: "host".into(),
        labels: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
    };
    serde_json::to_value(&request).unwrap()
}

pub(crate) async fn ask(client: &Client, token: &EnrolToken, name: &str, pkcs8: &[u8]) -> Answer {
    let mut request = request(token, csr(pkcs8));
    request["name"] = name.into();
    client.post("/enrol/v1", &request).await
}

impl Device {
    pub(crate) async fn join(client: &Client, token: &EnrolToken, name: &str) -> Self {
        let pkcs8 = new_key();
        let answer = ask(client, token, name, &pkcs8).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let enrolled: Enrolled = serde_json::from_slice(&answer.body).unwrap();
        Self { key: SigningKey::from_pkcs8(&pkcs8).unwrap(), pkcs8, enrolled }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.enrolled.device
    }

    /// `client`, with this device's certificate.
    pub(crate) fn identify(&self, client: Client) -> Client {
        client.with_identity(&self.enrolled.certificate_pem, &self.pkcs8)
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            fleet: &self.enrolled.fleet,
            device: self.id(),
            controller_keys: &self.enrolled.controller_keys,
        }
    }

    pub(crate) fn seal_key(&self, now: UnixMs) -> SealKey {
        let signed = self.enrolled.seal_key.as_slice();
        self.reader().seal_key(signed, 0, now).unwrap().into_inner()
    }

    pub(crate) fn topic(&self, channel: Channel) -> String {
        Topic::Report(self.enrolled.fleet.clone(), self.id(), channel).to_string()
    }

    /// A sealed report in a session of its own.
    pub(crate) fn sealed(&self, now: UnixMs, sequence: u64, body: Body) -> (Channel, Vec<u8>) {
        let channel = match body {
            Body::State(_) => Channel::State,
            Body::Tele(_) => Channel::Tele,
            Body::Event(_) => Channel::Event,
        };
        let sealer = Sealer::open(&self.seal_key(now), &SystemRandom::new()).unwrap();
        let plain = cbor::encode(&Report { at: now, dropped: 0, body }).unwrap();
        let place = (&self.enrolled.fleet, channel, sequence);
        (channel, sealer.seal(&self.key, place, &plain).unwrap())
    }

    /// Connects through a relay of its own, announces itself, and subscribes to what is for it.
    pub(crate) async fn connect(&self, folder: &Path, broker: &str) -> Connected {
        let name = self.id().short();
        let file = |end: &str, text: &[u8]| {
            let path = folder.join(format!("{name}.{end}"));
            controller::disk::write(&path, text, controller::disk::Access::Owner).unwrap();
            path
        };
        let key_pem = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(self.pkcs8.clone()),
            &PKCS_ED25519,
        )
        .unwrap()
        .serialize_pem();
        let identity = Identity {
            chain: file("crt", self.enrolled.certificate_pem.as_bytes()),
            key: file("key", key_pem.as_bytes()),
            authority: file("ca", self.enrolled.ca_pem.as_bytes()),
        };
        let fleet = self.enrolled.fleet.clone();
        let topics = vec![
            Topic::Desired(fleet.clone(), self.id()).to_string(),
            Topic::Command(fleet.clone(), self.id()).to_string(),
            Topic::Halt(fleet.clone()).to_string(),
            Topic::SealKeys(fleet).to_string(),
        ];
        let connected =
            Connected::open(&identity, &folder.join(format!("{name}.s")), broker, topics).await;
        let greeting = cbor::encode(&Presence { online: true }).unwrap();
        connected.publish(&self.topic(Channel::Presence), true, greeting).await;
        connected
    }
}

impl Connected {
    pub(crate) async fn open(
        identity: &Identity,
        socket: &Path,
        broker: &str,
        topics: Vec<String>,
    ) -> Self {
        let tls = Arc::new(identity.client().unwrap());
        let relay = Relay::listen(socket, broker.parse().unwrap(), tls).unwrap();
        let (stopper, stop) = stop::pair();
        tokio::spawn(relay.run(stop.clone()));
        let name = format!("test-{:08x}", fastrand::u32(..));
        let mut options = MqttOptions::new(name, socket.display().to_string(), 1);
        options
            .set_transport(rumqttc::Transport::Unix)
            .set_keep_alive(Duration::from_secs(5))
            .set_max_packet_size(Some(128 * 1024));
        let (client, mut events) = AsyncClient::new(options, 64);
        let (heard, messages) = mpsc::channel(1024);
        let (up, mut is_up) = mpsc::channel(16);
        let subscriber = client.clone();
        let mut stopped = stop;
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    () = stopped.wait() => return,
                    event = events.poll() => event,
                };
                match event {
                    Ok(Happening::Incoming(Packet::ConnAck(_))) => {
                        for topic in &topics {
                            subscriber.try_subscribe(topic, QoS::AtLeastOnce).unwrap();
                        }
                    }
                    Ok(Happening::Incoming(Packet::SubAck(_))) => drop(up.try_send(())),
                    Ok(Happening::Incoming(Packet::Publish(publish))) => {
                        heard.try_send(publish).expect("room for a message");
                    }
                    Ok(Happening::Incoming(_) | Happening::Outgoing(_)) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        timeout(SOON, is_up.recv()).await.expect("a subscription in time").unwrap();
        Self { client, messages, _stopper: stopper }
    }

    pub(crate) async fn publish(&self, topic: &str, retain: bool, bytes: Vec<u8>) {
        self.client.publish(topic, QoS::AtLeastOnce, retain, bytes).await.unwrap();
    }

    pub(crate) async fn report(&self, device: &Device, (channel, bytes): (Channel, Vec<u8>)) {
        let retain = channel == Channel::State;
        self.publish(&device.topic(channel), retain, bytes).await;
    }

    /// The next message on a topic with this ending.
    pub(crate) async fn next(&mut self, ending: &str) -> Vec<u8> {
        let wanted = async {
            loop {
                let publish = self.messages.recv().await.expect("a connection");
                if publish.topic.ends_with(ending.as_bytes()) {
                    return publish.payload.to_vec();
                }
            }
        };
        timeout(SOON, wanted).await.unwrap_or_else(|_| panic!("no message on …{ending}"))
    }

    /// Waits until the controller has acknowledged report `sequence`.
    pub(crate) async fn acknowledged(&mut self, device: &Device, sequence: u64) {
        loop {
            let bytes = self.next("/cmd").await;
            let command = device.reader().command(&bytes).unwrap().into_inner();
            if command.acknowledged.contains(&sequence) {
                return;
            }
        }
    }

    /// Messages that have arrived and nobody has asked for, on topics with this ending.
    pub(crate) fn waiting(&mut self, ending: &str) -> usize {
        let mut count = 0;
        while let Ok(publish) = self.messages.try_recv() {
            count += usize::from(publish.topic.ends_with(ending.as_bytes()));
        }
        count
    }
}

pub(crate) fn event(kind: EventKind, release: Digest, rollout: u64, detail: &str) -> Body {
    Body::Event(Event { kind, release: Some(release), rollout, detail: detail.into() })
}

pub(crate) fn state(release: Option<Digest>) -> Body {
    Body::State(DeviceState {
        agent_version: "0.1.0".into(),
        committed: release.map(|release| Installed { release, name: "r1".into(), slot: Slot::A }),
        trial: None,
        phase: "steady".into(),
        quarantined: Vec::new(),
        desired_sequence: 1,
        compute: "cpu".into(),
        ready: true,
    })
}
