//! The story: what is done, in order, and what must hold.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::{digest::Digest, time::UnixMs};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{self, ApiError},
    ask::{self, AskError},
    demo::{
        DemoArgs, DemoError,
        eavesdropper::{self, EavesdropperError, Heard},
        fleet::{self, FleetError, Ground, Machine, RunningController},
        releases::{Faq, Forge, ForgeError, MODEL},
        timeline::Timeline,
        tls::TlsError,
        traffic::{Target, Traffic},
        wait::{self, Look, Overdue},
    },
    files::{self, FileError},
    release::{
        build::Built,
        folder::ReleaseFolder,
        publish::{self, PublishError, Sent},
    },
    terminal::Colour,
};

const MACHINES: [&str; 3] = ["agent-1", "agent-2", "agent-3"];
const QUESTIONS: &str = include_str!("../../data/faq/questions-demo.jsonl");
/// Longest wait for one rollout.
const ROLLOUT_WITHIN: Duration = Duration::from_secs(120);
/// Longest wait for one thing to be reported.
const REPORT_WITHIN: Duration = Duration::from_secs(60);
/// Questions asked while a release changes, at least.
const TRAFFIC_MIN: u64 = 30;

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
    #[error("the controller's answer lacks `{0}`")]
    Lacks(&'static str),
}

#[derive(Clone, Debug, Deserialize)]
struct Question {
    text: String,
    lang: String,
    expect_v1: Option<String>,
    expect_v2: Option<String>,
}

/// Everything that stands while the story is told.
struct Stage {
    controller: RunningController,
    machines: Vec<Machine>,
    forge: Forge,
    heard: Heard,
    questions: Vec<Question>,
    ground: Ground,
    /// Release 1 and its package, release 2 and its package.
    first: Option<Digest>,
    packages: Vec<PathBuf>,
}

/// Tells the story. What failed on the way comes back as the step's name and why.
pub fn tell(args: &DemoArgs, timeline: &mut Timeline) -> Result<(), DemoError> {
    let folder = match &args.state {
        Some(_) => None,
        None => {
            Some(tempfile::Builder::new().prefix("socle-").tempdir().map_err(DemoError::Output)?)
        }
    };
    let state = match (&args.state, &folder) {
        (Some(state), _) => state.clone(),
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => PathBuf::from("."),
    };
    let mut stage = step("setting the fleet up", set_up(args, state, timeline))?;
    type Chapter = fn(&mut Stage, &mut Timeline) -> Result<(), StepError>;
    let chapters: [(&str, Chapter); 8] = [
        ("release 1: waves, proof, commit", first_release),
        ("questions in French and English", ask_questions),
        ("release 2 under load: only what changed", second_release),
        ("release 3: a poisoned model", poisoned_release),
        ("release 4: an agent that crashes at start", crashing_release),
        ("an altered file on the artifact server", altered_file),
        ("a rollback to release 1", rolled_back_release),
        ("what the broker saw", broker_saw),
    ];
    for (title, chapter) in chapters {
        timeline.chapter(title)?;
        step(title, chapter(&mut stage, timeline))?;
    }
    if args.keep {
        keep(&stage, timeline)?;
    }
    for machine in &mut stage.machines {
        machine.stop()?;
    }
    Ok(())
}

fn step<T>(name: &str, result: Result<T, StepError>) -> Result<T, DemoError> {
    result.map_err(|source| DemoError::Step { step: name.to_owned(), source: Box::new(source) })
}

