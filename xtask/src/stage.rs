//! Stages as data: a table of named pieces of work, run one after the other and told with their
//! durations.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::machine::{Machine, Output};
use crate::{say, shell};

/// One named piece of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    /// The name that `--only` takes and that a failure carries.
    pub(crate) name: &'static str,
    /// What it holds, in a few words.
    pub(crate) about: &'static str,
    /// How it is done.
    pub(crate) work: Work,
}

/// How a stage is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Cargo with these arguments.
    Cargo(&'static [&'static str]),
    /// A function of ours, which gives a line to remember.
    Call(fn(&Machine) -> Result<String, Failure>),
}

/// How a stage went.
#[derive(Debug, Serialize)]
struct Done {
    name: &'static str,
    ok: bool,
    seconds: f64,
    note: String,
    #[serde(skip)]
    exit: Option<Exit>,
}

/// Runs the stages, or those of them that `only` names, and prints the table.
///
/// A stage that fails does not keep the others from running: one run tells all there is to mend.
/// A machine that lacks something does, for then the others would only say it again.
pub(crate) fn run_all(machine: &Machine, stages: &[Stage], only: &[String]) -> Result<(), Failure> {
    let chosen = choose(stages, only)?;
    let start = now();
    let mut done: Vec<Done> = Vec::new();
    for stage in chosen {
        say::heading(&format!("{}: {}", stage.name, stage.about));
        done.push(run(machine, &stage));
        if done.last().is_some_and(|last| last.exit == Some(Exit::Missing)) {
            break;
        }
    }
    report(machine, &done, start.elapsed())
        .map_err(|error| Failure::new("printing the table of stages").because(error))?;
    verdict(&done)
}

fn choose(stages: &[Stage], only: &[String]) -> Result<Vec<Stage>, Failure> {
    let names: Vec<&str> = stages.iter().map(|stage| stage.name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(Failure::new(format!("there is no stage `{unknown}`"))
            .next(format!("name one of: {}", names.join(", "))));
    }
    let wanted = |stage: &&Stage| only.is_empty() || only.iter().any(|name| name == stage.name);
    Ok(stages.iter().filter(wanted).copied().collect())
}

fn run(machine: &Machine, stage: &Stage) -> Done {
    let start = now();
    let result = match stage.work {
        Work::Cargo(arguments) => {
            let mut command = machine.cargo(arguments);
            say::line(&format!("$ {}", shell::line(&command)));
            shell::run(&mut command).map(|()| String::new())
        }
        Work::Call(function) => function(machine),
    };
    let seconds = start.elapsed().as_secs_f64();
    let (note, exit) = match result {
        Ok(note) => (note, None),
        Err(failure) => (failure.to_string(), Some(failure.status())),
    };
    if exit.is_some() {
        say::line(&format!("stage `{}` failed: {note}", stage.name));
    }
    Done { name: stage.name, ok: exit.is_none(), seconds, note, exit }
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    stages: &'a [Done],
    total_seconds: f64,
}

fn report(machine: &Machine, done: &[Done], total: Duration) -> io::Result<()> {
    say::heading("stages");
    for stage in done {
        let mark = if stage.ok { "ok    " } else { "FAILED" };
        let note = stage.note.lines().next().unwrap_or_default();
        say::line(&format!("{mark} {:14} {:8.1} s  {note}", stage.name, stage.seconds));
    }
    say::line(&format!("total {:24.1} s", total.as_secs_f64()));
    match machine.output {
        Output::Person => Ok(()),
        Output::Json => {
            let ok = done.iter().all(|stage| stage.ok);
            let report = Report { ok, stages: done, total_seconds: total.as_secs_f64() };
            say::result(&serde_json::to_string(&report).map_err(io::Error::other)?)
        }
    }
}

fn verdict(done: &[Done]) -> Result<(), Failure> {
    let failed: Vec<&Done> = done.iter().filter(|stage| !stage.ok).collect();
    let Some(last) = failed.last() else { return Ok(()) };
    let names: Vec<&str> = failed.iter().map(|stage| stage.name).collect();
    let failure = match last.exit {
        Some(Exit::Missing) => Failure::missing(format!("failed: {}", names.join(", "))),
        Some(Exit::Failed | Exit::Passed(_)) | None => {
            Failure::new(format!("failed: {}", names.join(", ")))
        }
    };
    let advice = last.note.lines().find_map(|line| line.trim().strip_prefix("do next: "));
    Err(failure.next(match advice {
        Some(advice) => advice.to_owned(),
        None => format!("mend it, then repeat that part alone with `--only {}`", last.name),
    }))
}

#[expect(clippy::disallowed_methods, reason = "durations are what is shown here")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::{Done, Stage, Work, choose, verdict};
    use crate::failure::Exit;

    const TWO: [Stage; 2] = [
        Stage { name: "fmt", about: "", work: Work::Cargo(&[]) },
        Stage { name: "tidy", about: "", work: Work::Cargo(&[]) },
    ];

    #[test]
    fn only_the_named_stages_are_chosen_and_an_unknown_name_is_refused() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            choose(&TWO, &only)
                .map(|chosen| chosen.iter().map(|stage| stage.name).collect::<Vec<_>>())
                .map_err(|failure| failure.to_string())
        };
        assert_eq!(names(&[]), Ok(vec!["fmt", "tidy"]));
        assert_eq!(names(&["tidy"]), Ok(vec!["tidy"]));
        let refused = names(&["tody"]).unwrap_err();
        assert!(refused.contains("`tody`") && refused.contains("fmt, tidy"), "{refused}");
    }

    fn done(name: &'static str, exit: Option<Exit>) -> Done {
        let note = "broke\n  do next: apt-get install it".to_owned();
        Done { name, ok: exit.is_none(), seconds: 0.0, note, exit }
    }

    #[test]
    fn every_failed_stage_is_named_and_a_lacking_machine_has_its_own_exit_code() {
        assert!(verdict(&[done("fmt", None)]).is_ok());
        let failed = [done("fmt", Some(Exit::Passed(101))), done("tidy", Some(Exit::Failed))];
        let failure = verdict(&failed).unwrap_err();
        assert!(failure.to_string().contains("failed: fmt, tidy"), "{failure}");
        assert_eq!(failure.status(), Exit::Failed);
        let failure = verdict(&[done("machine", Some(Exit::Missing))]).unwrap_err();
        assert_eq!(failure.status(), Exit::Missing);
        assert!(failure.to_string().contains("do next: apt-get install it"), "{failure}");
    }
}
