//! The story: what is done, in order, and what must hold.

use serde_json::{Value, json};

use crate::{
    api, ask,
    demo::{
        arguments::DemoArgs,
        evidence::{
            REPORT_WITHIN, events, expect_complete, fetched, find, halted_at_canary,
            moves_everything, running, waves_in_order,
        },
        releases::{Faq, MODEL},
        speed,
        stage::{
            MACHINES, Stage, StepError, keep, now, publication, roll_out, set_up, start_and_wait,
        },
        timeline::Timeline,
        traffic::{Target, Traffic},
        wait::{self, Look},
    },
    files,
    release::publish,
    terminal::Colour,
};

/// Questions asked while a release changes, at least.
const TRAFFIC_MIN: u64 = 30;

/// A step that could not be done, so that the story ends there.
#[derive(Debug, thiserror::Error)]
#[error("the demo stopped at: {step}")]
pub struct StoppedAt {
    step: String,
    source: StepError,
}

type Chapter = fn(&mut Stage, &mut Timeline) -> Result<(), StepError>;

/// After the set-up, in this order.
const CHAPTERS: [(&str, Chapter); 9] = [
    ("release 1: waves, proof, commit", first_release),
    ("questions in French and English", ask_questions),
    ("the model at work", model_at_work),
    ("release 2 under load: only what changed", second_release),
    ("release 3: a poisoned model", poisoned_release),
    ("release 4: an agent that crashes at start", crashing_release),
    ("an altered file on the artifact server", altered_file),
    ("a rollback to release 1", rolled_back_release),
    ("what the broker saw", broker_saw),
];

/// Tells the story. What failed on the way comes back as the step's name and why.
pub fn tell(args: &DemoArgs, timeline: &mut Timeline) -> Result<(), Box<StoppedAt>> {
    let at = |step: &str| {
        let step = step.to_owned();
        |source: StepError| Box::new(StoppedAt { step, source })
    };
    let making = "making a folder for the demo";
    // Kept until the end: dropping it removes the folder.
    let temporary = match &args.state {
        Some(_) => None,
        None => {
            let folder = tempfile::Builder::new().prefix("socle-").tempdir();
            Some(folder.map_err(StepError::from).map_err(at(making))?)
        }
    };
    let state = match (&args.state, &temporary) {
        (Some(state), _) => state.clone(),
        (None, folder) => {
            folder.as_ref().map(|folder| folder.path().to_owned()).unwrap_or_default()
        }
    };
    let mut stage = set_up(args, state, timeline).map_err(at("setting the fleet up"))?;
    for (title, chapter) in CHAPTERS {
        let told = timeline.chapter(title).map_err(StepError::from);
        told.and_then(|()| chapter(&mut stage, timeline)).map_err(at(title))?;
    }
    if args.keep {
        keep(&stage, timeline).map_err(StepError::from).map_err(at("leaving it running"))?;
    }
    for machine in &mut stage.machines {
        machine.stop().map_err(StepError::from).map_err(at("stopping the machines"))?;
    }
    Ok(())
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

fn model_at_work(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), StepError> {
    let machine = &stage.machines[0];
    let since = wait::now();
    let speed = speed::measure(&api::local_agent(), &machine.target, MODEL)?;
    let status = machine.status()?;
    let models = status["worker"]["models"].as_array().into_iter().flatten();
    let model = models.into_iter().find(|model| model["name"] == MODEL);
    let model = model.ok_or(StepError::Lacks("worker.models of the asked model"))?;
    let weights = model["weights"].as_str().unwrap_or("weights of no known form");
    let source = stage.forge.source(&stage.packages[0])?;
    let detail =
        format!("{source}; {weights}; {} {}", MODEL, model["version"].as_str().unwrap_or("–"));
    let title = format!("{:.0} tokens per second on {}", speed.tokens_per_second(), machine.name);
    timeline.happened(since, &title, &detail)?;
    timeline.fact(
        "model",
        json!({
            "name": MODEL,
            "version": model["version"],
            "source": source,
            "weights": weights,
            "tokens_per_second": speed.tokens_per_second().round(),
            "tokens": speed.tokens,
        }),
    );
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
    publish::publish(&publication(&folder), &stage.controller.api, timeline.terminal())?;
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
