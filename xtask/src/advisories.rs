//! Known vulnerabilities in what Cargo.lock pins, by a checkout of the RustSec advisory database.
//!
//! Matched here and not by cargo-deny, because that wants to clone the database itself, which an
//! isolated machine cannot. Format: the front matter of each `crates/*/RUSTSEC-*.md`, in TOML.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::{say, shell};

const UPSTREAM: &str = "https://github.com/RustSec/advisory-db";

#[derive(Debug, Deserialize)]
struct Entry {
    advisory: Head,
    #[serde(default)]
    versions: Versions,
}

#[derive(Debug, Deserialize)]
struct Head {
    id: String,
    package: String,
    date: String,
    /// Set for what is no vulnerability: unmaintained, unsound, notice.
    informational: Option<String>,
    withdrawn: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Versions {
    #[serde(default)]
    patched: Vec<String>,
    #[serde(default)]
    unaffected: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
}

/// One advisory that meets one locked package.
#[derive(Debug, PartialEq, Eq)]
struct Hit {
    id: String,
    package: String,
    /// `None` for a vulnerability.
    informational: Option<String>,
}

/// Checks Cargo.lock; a vulnerability fails, what is informational is told. The note names the
/// snapshot, or says that there was none.
pub(crate) fn check(machine: &Machine) -> Result<String, Failure> {
    let Some(database) = database(machine) else {
        return Ok("NOT CHECKED: no snapshot of the advisory database; name a checkout of it \
                   in ADVISORY_DB"
            .to_owned());
    };
    let entries = read_all(&database.folder)?;
    let snapshot = snapshot(machine, &database.folder, &entries);
    let lock = machine.root.join("Cargo.lock");
    let text = std::fs::read_to_string(&lock)
        .map_err(|error| Failure::new("reading `Cargo.lock`").because(error))?;
    let locked = toml::from_str::<Lock>(&text)
        .map_err(|error| Failure::new("parsing `Cargo.lock`").because(error))?;
    let hits = hits(&entries, &locked.package)?;
    let (told, vulnerable): (Vec<_>, Vec<_>) =
        hits.iter().partition(|hit| hit.informational.is_some());
    for hit in &told {
        let kind = hit.informational.as_deref().unwrap_or_default();
        say::line(&format!("note: {} is {kind} ({})", hit.package, hit.id));
    }
    let summary = format!(
        "{} ({snapshot}), {} advisories against {} packages: {} vulnerable, {} noted",
        database.origin,
        entries.len(),
        locked.package.len(),
        vulnerable.len(),
        told.len(),
    );
    say::line(&summary);
    if vulnerable.is_empty() {
        return Ok(summary);
    }
    let names: Vec<String> =
        vulnerable.iter().map(|hit| format!("{} ({})", hit.package, hit.id)).collect();
    Err(Failure::new(format!("vulnerable: {}; {summary}", names.join(", ")))
        .next("raise the dependency to a patched version; an advisory is never ignored"))
}

struct Database {
    folder: PathBuf,
    origin: &'static str,
}

/// The named checkout; else a clone in the cache, refreshed where the network allows it.
fn database(machine: &Machine) -> Option<Database> {
    if let Some(folder) = &machine.advisory_db {
        return Some(Database { folder: folder.clone(), origin: "snapshot of ADVISORY_DB" });
    }
    let folder = machine.cache.join("advisory-db");
    let mut git = machine.command(Path::new("git"));
    git.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
    git.args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"]);
    if folder.is_dir() {
        git.arg("-C").arg(&folder).args(["pull", "--quiet", "--ff-only", "--depth", "1"]);
    } else {
        git.args(["clone", "--quiet", "--depth", "1", UPSTREAM]).arg(&folder);
    }
    if let Err(failure) = shell::run(&mut git) {
        say::line(&format!("the advisory database could not be refreshed: {failure}"));
    }
    folder.join("crates").is_dir().then_some(Database { folder, origin: "clone in the cache" })
}

/// The commit's date where the checkout is a git repository, else the newest advisory's date.
fn snapshot(machine: &Machine, folder: &Path, entries: &[Entry]) -> String {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["log", "-1", "--format=%cs %h"]).current_dir(&machine.root);
    let own = folder.join(".git").exists();
    match shell::read(&mut git) {
        Ok(printed) if own && printed.status.success() => printed.out.trim().to_owned(),
        Ok(_) | Err(_) => {
            let newest = entries.iter().map(|entry| entry.advisory.date.as_str()).max();
            format!("newest advisory of {}", newest.unwrap_or("no date"))
        }
    }
}

