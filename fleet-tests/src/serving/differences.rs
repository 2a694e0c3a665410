//! Our agent beside a live Triton on the same requests: where they answer differently, a written list says why, or the
//! run fails.

use std::{collections::BTreeSet, io::Write as _, path::Path, process::Stdio};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

/// What stands before the table in the page that shows it.
pub const BEGIN: &str = "<!-- differences: written by `cargo xtask peer clients --write` from triton-differences.toml -->";
const END: &str = "<!-- differences: end -->";
/// Longest time for all requests, in seconds.
const SECONDS: &str = "600";

/// One request, and what the two made of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Asked {
    /// What was asked.
    pub case: String,
    /// What our agent answered, in few words.
    pub socle: String,
    /// What Triton answered.
    pub triton: String,
    /// Their own words where they refused: ours, then Triton's.
    pub said: [String; 2],
}

/// A known difference.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// What is asked.
    pub case: String,
    /// What our agent answers.
    pub socle: String,
    /// What Triton answers.
    pub triton: String,
    /// Why it is as it should be.
    pub why: String,
}

/// The written list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    /// Its rows.
    #[serde(default)]
    pub difference: Vec<Difference>,
}

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How many were asked.
    pub asked: usize,
    /// How many were answered alike.
    pub same: usize,
    /// How many otherwise, as the list says.
    pub listed: usize,
    /// Those answered otherwise and not as the list says.
    pub unlisted: Vec<Asked>,
    /// Rows of the list whose requests are answered alike, or are not asked.
    pub stale: Vec<String>,
}

/// Where the two servers are.
#[derive(Clone, Debug, Serialize)]
pub struct Servers {
    /// The model's name, on both.
    pub model: String,
    /// Ours.
    pub socle: Server,
    /// Triton.
    pub triton: Server,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// `address:port` of REST.
    pub rest: String,
    /// `address:port` of gRPC.
    pub grpc: String,
    /// The version that its model has.
    pub version: String,
    /// What admits us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Differences {
    /// The list in a file.
    ///
    /// # Errors
    /// It cannot be read, or a request stands in it twice.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let list: Self =
            toml::from_str(&text).with_context(|| format!("understanding {}", file.display()))?;
        let mut seen = BTreeSet::new();
        let twice = list.difference.iter().find(|row| !seen.insert(&row.case));
        ensure!(twice.is_none(), "{} has a row twice: {twice:?}", file.display());
        Ok(list)
    }

    /// Holds what was seen against the list.
    pub fn judge(&self, all: &[Asked]) -> Verdict {
        let mut verdict = Verdict { asked: all.len(), ..Verdict::default() };
        let mut used = BTreeSet::new();
        for asked in all {
            let row = self.difference.iter().find(|row| row.case == asked.case);
            if asked.socle == asked.triton {
                verdict.same += 1;
            } else if row
                .is_some_and(|row| (&row.socle, &row.triton) == (&asked.socle, &asked.triton))
            {
                verdict.listed += 1;
                used.insert(asked.case.as_str());
            } else {
                verdict.unlisted.push(asked.clone());
                used.insert(asked.case.as_str());
            }
        }
        let cases = self.difference.iter().map(|row| row.case.as_str());
        verdict.stale = cases.filter(|case| !used.contains(case)).map(str::to_owned).collect();
        verdict
    }

    /// The list as a table between its markers.
    pub fn table(&self) -> String {
        let mut text = format!("{BEGIN}\n| asked | socle | Triton | why |\n|---|---|---|---|\n");
        for Difference { case, socle, triton, why } in &self.difference {
            let row = [case, socle, triton, why].map(|cell| cell.replace('|', "\\|"));
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        text + END
    }
}

impl Verdict {
    /// Whether every difference is explained.
    pub const fn holds(&self) -> bool {
        self.asked > 0 && self.unlisted.is_empty() && self.stale.is_empty()
    }
}

/// The page with its table replaced; none where it has no markers.
pub fn replace(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{table}{after}"))
}

/// Asks both everything, by `script`.
///
/// # Errors
/// The script fails; its own words go to standard error.
pub fn ask(python: &Path, script: &Path, servers: &Servers) -> anyhow::Result<Vec<Asked>> {
    let mut command = std::process::Command::new("timeout");
    command.arg(SECONDS).arg(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting Python")?;
    // Not among the arguments, which anybody on the machine can read.
    let asked = serde_json::to_vec(servers)?;
    child.stdin.take().context("no standard input")?.write_all(&asked)?;
    let output = child.wait_with_output().context("asking both servers")?;
    if !output.status.success() {
        bail!("the script ended with {}", output.status);
    }
    let lines = std::str::from_utf8(&output.stdout).context("reading what it printed")?.lines();
    lines.map(|line| serde_json::from_str(line).context("reading a line of it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(case: &str, socle: &str, triton: &str) -> Asked {
        let (case, socle, triton) = (case.to_owned(), socle.to_owned(), triton.to_owned());
        Asked { case, socle, triton, said: [String::new(), String::new()] }
    }

    fn list(rows: &[(&str, &str, &str)]) -> Differences {
        let row = |(case, socle, triton): &(&str, &str, &str)| Difference {
            case: (*case).to_owned(),
            socle: (*socle).to_owned(),
            triton: (*triton).to_owned(),
            why: "because".to_owned(),
        };
        Differences { difference: rows.iter().map(row).collect() }
    }

    #[test]
    fn a_difference_counts_as_known_only_as_it_is_written() {
        let list =
            list(&[("a", "1", "2"), ("b", "1", "2"), ("gone", "1", "2"), ("mended", "1", "2")]);
        let all = [
            asked("a", "1", "2"),
            asked("b", "1", "3"),
            asked("c", "4", "4"),
            asked("new", "1", "2"),
            asked("mended", "2", "2"),
        ];
        let verdict = list.judge(&all);
        assert_eq!((verdict.asked, verdict.same, verdict.listed), (5, 2, 1));
        let unlisted: Vec<&str> = verdict.unlisted.iter().map(|one| one.case.as_str()).collect();
        assert_eq!(unlisted, ["b", "new"]);
        assert_eq!(verdict.stale, ["gone", "mended"]);
        assert!(!verdict.holds());
        assert!(!list.judge(&[]).holds(), "nothing asked is nothing shown");
        assert!(super::Differences::default().judge(&[asked("c", "4", "4")]).holds());
    }

    #[test]
    fn the_page_shows_the_list_as_it_is_and_every_row_says_why() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let list = Differences::read(&root.join("peers/serve/triton-differences.toml")).unwrap();
        assert!(list.difference.iter().all(|row| row.why.len() > 20 && row.socle != row.triton));
        let page = std::fs::read_to_string(root.join("../docs/guides/triton.md")).unwrap();
        let shown = replace(&page, &list.table()).unwrap();
        assert!(shown == page, "run `cargo xtask peer clients --write`");
    }
}
