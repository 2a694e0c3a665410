//! Chooses scenarios, runs each on a machine of its own, and tells how they went.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::demo;
use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::nspawn::network::Network;
use crate::nspawn::origin::From;
use crate::nspawn::scenario::Scenario;
use crate::nspawn::stand::{Places, Stand};
use crate::nspawn::wait::now;
use crate::nspawn::{disks, hangs, image, install, possible, power, updates, upgrades};
use crate::{fetch, say};

/// In this order; the first two leave the states that all others start from.
const SCENARIOS: [Scenario; 20] = [
    Scenario {
        name: "install",
        about: "apt installs the package; a factory agent answers",
        from: From::Bare,
        quick: true,
        run: install::install,
    },
    Scenario {
        name: "enrol",
        about: "the machine joins a fleet and takes its first release",
        from: From::Installed,
        quick: true,
        run: install::enrol,
    },
    Scenario {
        name: "journal",
        about: "logs are in the journal, with fields, without secrets",
        from: From::Enrolled,
        quick: true,
        run: install::journal,
    },
    Scenario {
        name: "self-update",
        about: "the agent takes a newer build of itself under requests",
        from: From::Enrolled,
        quick: true,
        run: updates::self_update,
    },
    Scenario {
        name: "crash-loop",
        about: "a release crashes at ten starts; no start limit strands the machine",
        from: From::Enrolled,
        quick: true,
        run: updates::crash_loop,
    },
    Scenario {
        name: "release-downgrade",
        about: "an older release is refused",
        from: From::Enrolled,
        quick: false,
        run: updates::release_downgrade,
    },
    Scenario {
        name: "hung-gateway",
        about: "the watchdog ends a gateway that hangs",
        from: From::Enrolled,
        quick: false,
        run: hangs::gateway,
    },
    Scenario {
        name: "hung-release",
        about: "releases whose gateway hangs are rolled back",
        from: From::Enrolled,
        quick: false,
        run: hangs::release,
    },
    Scenario {
        name: "hung-worker",
        about: "a worker that hangs is replaced, the gateway stays",
        from: From::Enrolled,
        quick: false,
        run: hangs::worker,
    },
    Scenario {
        name: "hung-updater",
        about: "an updater that hangs costs time, no request and no update",
        from: From::Enrolled,
        quick: false,
        run: hangs::updater,
    },
    Scenario {
        name: "offline",
        about: "no watchdog bites while controller and broker are gone",
        from: From::Enrolled,
        quick: false,
        run: hangs::offline,
    },
    Scenario {
        name: "reboot-in-probation",
        about: "the try of an orderly stop is given back",
        from: From::Enrolled,
        quick: false,
        run: power::reboot,
    },
    Scenario {
        name: "power-cut-at-arming",
        about: "old or new, never neither",
        from: From::Enrolled,
        quick: true,
        run: power::cut_at_arming,
    },
    Scenario {
        name: "power-cut-in-probation",
        about: "the try is spent, the release is tried again",
        from: From::Enrolled,
        quick: false,
        run: power::cut_in_probation,
    },
    Scenario {
        name: "power-cuts-until-rolled-back",
        about: "with no try left the release before runs",
        from: From::Enrolled,
        quick: false,
        run: power::cuts_until_rolled_back,
    },
    Scenario {
        name: "apt-upgrade",
        about: "a newer package during an update leaves the slots alone",
        from: From::Enrolled,
        quick: false,
        run: upgrades::apt_upgrade,
    },
    Scenario {
        name: "package-downgrade",
        about: "an older package is refused",
        from: From::Enrolled,
        quick: false,
        run: upgrades::package_downgrade,
    },
    Scenario {
        name: "full-disk",
        about: "the disk fills while a release is staged",
        from: From::OnDisk(disks::ROOM),
        quick: false,
        run: disks::full,
    },
    Scenario {
        name: "read-only-disk",
        about: "the disk turns read-only in probation",
        from: From::OnDisk(disks::ROOM),
        quick: false,
        run: disks::read_only,
    },
    Scenario {
        name: "purge",
        about: "removing keeps the state, purging asks",
        from: From::Enrolled,
        quick: false,
        run: install::purge,
    },
];

/// Which scenarios are run, and on what.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Only these; all if it is empty.
    pub(crate) only: &'a [String],
    /// Only those of the quick form.
    pub(crate) quick: bool,
    /// Only names them.
    pub(crate) list: bool,
    /// Programs that are built already.
    pub(crate) bin_dir: Option<&'a Path>,
    /// A launcher for the package that is built already.
    pub(crate) launch: Option<&'a Path>,
    /// Another model than the fetched one.
    pub(crate) model: Option<&'a Path>,
}

/// How a scenario went.
#[derive(Debug, Serialize)]
struct Done {
    name: &'static str,
    ok: bool,
    seconds: f64,
    note: String,
}