fn set_up(args: &DemoArgs, state: PathBuf, timeline: &mut Timeline) -> Result<Stage, StepError> {
    timeline.chapter("a controller, a broker, three machines")?;
    let bin = match &args.bin_dir {
        Some(bin) => bin.clone(),
        None => std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
    };
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
    let forge = Forge::open(&ground.state, &args.model, *timeline.terminal(), now())?;
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

fn first_release(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), StepError> {
    let since = wait::now();
    let package = stage.forge.pack("v1", Faq::V1)?;
    timeline.happened(
        since,
        "assistant packed",
        "FAQ embedded, thresholds calibrated, golden set recorded",
    )?;
    let agent = stage.ground.program("socle-agent");
    let (built, _, rollout) = roll_out(stage, timeline, &agent, &package)?;
    expect_complete(&built, &rollout)?;
    stage.first = Some(built.digest);
    stage.packages.push(package);
    let running = running(stage, &built)?;
    timeline.check(
        "release_1_commits_everywhere",
        running == MACHINES.len(),
        &format!("{running} of 3 run it"),
    )?;
    let waves = waves_in_order(&stage.controller, &built)?;
    timeline.check("canary_commits_before_the_rest_starts", waves.0, &waves.1)?;
    Ok(())
}

fn ask_questions(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), StepError> {
    let client = api::local_agent();
    let mut shown = Vec::new();
    let (mut right, mut languages, mut abstained) = (0, Vec::new(), false);
    for (question, machine) in stage.questions.iter().zip(stage.machines.iter().cycle()) {
        let Target { url, token } = &machine.target;
        let answer = ask::ask(&client, url, token, &question.text, Some(MODEL))?;
        let answered = answer["decision"] == "answered";
        let entry = answer["entry"].as_str().filter(|_| answered);
        if entry == question.expect_v1.as_deref() {
            right += 1;
            match entry {
                Some(_) => languages.push(question.lang.clone()),
                None => abstained = true,
            }
        }
        timeline.note(&format!(
            "         {}",
            timeline.terminal().paint(Colour::Cyan, &question.text)
        ))?;
        for line in ask::shown(&answer, timeline.terminal()).lines() {
            timeline.note(&format!("           {line}"))?;
        }
        shown.push(json!({ "question": question.text, "machine": machine.name, "answer": answer, "expected": question.expect_v1 }));
    }
    let all = shown.len();
    timeline.fact("questions", Value::Array(shown));
    let has = |lang: &str| languages.iter().any(|seen| seen == lang);
    let seen = format!("{right} of {all} as expected");
    timeline.check("answers_in_french", has("fr"), &seen)?;
    timeline.check("answers_in_english", has("en"), &seen)?;
    timeline.check(
        "abstains_without_an_answer",
        abstained,
        "a question that the FAQ does not cover",
    )?;
    Ok(())
}

fn second_release(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), StepError> {
    let package = stage.forge.pack("v2", Faq::V2)?;
    let targets: Vec<Target> =
        stage.machines.iter().map(|machine| machine.target.clone()).collect();
    let texts: Vec<String> = stage.questions.iter().map(|question| question.text.clone()).collect();
    let traffic = Traffic::start(&targets, &texts)?;
    let agent = stage.ground.program("socle-agent");
    let rolled = roll_out(stage, timeline, &agent, &package);
    wait::until("enough questions", REPORT_WITHIN, || {
        Ok::<_, StepError>(match traffic.asked() {
            asked if asked >= TRAFFIC_MIN => Look::Done(()),
            asked => Look::NotYet(format!("{asked} asked")),
        })
    })?;
    let tally = traffic.stop();
    let (built, sent, rollout) = rolled?;
    expect_complete(&built, &rollout)?;
    stage.packages.push(package);
    let running = running(stage, &built)?;
    timeline.check(
        "release_2_commits_everywhere",
        running == MACHINES.len(),
        &format!("{running} of 3 run it"),
    )?;
    let evidence = match &tally.first_failure {
        None => format!("{} answered, 0 failed", tally.good),
        Some(first) => {
            format!("{} answered, {} failed; the first: {first}", tally.good, tally.failed)
        }
    };
    timeline.check(
        "no_request_fails_during_the_update",
        tally.failed == 0 && tally.good > 0,
        &evidence,
    )?;
    timeline.fact("traffic", json!({ "answered": tally.good, "failed": tally.failed }));

    let fetched = fetched(&stage.controller, &built.digest)?;
    let whole: u64 = built.manifest.objects().iter().map(|object| object.length).sum();
    let only_changed = sent.objects < sent.all
        && sent.bytes < whole / 4
        && fetched.len() == MACHINES.len()
        && fetched.iter().all(|detail| !moves_everything(detail));
    let evidence = format!(
        "{} of {} objects published; machines: {}",
        sent.objects,
        sent.all,
        fetched.first().map_or("–", String::as_str)
    );
    timeline.check("only_changed_files_move", only_changed, &evidence)?;
    let newer = stage.questions.iter().filter(|q| q.expect_v2.is_some() && q.expect_v1.is_none());
    let client = api::local_agent();
    let mut learnt = 0;
    for question in newer {
        let Target { url, token } = &targets[0];
        let answer = ask::ask(&client, url, token, &question.text, Some(MODEL))?;
        if answer["decision"] == "answered"
            && answer["entry"].as_str() == question.expect_v2.as_deref()
        {
            learnt += 1;
        }
    }
    timeline.check(
        "new_entries_are_answered",
        learnt > 0,
        &format!("{learnt} questions that release 1 could not answer"),
    )?;
    Ok(())
}

fn poisoned_release(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), StepError> {
    let genuine = stage.packages[1].clone();
    let package = stage.forge.poison(&genuine)?;
    let agent = stage.ground.program("socle-agent");
    let (built, _, rollout) = roll_out(stage, timeline, &agent, &package)?;
    halted_at_canary(stage, timeline, "poisoned_model", "golden", (&built, &rollout))
}

fn crashing_release(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), StepError> {
    let package = stage.packages[1].clone();
    let agent = stage.ground.program("socle-crash-agent");
    let (built, _, rollout) = roll_out(stage, timeline, &agent, &package)?;
    halted_at_canary(stage, timeline, "crashing_agent", "", (&built, &rollout))?;
    let client = api::local_agent();
    let mut answering = 0;
    for machine in &stage.machines {
        let Target { url, token } = &machine.target;
        if ask::ask(&client, url, token, &stage.questions[0].text, Some(MODEL)).is_ok() {
            answering += 1;
        }
    }
    timeline.check(
        "every_machine_still_answers",
        answering == MACHINES.len(),
        &format!("{answering} of 3"),
    )?;
    Ok(())
}

fn altered_file(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), StepError> {
    let package = stage.forge.pack("v3", Faq::V2Revised)?;
    let agent = stage.ground.program("socle-agent");
    let (folder, built) = stage.forge.release(&agent, &package, now())?;
    publish::publish(&folder, &stage.controller.api, timeline.terminal())?;
    let faq = built.manifest.files.iter().find(|file| file.path.ends_with("faq.jsonl"));
    let victim = faq.ok_or(StepError::Lacks("faq.jsonl"))?.sha256;
    let stored = find(&stage.ground.controller(), &victim.to_string())?
        .ok_or(StepError::Lacks("stored object"))?;
    let mut content = files::read(&stored, files::OBJECT_BYTES_MAX)?;
    if let Some(byte) = content.last_mut() {
        *byte ^= 1;
    }
    files::write(&stored, &content, files::Access::All)?;
    let rollout = start_and_wait(stage, timeline, &built)?;
    let refused = events(&stage.controller, &built.digest, "refused")?;
    let named = refused.iter().any(|event| {
        event["detail"].as_str().is_some_and(|detail| detail.contains(&victim.to_string()[..8]))
    });
    let evidence =
        refused.first().and_then(|event| event["detail"].as_str()).unwrap_or("no refusal reported");
    timeline.check("altered_file_is_refused", named && rollout["state"] == "halted", evidence)?;
    let running = running(stage, &built)?;
    timeline.check("altered_file_runs_nowhere", running == 0, &format!("{running} of 3 run it"))?;
    Ok(())
}

fn rolled_back_release(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), StepError> {
    let first = stage.first.ok_or(StepError::Lacks("release 1"))?;
    let since = wait::now();
    let path = format!("devices/{}/assign", stage.machines[1].id);
    let before = events(&stage.controller, &first, "refused")?.len();
    let _answer: Value = stage.controller.api.post(&path, &json!({ "release": first }))?;
    let detail = wait::until("the refusal of release 1", REPORT_WITHIN, || {
        let refused = events(&stage.controller, &first, "refused")?;
        Ok::<_, StepError>(match refused.get(before) {
            Some(event) => Look::Done(event["detail"].as_str().unwrap_or_default().to_owned()),
            None => Look::NotYet("no refusal yet".into()),
        })
    })?;
    timeline.happened(since, "assigned release 1 again, genuine and signed", "")?;
    timeline.check("rollback_is_refused", detail.contains("rollback"), &detail)?;
    Ok(())
}

fn broker_saw(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), StepError> {
    let heard = stage.heard.messages();
    let reports: Vec<_> = heard
        .iter()
        .filter(|message| {
            ["/state", "/tele", "/event"].iter().any(|leaf| message.topic.ends_with(leaf))
        })
        .collect();
    let words: Vec<&[u8]> =
        ["demo.1", "demo.2", "cosine", "golden", "x86_64", "agent-1", "fetched", MODEL]
            .into_iter()
            .map(str::as_bytes)
            .collect();
    let readable = reports
        .iter()
        .filter(|message| {
            words.iter().any(|word| message.payload.windows(word.len()).any(|seen| seen == *word))
        })
        .count();
    let bytes: usize = reports.iter().map(|message| message.payload.len()).sum();
    let evidence =
        format!("{} reports, {bytes} bytes, {readable} with a readable word", reports.len());
    timeline.check(
        "telemetry_is_unreadable_at_the_broker",
        !reports.is_empty() && readable == 0,
        &evidence,
    )?;
    let opened: Value = stage.controller.api.get("events?limit=1000")?;
    let opened = opened["events"].as_array().map_or(0, Vec::len);
    timeline.check(
        "controller_opens_telemetry",
        opened > 0,
        &format!("{opened} events opened and stored"),
    )?;
    timeline.fact("broker", json!({ "reports": reports.len(), "bytes": bytes }));
    Ok(())
}

/// Builds, signs, publishes and rolls out; the rollout's end comes back.
fn roll_out(
    stage: &mut Stage,
    timeline: &mut Timeline,
    agent: &Path,
    package: &Path,
) -> Result<(Built, Sent, Value), StepError> {
    let since = wait::now();
    let (folder, built): (ReleaseFolder, Built) = stage.forge.release(agent, package, now())?;
    let sent = publish::publish(&folder, &stage.controller.api, timeline.terminal())?;
    let detail = format!("{}, {} of {} objects sent", built.digest.short(), sent.objects, sent.all);
    timeline.happened(
        since,
        &format!("{} built, signed, published", built.manifest.name),
        &detail,
    )?;
    let rollout = start_and_wait(stage, timeline, &built)?;
    Ok((built, sent, rollout))
}

fn start_and_wait(
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

fn halted_at_canary(
    stage: &Stage,
    timeline: &mut Timeline,
    name: &str,
    gate: &str,
    (built, rollout): (&Built, &Value),
) -> Result<(), StepError> {
    let rolled_back = wait::until("the roll-back to be reported", REPORT_WITHIN, || {
        let events = events(&stage.controller, &built.digest, "rolled-back")?;
        Ok::<_, StepError>(if events.is_empty() {
            Look::NotYet("nothing yet".into())
        } else {
            Look::Done(events)
        })
    })?;
    let detail = rolled_back[0]["detail"].as_str().unwrap_or_default();
    let canary = rolled_back[0]["device"].as_str().unwrap_or_default();
    timeline.check(
        &format!("{name}_is_rolled_back"),
        rolled_back.len() == 1 && detail.contains(gate),
        detail,
    )?;
    timeline.check(
        &format!("{name}_halts_the_rollout"),
        rollout["state"] == "halted",
        rollout["reason"].as_str().unwrap_or("–"),
    )?;

    let release = built.digest.to_string();
    let mut quarantined = false;
    for machine in stage.machines.iter().filter(|machine| machine.id == canary) {
        quarantined = machine.status()?.to_string().contains(&release);
    }
    timeline.check(
        &format!("{name}_is_quarantined"),
        quarantined,
        "the canary will not try it again by itself",
    )?;
    let all: Value = stage.controller.api.get("events?limit=1000")?;
    let elsewhere = all["events"].as_array().into_iter().flatten().filter(|event| {
        event["release"] == release.as_str() && event["device"].as_str() != Some(canary)
    });
    let elsewhere = elsewhere.count();
    timeline.check(
        &format!("{name}_reaches_no_other_machine"),
        elsewhere == 0,
        &format!("{elsewhere} events from others"),
    )?;
    Ok(())
}

fn expect_complete(built: &Built, rollout: &Value) -> Result<(), StepError> {
    match rollout["state"].as_str() {
        Some("complete") => Ok(()),
        state => Err(StepError::Rollout {
            release: built.manifest.name.clone(),
            state: state.unwrap_or("unknown").to_owned(),
            reason: rollout["reason"].as_str().unwrap_or_default().to_owned(),
        }),
    }
}

/// Machines that say they answer from this release.
fn running(stage: &Stage, built: &Built) -> Result<usize, StepError> {
    let client = api::local_agent();
    let release = built.digest.to_string();
    let mut running = 0;
    for machine in &stage.machines {
        let Target { url, token } = &machine.target;
        let answer = ask::ask(&client, url, token, &stage.questions[0].text, Some(MODEL))?;
        running += usize::from(answer["release"] == release.as_str());
    }
    Ok(running)
}

/// Whether the first commit came before anybody else accepted the release.
fn waves_in_order(
    controller: &RunningController,
    built: &Built,
) -> Result<(bool, String), StepError> {
    let time = |event: &Value| event["id"].as_u64().unwrap_or_default();
    let accepted = events(controller, &built.digest, "accepted")?;
    let committed = events(controller, &built.digest, "committed")?;
    let Some(first) = committed.iter().min_by_key(|event| time(event)) else {
        return Ok((false, "no commit reported".into()));
    };
    let early = accepted
        .iter()
        .filter(|event| event["device"] != first["device"] && time(event) < time(first))
        .count();
    Ok((
        early == 0 && accepted.len() == MACHINES.len(),
        format!("{early} machines started before the canary had committed"),
    ))
}

fn events(
    controller: &RunningController,
    release: &Digest,
    kind: &str,
) -> Result<Vec<Value>, StepError> {
    let answer: Value = controller.api.get("events?limit=1000")?;
    let all = answer["events"].as_array().cloned().ok_or(StepError::Lacks("events"))?;
    let release = release.to_string();
    Ok(all
        .into_iter()
        .filter(|event| event["release"] == release.as_str() && event["kind"] == kind)
        .collect())
}

fn fetched(controller: &RunningController, release: &Digest) -> Result<Vec<String>, StepError> {
    let events = events(controller, release, "fetched")?;
    Ok(events.iter().filter_map(|event| event["detail"].as_str().map(str::to_owned)).collect())
}

/// Whether "fetched 3 of 3 files, …" says that all of them moved.
fn moves_everything(detail: &str) -> bool {
    let mut numbers = detail.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(moved), Some(all)) => moved >= all,
        _ => true,
    }
}

/// The file called `name` below `folder`.
fn find(folder: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn keep(stage: &Stage, timeline: &Timeline) -> io::Result<()> {
    timeline.note(&format!(
        "\nController and console: {}\n  token: {}",
        stage.controller.url,
        stage.ground.controller().join("admin-token").display()
    ))?;
    timeline
        .note(&format!("  certificate authority: {}", stage.ground.pki("ca.crt.pem").display()))?;
    for machine in &stage.machines {
        timeline.note(&format!(
            "{}: {}\n  token: {}",
            machine.name,
            machine.target.url,
            machine.state.join("identity/api-token").display()
        ))?;
    }
    timeline.note("\nEverything runs on until you press Enter.")?;
    io::stdin().read_line(&mut String::new()).map(|_| ())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the demo signs with today's date, as an operator does"
)]
fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_everything_moved_is_told_from_one_of_less() {
        assert!(!moves_everything("fetched 2 of 9 files, 41 kB of 24 MB"));
        assert!(moves_everything("fetched 9 of 9 files, 24 MB of 24 MB"));
        assert!(moves_everything("fetched all"));
    }

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
