//! What the controller and the machines say about a release, and whether it is what was promised.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::digest::Digest;
use serde_json::Value;

use crate::{
    api, ask,
    demo::{
        fleet::RunningController,
        releases::MODEL,
        stage::{MACHINES, Stage, StepError},
        timeline::Timeline,
        traffic::Target,
        wait::{self, Look},
    },
    release::build::Built,
};

/// Longest wait for one thing to be reported.
pub const REPORT_WITHIN: Duration = Duration::from_secs(60);

/// Checks that the canary rolled back at `gate`, quarantined the release, and that nobody else saw it.
pub fn halted_at_canary(
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

/// Holds if the rollout went to its end.
pub fn expect_complete(built: &Built, rollout: &Value) -> Result<(), StepError> {
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
pub fn running(stage: &Stage, built: &Built) -> Result<usize, StepError> {
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
pub fn waves_in_order(
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

/// What happened with a release, of one kind.
pub fn events(
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

/// What each machine says it fetched.
pub fn fetched(controller: &RunningController, release: &Digest) -> Result<Vec<String>, StepError> {
    let events = events(controller, release, "fetched")?;
    Ok(events.iter().filter_map(|event| event["detail"].as_str().map(str::to_owned)).collect())
}

/// Whether "fetched 3 of 3 files, …" says that all of them moved.
pub fn moves_everything(detail: &str) -> bool {
    let mut numbers = detail.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(moved), Some(all)) => moved >= all,
        _ => true,
    }
}

/// The file called `name` below `folder`.
pub fn find(folder: &Path, name: &str) -> io::Result<Option<PathBuf>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_everything_moved_is_told_from_one_of_less() {
        assert!(!moves_everything("fetched 2 of 9 files, 41 kB of 24 MB"));
        assert!(moves_everything("fetched 9 of 9 files, 24 MB of 24 MB"));
        assert!(moves_everything("fetched all"));
    }
}