/// Runs the scenarios of `plan`.
pub(crate) fn run(machine: &Machine, plan: &Plan<'_>) -> Result<(), Failure> {
    if plan.list {
        for Scenario { name, about, quick, .. } in SCENARIOS {
            let mark = if quick { "quick" } else { "" };
            say::result(&format!("{name:30} {mark:6} {about}")).map_err(told)?;
        }
        return Ok(());
    }
    let chosen = choose(plan)?;
    possible::check(machine)?;
    let start = now();
    let model = match plan.bin_dir {
        Some(_) => fetch::model(machine, plan.model)?.folder().to_path_buf(),
        None => demo::prepare(machine, plan.model)?,
    };
    let bin_dir = plan.bin_dir.map_or_else(|| machine.bin_dir(), Path::to_path_buf);
    let base = image::ensure(machine)?;
    let work = tempfile::Builder::new()
        .prefix("socle-nspawn-")
        .tempdir()
        .map_err(|error| Failure::new("making a temporary folder").because(error))?;
    let network = Network::new(machine)?;
    let stand = Stand::new(
        machine,
        &network,
        &Places {
            base: &base,
            work: work.path(),
            bin_dir: &bin_dir,
            launch: plan.launch,
            model: &model,
        },
    )?;
    let mut done: Vec<Done> = Vec::new();
    for scenario in chosen {
        let one = take(&stand, &scenario);
        let stop = !one.ok && scenario.from < From::Enrolled;
        done.push(one);
        if stop {
            // The others have nothing to start from.
            break;
        }
    }
    report(machine, &done, start.elapsed().as_secs_f64()).map_err(told)?;
    let failed: Vec<&str> = done.iter().filter(|done| !done.ok).map(|done| done.name).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let again = format!("`cargo xtask nspawn --only {}` repeats it", failed.join(" --only "));
    Err(Failure::new(format!("failed: {}", failed.join(", "))).next(again))
}

fn told(error: io::Error) -> Failure {
    Failure::new("printing the scenarios").because(error)
}

/// Those of the plan, and before them those whose states they start from.
fn choose(plan: &Plan<'_>) -> Result<Vec<Scenario>, Failure> {
    let known = |name: &&String| !SCENARIOS.iter().any(|scenario| scenario.name == name.as_str());
    if let Some(unknown) = plan.only.iter().find(known) {
        return Err(Failure::new(format!("there is no scenario `{unknown}`"))
            .next("`cargo xtask nspawn --list` names them"));
    }
    let named = |scenario: &Scenario| {
        (plan.only.is_empty() || plan.only.iter().any(|name| name == scenario.name))
            && (scenario.quick || !plan.quick)
    };
    let furthest = SCENARIOS.iter().filter(|one| named(one)).map(|one| one.from).max();
    let needed = |scenario: &Scenario| {
        furthest.is_some_and(|furthest| scenario.from < furthest && scenario.from < From::Enrolled)
    };
    Ok(SCENARIOS.into_iter().filter(|one| named(one) || needed(one)).collect())
}

fn take(stand: &Stand<'_>, scenario: &Scenario) -> Done {
    say::heading(&format!("{}: {}", scenario.name, scenario.about));
    let start = now();
    let result = stand.open(scenario.from).and_then(|mut station| {
        let result = (scenario.run)(&mut station);
        match (&result, scenario.from) {
            (Err(_), _) => say::line(&station.last_words()),
            (Ok(_), From::Bare) => stand.save(From::Installed, &station.power_off()?)?,
            (Ok(_), From::Installed) => stand.save(From::Enrolled, &station.power_off()?)?,
            (Ok(_), From::Enrolled | From::OnDisk(_)) => {}
        }
        result
    });
    let ok = result.is_ok();
    let note = result.unwrap_or_else(|failure| failure.to_string());
    let seconds = start.elapsed().as_secs_f64();
    say::line(&format!("{} after {seconds:.1} s: {note}", if ok { "holds" } else { "FAILED" }));
    Done { name: scenario.name, ok, seconds, note }
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    scenarios: &'a [Done],
    total_seconds: f64,
}

fn report(machine: &Machine, done: &[Done], total_seconds: f64) -> io::Result<()> {
    match machine.output {
        Output::Person => {
            say::heading("scenarios");
            for Done { name, ok, seconds, note } in done {
                let mark = if *ok { "holds " } else { "FAILED" };
                let note = note.lines().next().unwrap_or_default();
                say::result(&format!("{mark} {name:30} {seconds:7.1} s  {note}"))?;
            }
            say::result(&format!("{} scenarios, {total_seconds:.1} s", done.len()))
        }
        Output::Json => {
            let ok = done.iter().all(|done| done.ok);
            let report = Report { ok, scenarios: done, total_seconds };
            say::result(&serde_json::to_string(&report).map_err(io::Error::other)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, SCENARIOS, choose};

    fn names(only: &[&str], quick: bool) -> Vec<&'static str> {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        let plan =
            Plan { only: &only, quick, list: false, bin_dir: None, launch: None, model: None };
        choose(&plan).unwrap().into_iter().map(|scenario| scenario.name).collect()
    }

    #[test]
    fn a_scenario_brings_those_whose_states_it_starts_from() {
        assert_eq!(names(&["install"], false), ["install"]);
        assert_eq!(names(&["enrol"], false), ["install", "enrol"]);
        assert_eq!(names(&["full-disk"], false), ["install", "enrol", "full-disk"]);
        assert_eq!(names(&[], false).len(), SCENARIOS.len());
        assert!(names(&[], true).len() < SCENARIOS.len());
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let only = ["instal".to_owned()];
        let plan = Plan {
            only: &only,
            quick: false,
            list: false,
            bin_dir: None,
            launch: None,
            model: None,
        };
        assert!(choose(&plan).unwrap_err().to_string().contains("`instal`"));
    }
}
