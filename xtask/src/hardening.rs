//! The systemd units: `systemd-analyze verify` in a root of its own, and the exposure figure of
//! each service against its limit.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::machine::Machine;
use crate::{say, shell};

/// The largest exposure (0 is none, 10 all) that a service may have, by a word of its name. The
/// gateway has a network and so cannot come as low as the others.
const LIMITS: [(&str, f32); 3] = [("gateway", 1.5), ("worker", 1.0), ("updater", 0.5)];

const UNIT_FOLDER: &str = "usr/lib/systemd/system";

/// Loads every unit as systemd would; the units and the base units they hang on are laid out
/// under a temporary root, with a stand-in for each program that the package installs.
pub(crate) fn verify(machine: &Machine) -> Result<String, Failure> {
    let units = units(machine)?;
    let target = machine.root.join("target");
    let laying = |error| Failure::new("laying out the units under `target/`").because(error);
    std::fs::create_dir_all(&target).map_err(laying)?;
    let root = tempfile::Builder::new().prefix("units-").tempdir_in(&target).map_err(laying)?;
    let folder = root.path().join(UNIT_FOLDER);
    std::fs::create_dir_all(&folder).map_err(laying)?;
    copy_files(&Path::new("/").join(UNIT_FOLDER), &folder).map_err(laying)?;
    copy_files(&machine.root.join("systemd"), &folder).map_err(laying)?;
    let ours = our_programs(machine)?;
    for unit in &units {
        let text = std::fs::read_to_string(unit).map_err(laying)?;
        for program in programs(&text) {
            let name = program.rsplit('/').next().unwrap_or_default();
            if !ours.contains(name) && !Path::new(program).is_file() {
                return Err(Failure::new(format!(
                    "`{}` starts `{program}`, which neither the workspace nor Debian has",
                    unit.display()
                )));
            }
            stand_in(root.path(), program).map_err(laying)?;
        }
    }
    let analyze = analyze(machine)?;
    let mut command = machine.command(&analyze);
    command.args(["verify", "--man=no", "--recursive-errors=one", "--root"]).arg(root.path());
    command.args(units.iter().filter_map(|unit| instance(&folder, unit)));
    let printed = shell::read(&mut command)?;
    let complaints = printed.err.trim();
    if printed.status.success() && complaints.is_empty() {
        return Ok(format!("{} units load without a complaint", units.len()));
    }
    Err(Failure::new(format!("systemd-analyze verify: {complaints}"))
        .next("mend the unit that it names in `systemd/`"))
}

/// Prints the exposure of every service and holds it to its limit.
pub(crate) fn exposure(machine: &Machine) -> Result<String, Failure> {
    let analyze = analyze(machine)?;
    let mut told = Vec::new();
    let mut over = Vec::new();
    for unit in units(machine)?.iter().filter(|unit| has_extension(unit, &["service"])) {
        let name = file_name(unit);
        let mut command = machine.command(&analyze);
        command.args(["--no-pager", "security", "--offline=yes"]).arg(unit);
        let printed = shell::read(&mut command)?;
        let figure = parse_exposure(&printed.out).ok_or_else(|| {
            Failure::new(format!("no exposure for `{name}`: {}", printed.err.trim()))
        })?;
        match limit(&name) {
            Some(limit) => {
                say::line(&format!("{name}: exposure {figure:.1}, at most {limit:.1}"));
                told.push(format!("{name} {figure:.1} (≤ {limit:.1})"));
                if figure > limit {
                    over.push(name);
                }
            }
            None => {
                say::line(&format!("{name}: exposure {figure:.1}, no limit set"));
                told.push(format!("{name} {figure:.1}"));
            }
        }
    }
    for (word, _) in LIMITS {
        if !told.iter().any(|line| line.contains(word)) {
            return Err(Failure::new(format!("`systemd/` has no service for the {word}")));
        }
    }
    if over.is_empty() {
        return Ok(told.join(", "));
    }
    Err(Failure::new(format!("exposed too much: {} ({})", over.join(", "), told.join(", ")))
        .next("`systemd-analyze security --offline=yes systemd/UNIT` lists what can be closed"))
}