fn read_all(folder: &Path) -> Result<Vec<Entry>, Failure> {
    let reading = |path: &Path, error| {
        Failure::new(format!("reading the advisories in `{}`", path.display()))
            .because(error)
            .next("ADVISORY_DB must name a checkout of the RustSec advisory database")
    };
    let crates = folder.join("crates");
    let mut entries = Vec::new();
    for package in std::fs::read_dir(&crates).map_err(|error| reading(&crates, error))?.flatten() {
        let files = std::fs::read_dir(package.path()).map_err(|error| reading(&crates, error))?;
        for file in files.flatten().map(|file| file.path()) {
            if file.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&file).map_err(|error| reading(&file, error))?;
                entries.push(parse(&text).map_err(|failure| {
                    Failure::new(format!("in `{}`: {failure}", file.display()))
                })?);
            }
        }
    }
    if entries.is_empty() {
        return Err(Failure::missing(format!("`{}` holds no advisory", crates.display()))
            .next("ADVISORY_DB must name a checkout of the RustSec advisory database"));
    }
    Ok(entries)
}

fn parse(text: &str) -> Result<Entry, Failure> {
    let front = text
        .split_once("```toml")
        .and_then(|(_, rest)| rest.split_once("```"))
        .ok_or_else(|| Failure::new("no front matter in TOML"))?
        .0;
    toml::from_str(front).map_err(|error| Failure::new("parsing the front matter").because(error))
}

fn hits(entries: &[Entry], locked: &[Locked]) -> Result<Vec<Hit>, Failure> {
    let mut hits = Vec::new();
    for entry in entries.iter().filter(|entry| entry.advisory.withdrawn.is_none()) {
        let head = &entry.advisory;
        for package in locked.iter().filter(|p| p.source.is_some() && p.name == head.package) {
            if is_affected(entry, &package.version)? {
                hits.push(Hit {
                    id: head.id.clone(),
                    package: format!("{} {}", package.name, package.version),
                    informational: head.informational.clone(),
                });
            }
        }
    }
    hits.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(hits)
}

/// Affected is what is neither patched nor was ever unaffected. A pre-release meets no requirement
/// that does not name one, so it counts as affected: the safe side.
fn is_affected(entry: &Entry, version: &str) -> Result<bool, Failure> {
    let id = &entry.advisory.id;
    let version = Version::parse(version).map_err(|error| {
        Failure::new(format!("version `{version}` of Cargo.lock")).because(error)
    })?;
    for text in entry.versions.patched.iter().chain(&entry.versions.unaffected) {
        let requirement = VersionReq::parse(text)
            .map_err(|error| Failure::new(format!("versions `{text}` of {id}")).because(error))?;
        if requirement.matches(&version) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{Locked, hits, parse};

    fn advisory(extra: &str, patched: &str) -> String {
        format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-2000-0001\"\npackage = \"webpki\"\n\
             date = \"2000-01-01\"\n{extra}\n[versions]\npatched = {patched}\n```\n# Title\n"
        )
    }

    fn ids(text: &str, version: &str, source: Option<&str>) -> Vec<String> {
        let locked = Locked {
            name: "webpki".to_owned(),
            version: version.to_owned(),
            source: source.map(str::to_owned),
        };
        let entry = parse(text).unwrap();
        hits(&[entry], &[locked]).unwrap().into_iter().map(|hit| hit.id).collect()
    }

    #[test]
    fn a_version_below_the_patched_one_is_a_hit_and_the_patched_one_is_not() {
        let text = advisory("", "[\">= 0.103.10\", \"^0.102.9\"]");
        let source = Some("registry+x");
        assert_eq!(ids(&text, "0.102.8", source), ["RUSTSEC-2000-0001"]);
        assert_eq!(ids(&text, "0.103.10", source), [""; 0]);
        assert_eq!(ids(&text, "0.102.9", source), [""; 0]);
    }

    #[test]
    fn our_own_crates_and_withdrawn_advisories_are_no_hits() {
        let text = advisory("", "[]");
        assert_eq!(ids(&text, "1.0.0", None), [""; 0]);
        let withdrawn = advisory("withdrawn = \"2001-01-01\"", "[]");
        assert_eq!(ids(&withdrawn, "1.0.0", Some("registry+x")), [""; 0]);
    }

    #[test]
    fn a_page_without_front_matter_is_refused() {
        assert!(parse("# Title\n").unwrap_err().to_string().contains("front matter"));
    }
}
