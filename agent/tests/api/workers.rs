//! Workers as processes: started on a passed socket, killed, started again.

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use agent::worker::{by_release::ByRelease, call_error::CallError, client::WorkerClient};
use command_fds::{CommandFdExt, FdMapping};
use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    worker::{failure::FailureKind, message::Terms},
};
use protocol::{
    digest::Digest,
    manifest::{Archive, File, Manifest, Policy, Requires, Role, SCHEMA},
};
use tokio::runtime::Runtime;

use crate::fixture::{MODEL, slot};

const WAIT: Duration = Duration::from_secs(60);

/// The real `socle-agent worker` on a copy of `listener`.
pub(crate) fn start(slot: &Path, listener: &UnixListener, release: Option<Digest>) -> Child {
    let parent_fd: OwnedFd = listener.try_clone().unwrap().into();
    let mut command = Command::new(env!("CARGO_BIN_EXE_socle-agent"));
    command.args(["worker", "--slot-dir"]).arg(slot).stdin(Stdio::null());
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "worker").env_remove("LISTEN_PID");
    command.env("SOCLE_RELEASE", release.map(|release| release.to_string()).unwrap_or_default());
    command.fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }]).unwrap();
    command.spawn().unwrap()
}

/// The manifest of a release called `name` with these models.
pub(crate) fn manifest(name: &str, models: &[&str]) -> Manifest {
    let sha256 = Digest::of(b"agent");
    let agent = File {
        path: "bin/socle-agent".into(),
        role: Role::Agent,
        length: 5,
        sha256,
        archive: Some(Archive { length: 5, sha256 }),
        chunks: None,
    };
    let models = models.iter().map(|model| File {
        path: format!("models/{model}/model.onnx"),
        role: Role::Model,
        archive: None,
        ..agent.clone()
    });
    Manifest {
        schema: SCHEMA,
        name: name.into(),
        counter: 1,
        created: "2026-11-23T00:00:00Z".into(),
        agent_version: "1.0.0".into(),
        requires: Requires { platform: "x86_64-linux".into(), memory_bytes: 0, disk_bytes: 0 },
        policy: Policy::standard(),
        files: [agent.clone()].into_iter().chain(models).collect(),
    }
}

/// Lays the manifest of a release called `name` into `slot`; its digest is the release's.
#[expect(clippy::disallowed_methods, reason = "a temporary folder of a test needs no durability")]
fn lay(slot: &Path, name: &str) -> Digest {
    let bytes = manifest(name, &[]).to_bytes().unwrap();
    std::fs::create_dir_all(slot.join("release")).unwrap();
    std::fs::write(slot.join("release/manifest.json"), &bytes).unwrap();
    Digest::of(&bytes)
}

async fn embed(client: &WorkerClient) -> Result<usize, CallError> {
    let embeddings = client
        .embed(MODEL, vec!["a".into()], LongText::Refuse, InputKind::Plain, Terms::default(), WAIT)
        .await?;
    Ok(embeddings.vectors()[0].len())
}