fn limit(name: &str) -> Option<f32> {
    LIMITS.iter().find(|(word, _)| name.contains(word)).map(|(_, limit)| *limit)
}

/// `→ Overall exposure level for x.service: 1.0 OK`
fn parse_exposure(text: &str) -> Option<f32> {
    let line = text.lines().find(|line| line.contains("Overall exposure level"))?;
    line.rsplit_once(": ")?.1.split_whitespace().next()?.parse().ok()
}

/// The programs that a unit starts: absolute paths, without systemd's prefixes.
fn programs(unit: &str) -> impl Iterator<Item = &str> {
    unit.lines()
        .filter(|line| line.starts_with("Exec"))
        .filter_map(|line| line.split_once('='))
        .filter_map(|(_, command)| command.split_whitespace().next())
        .map(|program| program.trim_start_matches(['@', '-', ':', '+', '!', '|']))
        .filter(|program| program.starts_with('/'))
}

fn units(machine: &Machine) -> Result<Vec<PathBuf>, Failure> {
    let folder = machine.root.join("systemd");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| Failure::new("reading the folder `systemd/`").because(error))?;
    let kinds = ["service", "socket", "path", "timer", "slice", "target"];
    let mut units: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|p| has_extension(p, &kinds)).collect();
    units.sort();
    if units.is_empty() {
        return Err(Failure::new("the folder `systemd/` holds no unit"));
    }
    Ok(units)
}

fn has_extension(path: &Path, kinds: &[&str]) -> bool {
    path.extension().is_some_and(|extension| kinds.iter().any(|kind| extension == *kind))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A template can only be loaded as an instance.
fn instance(folder: &Path, unit: &Path) -> Option<PathBuf> {
    Some(folder.join(file_name(unit).replace("@.", "@a.")))
}

fn analyze(machine: &Machine) -> Result<PathBuf, Failure> {
    machine.program("systemd-analyze").ok_or_else(|| {
        Failure::missing("`systemd-analyze` is not installed").next("apt-get install -y systemd")
    })
}

/// Names of the programs that the workspace builds.
fn our_programs(machine: &Machine) -> Result<BTreeSet<String>, Failure> {
    let mut command = machine.cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    command.stdout(std::process::Stdio::piped());
    let printed = shell::read(&mut command)?;
    let metadata: serde_json::Value = serde_json::from_str(&printed.out)
        .map_err(|error| Failure::new("reading `cargo metadata`").because(error))?;
    let list = |value: &serde_json::Value, key: &str| {
        value.get(key).and_then(|list| list.as_array()).cloned().unwrap_or_default()
    };
    let targets = list(&metadata, "packages").into_iter().flat_map(|p| list(&p, "targets"));
    Ok(targets
        .filter(|target| list(target, "kind").iter().any(|kind| kind == "bin"))
        .filter_map(|target| target.get("name").and_then(|name| name.as_str()).map(str::to_owned))
        .collect())
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)?.flatten() {
        if entry.metadata()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Any executable file does: `verify` looks only whether the program could be started.
fn stand_in(root: &Path, program: &str) -> io::Result<()> {
    let path = root.join(program.trim_start_matches('/'));
    if path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::copy("/bin/true", path).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::{limit, parse_exposure, programs};

    #[test]
    fn the_figure_is_read_from_the_last_line_of_the_report() {
        let text = "✓ UMask=  \n\n→ Overall exposure level for socle-gateway.service: 1.2 OK :-)\n";
        assert_eq!(parse_exposure(text), Some(1.2));
        assert_eq!(parse_exposure("nothing"), None);
    }

    #[test]
    fn prefixes_of_systemd_are_not_part_of_the_program() {
        let unit = "[Service]\nExecStartPre=+/usr/lib/x/launch arm\nExecStart=-!/usr/bin/y\n";
        assert_eq!(programs(unit).collect::<Vec<_>>(), ["/usr/lib/x/launch", "/usr/bin/y"]);
    }

    #[test]
    fn each_kind_of_service_has_its_limit() {
        let names = ["socle-gateway.service", "socle-worker@.service", "socle-updater.service"];
        assert_eq!(names.map(limit), [Some(1.5), Some(1.0), Some(0.5)]);
        assert_eq!(limit("socle-other.service"), None);
    }
}
