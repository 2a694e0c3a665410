//! What stands while the story is told: the fleet, the forge, the listener; and how a release is rolled out on it.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use engine::package::MODEL_FILE;
use protocol::{digest::Digest, time::UnixMs};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::ApiError,
    ask::AskError,
    demo::{
        arguments::DemoArgs,
        eavesdropper::{self, EavesdropperError, Heard},
        fleet::{self, FleetError, Ground, Machine, RunningController},
        releases::{Forge, ForgeError},
        timeline::Timeline,
        tls::TlsError,
        wait::{self, Look, Overdue},
    },
    files::{self, FileError},
    release::{
        build::Built,
        folder::ReleaseFolder,
        publish::{self, PublishArgs, PublishError, Sent},
    },
    terminal::Colour,
};

/// The machines.
pub const MACHINES: [&str; 3] = ["agent-1", "agent-2", "agent-3"];
const QUESTIONS: &str = include_str!("../../data/faq/questions-demo.jsonl");
/// Longest wait for one rollout.
const ROLLOUT_WITHIN: Duration = Duration::from_secs(120);

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Processes.
    #[error("the fleet")]
    Fleet(#[from] FleetError),
    /// Releases.
    #[error("a release")]
    Forge(#[from] ForgeError),
    /// Publishing.
    #[error("publishing")]
    Publish(#[from] PublishError),
    /// The controller.
    #[error("the controller")]
    Api(#[from] ApiError),
    /// The assistant.
    #[error("the assistant")]
    Ask(#[from] AskError),
    /// The eavesdropper.
    #[error("the eavesdropper")]
    Eavesdropper(#[from] EavesdropperError),
    /// Certificates.
    #[error("certificates")]
    Tls(#[from] TlsError),
    /// Files.
    #[error("files")]
    File(#[from] FileError),
    /// It takes too long.
    #[error("waiting")]
    Overdue(#[from] Overdue),
    /// A machine's status.
    #[error("asking a machine for its status")]
    Status(#[from] Box<ureq::Error>),
    /// The terminal, threads.
    #[error("this machine")]
    Io(#[from] io::Error),
    /// The demo's questions.
    #[error("reading the demo's questions")]
    Questions(#[from] serde_json::Error),
    /// A rollout that ended as it should not.
    #[error("rollout of {release} is {state}: {reason}")]
    Rollout {
        /// Release.
        release: String,
        /// Its state.
        state: String,
        /// The controller's words.
        reason: String,
    },
    /// An answer that is not as agreed.
    #[error("an answer lacks `{0}`")]
    Lacks(&'static str),
}

/// A question, and the entry that should answer it in each release; none for an abstention.
#[derive(Clone, Debug, Deserialize)]
pub struct Question {
    /// The question.
    pub text: String,
    /// Its language.
    pub lang: String,
    /// Entry in release 1.
    pub expect_v1: Option<String>,
    /// Entry in release 2.
    pub expect_v2: Option<String>,
}

/// Everything that stands while the story is told.
pub struct Stage {
    /// The controller.
    pub controller: RunningController,
    /// The machines.
    pub machines: Vec<Machine>,
    /// Makes releases.
    pub forge: Forge,
    /// What the broker sees.
    pub heard: Heard,
    /// The demo's questions.
    pub questions: Vec<Question>,
    /// Where things lie.
    pub ground: Ground,
    /// Release 1, once it is out.
    pub first: Option<Digest>,
    /// The packages of releases 1 and 2.
    pub packages: Vec<PathBuf>,
}

/// Sets everything up: controller, broker, root, three enrolled machines.
pub fn set_up(
    args: &DemoArgs,
    state: PathBuf,
    timeline: &mut Timeline,
) -> Result<Stage, StepError> {
    timeline.chapter("a controller, a broker, three machines")?;
    let bin = match &args.bin_dir {
        Some(bin) => bin.clone(),
        None => std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
    };
    // Before anything is started: the weights must be there.
    files::read(&args.model.join(MODEL_FILE), files::OBJECT_BYTES_MAX)?;
    let ground = Ground { state, bin };
    let since = wait::now();
    fleet::set_up_controller(&ground)?;
    let broker = match &args.broker {
        Some(url) => url.clone(),
        None => fleet::start_broker(&ground)?,
    };
    let controller = fleet::start_controller(&ground, &broker)?;
    timeline.happened(since, "controller runs", &controller.url)?;
    let heard =
        eavesdropper::listen(&broker, ground.broker_client()?, &ground.state.join("ear.sock"))?;

    let since = wait::now();
    let forge = Forge::open(
        &ground.state,
        &args.model,
        &ground.online_keys(),
        *timeline.terminal(),
        now(),
    )?;
    controller.api.post_root(&files::read(&forge.root(), files::TEXT_BYTES_MAX)?)?;
    timeline.happened(since, "root made and published", "2 of 3 keys")?;

    let since = wait::now();
    let factory = fleet::make_factory(&ground)?;
    let mut machines = Vec::new();
    for name in MACHINES {
        machines.push(fleet::start_machine(&ground, &controller, &factory, name)?);
    }
    timeline.happened(since, "three machines enrolled and started", "single-use tokens")?;
    let questions =
        QUESTIONS.lines().map(serde_json::from_str).collect::<Result<Vec<Question>, _>>()?;
    Ok(Stage {
        controller,
        machines,
        forge,
        heard,
        questions,
        ground,
        first: None,
        packages: Vec::new(),
    })
}

/// Builds, signs, publishes and rolls out; the rollout's end comes back.
pub fn roll_out(
    stage: &mut Stage,
    timeline: &mut Timeline,
    agent: &Path,
    package: &Path,
) -> Result<(Built, Sent, Value), StepError> {
    let since = wait::now();
    let (folder, built): (ReleaseFolder, Built) = stage.forge.release(agent, package, now())?;
    let sent = publish::publish(&publication(&folder), &stage.controller.api, timeline.terminal())?;
    let detail = format!("{}, {} of {} objects sent", built.digest.short(), sent.objects, sent.all);
    timeline.happened(
        since,
        &format!("{} built, signed, published", built.manifest.name),
        &detail,
    )?;
    let rollout = start_and_wait(stage, timeline, &built)?;
    Ok((built, sent, rollout))
}

/// All that is published of a release.
pub fn publication(folder: &ReleaseFolder) -> PublishArgs {
    PublishArgs {
        release: folder.path().to_owned(),
        metadata: Vec::new(),
        snapshot: None,
        timestamp: None,
    }
}

/// Rolls a published release out, canary first, and waits for the rollout to complete or halt.
pub fn start_and_wait(
    stage: &Stage,
    timeline: &mut Timeline,
    built: &Built,
) -> Result<Value, StepError> {
    let since = wait::now();
    let api = &stage.controller.api;
    let body = json!({
        "release": built.digest,
        "waves": [{ "name": "canary", "devices": 1 }, { "name": "rest", "percent": 100 }],
        "gate": { "success_percent": 100, "min_sample": 1, "timeout_s": 90 },
    });
    let started: Value = api.post("rollouts", &body)?;
    let path = format!("rollouts/{}", started["id"]);
    let rollout = wait::until("the rollout to end", ROLLOUT_WITHIN, || {
        let rollout: Value = api.get(&path)?;
        Ok::<_, StepError>(match rollout["state"].as_str() {
            Some("complete" | "halted") => Look::Done(rollout),
            _ => Look::NotYet(rollout["waves"].to_string()),
        })
    })?;
    show_devices(timeline, stage, built)?;
    let state = rollout["state"].as_str().unwrap_or_default().to_owned();
    let reason = rollout["reason"].as_str().unwrap_or_default().to_owned();
    timeline.happened(since, &format!("rollout {state}"), &reason)?;
    Ok(rollout)
}

fn show_devices(timeline: &Timeline, stage: &Stage, built: &Built) -> Result<(), StepError> {
    let answer: Value = stage.controller.api.get("events?limit=1000")?;
    let events = answer["events"].as_array().cloned().unwrap_or_default();
    let release = built.digest.to_string();
    for machine in &stage.machines {
        let steps: Vec<&str> = events
            .iter()
            .filter(|event| {
                event["release"] == release.as_str() && event["device"] == machine.id.as_str()
            })
            .filter_map(|event| event["kind"].as_str())
            .collect();
        if !steps.is_empty() {
            let line = format!("              {:10} {}", machine.name, steps.join(" → "));
            timeline.note(&timeline.terminal().paint(Colour::Dim, &line))?;
        }
    }
    Ok(())
}

/// Says where everything is and leaves it running until Enter or the end of input.
pub fn keep(stage: &Stage, timeline: &Timeline) -> io::Result<()> {
    let (ca, token) =
        (stage.ground.pki("ca.crt.pem"), stage.ground.controller().join("admin-token"));
    let agents: Vec<Value> = stage
        .machines
        .iter()
        .map(|machine| json!({ "name": machine.name, "url": machine.target.url, "token_file": machine.token_file() }))
        .collect();
    let kept = json!({ "kept": {
        "state": stage.ground.state,
        "controller": { "url": stage.controller.url, "ca_file": ca, "token_file": token },
        "agents": agents,
    } });
    let mut text = format!(
        "\nController and console: {}\n  token: {}\n  certificate authority: {}",
        stage.controller.url,
        token.display(),
        ca.display(),
    );
    for machine in &stage.machines {
        text.push_str(&format!(
            "\n{}: {}\n  token: {}",
            machine.name,
            machine.target.url,
            machine.token_file().display()
        ));
    }
    text.push_str("\n\nEverything runs on until you press Enter.");
    timeline.terminal().result(&text, &kept)?;
    io::stdin().read_line(&mut String::new()).map(|_| ())
}

/// Today, by the machine's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the demo signs with today's date, as an operator does"
)]
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_has_questions_of_every_kind() {
        let questions: Vec<Question> =
            QUESTIONS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for lang in ["fr", "en"] {
            let mine = || questions.iter().filter(|question| question.lang == lang);
            assert!(mine().any(|q| q.expect_v1.is_some()), "{lang}: answered from the start");
            assert!(
                mine().any(|q| q.expect_v1.is_none() && q.expect_v2.is_some()),
                "{lang}: answered by release 2"
            );
        }
        assert!(questions.iter().any(|q| q.expect_v2.is_none()), "without an answer");
    }
}