#[test]
fn a_worker_that_is_killed_costs_no_answer() {
    let folder = slot();
    let socket = folder.path().join("w.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut worker = start(folder.path(), &listener, None);
    let client = WorkerClient::new(socket);
    let runtime = Runtime::new().unwrap();
    let first = runtime.block_on(async {
        assert_eq!(embed(&client).await.unwrap(), 384);
        client.hello(WAIT).await.unwrap().pid
    });
    worker.kill().unwrap();
    worker.wait().unwrap();
    runtime.block_on(async { tokio::time::timeout(WAIT, client.gone()).await }).unwrap();
    let mut worker = start(folder.path(), &listener, None);
    runtime.block_on(async {
        assert_eq!(embed(&client).await.unwrap(), 384);
        assert_ne!(client.hello(WAIT).await.unwrap().pid, first);
        client.shutdown(WAIT).await.unwrap();
    });
    assert!(worker.wait().unwrap().success());
}

#[test]
fn a_worker_that_serves_what_lay_in_the_slot_before_is_ended() {
    let folder = slot();
    let socket = folder.path().join("w.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let old = lay(folder.path(), "old");
    let mut stale = start(folder.path(), &listener, Some(old));
    let runtime = Runtime::new().unwrap();
    let greeted = runtime.block_on(WorkerClient::new(socket.clone()).hello(WAIT)).unwrap();
    assert_eq!(greeted.release, Some(old));
    let new = lay(folder.path(), "new");
    let client = WorkerClient::for_release(socket, Some(new));
    let asking = runtime.spawn(async move {
        let info = client.hello(WAIT).await.unwrap();
        client.shutdown(WAIT).await.unwrap();
        info.release
    });
    assert!(stale.wait().unwrap().success(), "the stale worker was told to end");
    let mut worker = start(folder.path(), &listener, Some(new));
    assert_eq!(runtime.block_on(asking).unwrap(), Some(new));
    assert!(worker.wait().unwrap().success());
}

#[test]
fn a_candidate_is_asked_of_the_release_that_was_named_whatever_was_asked_before() {
    let folder = slot();
    let socket = folder.path().join("w.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let old = lay(folder.path(), "old");
    let mut stale = start(folder.path(), &listener, Some(old));
    let runtime = Runtime::new().unwrap();
    let others = ByRelease::default();
    let before = others.client(socket.clone(), old);
    let ask = |client: Arc<WorkerClient>| async move {
        client.ping(WAIT).await?;
        client.hello(WAIT).await
    };
    let served = runtime.block_on(ask(Arc::clone(&before))).unwrap();
    assert_eq!(served.release, Some(old));
    assert!(Arc::ptr_eq(&before, &others.client(socket.clone(), old)), "one connection is kept");
    // The slot is filled anew, and asked at once: what was known of it is of no matter.
    let new = lay(folder.path(), "new");
    let asking = runtime.spawn(ask(others.client(socket.clone(), new)));
    assert!(stale.wait().unwrap().success(), "the stale worker was told to end");
    let mut worker = start(folder.path(), &listener, Some(new));
    let info = runtime.block_on(asking).unwrap().unwrap();
    assert_eq!((info.release, info.pid), (Some(new), worker.id()));
    assert_ne!(info.start, served.start);
    runtime.block_on(others.client(socket, new).shutdown(WAIT)).unwrap();
    assert!(worker.wait().unwrap().success());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a temporary folder of a test needs no durability")]
fn a_model_that_cannot_be_loaded_is_not_tried_for_everybody_who_asks() {
    let folder = slot();
    std::fs::write(folder.path().join("models").join(MODEL).join("model.onnx"), "none").unwrap();
    let socket = folder.path().join("w.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut worker = start(folder.path(), &listener, None);
    let client = WorkerClient::new(socket);
    let failed = |error: CallError| {
        let said = format!("{error:?}");
        let CallError::Failed(failure) = error else { panic!("{said}") };
        failure
    };
    Runtime::new().unwrap().block_on(async {
        let tried = failed(client.load(MODEL, WAIT).await.unwrap_err());
        assert_eq!((tried.kind, tried.retry_after_ms), (FailureKind::CannotLoad, None));
        assert!(tried.message.contains("model.onnx"), "{}", tried.message);
        // The worker says when a full queue is worth another try; of a model, only the client does.
        let told = failed(embed(&client).await.unwrap_err());
        assert!(told.retry_after_ms.is_some_and(|ms| ms <= 1_000), "{told:?}");
        assert_eq!(told.message, tried.message);
        assert_eq!(client.refusal(MODEL).map(|failure| failure.message), Some(tried.message));
        assert_eq!(client.refusal("another"), None);
        client.shutdown(WAIT).await.unwrap();
    });
    assert!(worker.wait().unwrap().success());
}

#[test]
fn a_worker_without_a_socket_says_who_starts_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_socle-agent"))
        .args(["worker", "--slot-dir"])
        .arg(folder.path())
        .env_remove("LISTEN_FDS")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("run --single"), "{said}");
}

#[test]
fn nobody_at_the_socket_is_said_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let client = WorkerClient::new(folder.path().join("nobody.sock"));
    let refused = Runtime::new().unwrap().block_on(client.ping(WAIT)).unwrap_err();
    assert!(matches!(&refused, CallError::Connect { .. }), "{refused:?}");
    assert!(refused.to_string().contains("nobody.sock"), "{refused}");
}
