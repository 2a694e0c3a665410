//! Our client beside others on the same repositories at the same time: where they disagree, a written list says why,
//! or the run fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::attacks::cases::{Answer, Answered, Case, Look};

/// Longest time a peer may take for all cases, in seconds.
const PEER_SECONDS: &str = "1800";
/// Most disagreements that are shown.
const SHOWN_MAX: usize = 40;

/// A known difference between a peer and us.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// `python-tuf` or `tough`.
    pub peer: String,
    /// The kind of case, or `*` for any.
    pub kind: String,
    /// What we say: `found`, `absent`, `refused`, or `*`.
    pub ours: String,
    /// What the peer says.
    pub theirs: String,
    /// Words in the reason of whoever refuses; empty for any.
    #[serde(default)]
    pub words: String,
    /// Only where a delegated role's own document was changed.
    #[serde(default)]
    pub delegated: bool,
    /// Why the difference is as it should be.
    pub reason: String,
}

/// The written list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    /// Its rows; the first that fits counts.
    #[serde(default)]
    pub difference: Vec<Difference>,
}

/// A disagreement that is not on the list.
#[derive(Clone, Debug, Serialize)]
pub struct Unlisted {
    /// The peer.
    pub peer: String,
    /// The case's kind.
    pub kind: String,
    /// Repeats the case.
    pub seed: u64,
    /// Which look, counted from 0.
    pub step: usize,
    /// What was asked for.
    pub path: String,
    /// What we say.
    pub ours: Answered,
    /// What the peer says.
    pub theirs: Answered,
}

/// How one kind went with one peer.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Count {
    /// Answers compared.
    pub answers: u64,
    /// Of these, the same.
    pub same: u64,
    /// Different, as the list says.
    pub listed: u64,
}

/// What a run found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Cases.
    pub cases: u64,
    /// By kind and peer.
    pub kinds: BTreeMap<String, BTreeMap<String, Count>>,
    /// What is not on the list; the first ones.
    pub unlisted: Vec<Unlisted>,
    /// How many are not on the list.
    pub unlisted_count: u64,
    /// Rows of the list, by number from 1, that were met.
    pub met: BTreeSet<usize>,
}

/// Asks `command` about all cases; it reads them from standard input and answers a line each.
pub fn ask(command: &mut Command, cases: &[Case], folder: &Path) -> anyhow::Result<Vec<Answer>> {
    let path = folder.join("cases.jsonl");
    let mut out = BufWriter::new(File::create(&path).context("writing the cases")?);
    for case in cases {
        serde_json::to_writer(&mut out, case)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    let mut limited = Command::new("timeout");
    limited.arg(PEER_SECONDS).arg(command.get_program()).args(command.get_args());
    let mut child = limited
        .stdin(File::open(&path)?)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let mut answers = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let answer: Answer = serde_json::from_str(&line?).context("reading an answer")?;
            answers.push(answer);
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    ensure!(
        answers.len() == cases.len(),
        "{command:?} answered {} of {} cases",
        answers.len(),
        cases.len()
    );
    Ok(answers)
}

impl Differences {
    /// Reads the list.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let list: Self = toml::from_str(text).context("reading the list of differences")?;
        for row in &list.difference {
            ensure!(!row.reason.trim().is_empty(), "a difference without a reason: {row:?}");
        }
        Ok(list)
    }

    /// The number of the row that explains it, from 1.
    fn explains(
        &self,
        peer: &str,
        case: &Case,
        ours: &Answered,
        theirs: &Answered,
    ) -> Option<usize> {
        let fits = |said: &str, answered: &Answered| said == "*" || said == answered.word();
        let words = |row: &Difference| {
            [ours, theirs].into_iter().any(|answered| match answered {
                Answered::Refused(why) => why.contains(&row.words),
                Answered::Absent | Answered::Found { .. } => row.words.is_empty(),
            })
        };
        let found = self.difference.iter().position(|row| {
            row.peer == peer
                && (row.kind == "*" || row.kind == case.kind)
                && (!row.delegated || !case.delegated.is_empty())
                && fits(&row.ours, ours)
                && fits(&row.theirs, theirs)
                && words(row)
        });
        found.map(|at| at + 1)
    }
}

impl Report {
    /// Holds the answers of `peer` against ours.
    pub fn compare(
        &mut self,
        peer: &str,
        cases: &[Case],
        ours: &[Answer],
        theirs: &[Answer],
        list: &Differences,
    ) {
        self.cases = cases.len() as u64;
        for ((case, ours), theirs) in cases.iter().zip(ours).zip(theirs) {
            for (step, (ours, theirs)) in ours.steps.iter().zip(&theirs.steps).enumerate() {
                self.look(peer, case, step, ours, theirs, list);
            }
        }
    }

    /// Whether every disagreement is on the list.
    pub const fn holds(&self) -> bool {
        self.unlisted_count == 0
    }

    fn look(
        &mut self,
        peer: &str,
        case: &Case,
        step: usize,
        ours: &Look,
        theirs: &Look,
        list: &Differences,
    ) {
        for path in &case.paths {
            let (ours, theirs) = (ours.of(path), theirs.of(path));
            let row = self.kinds.entry(case.kind.clone()).or_default();
            let count = row.entry(peer.to_owned()).or_default();
            count.answers += 1;
            if ours.agrees(&theirs) {
                count.same += 1;
            } else if let Some(row) = list.explains(peer, case, &ours, &theirs) {
                count.listed += 1;
                self.met.insert(row);
            } else {
                self.unlisted_count += 1;
                if self.unlisted.len() < SHOWN_MAX {
                    self.unlisted.push(Unlisted {
                        peer: peer.to_owned(),
                        kind: case.kind.clone(),
                        seed: case.seed,
                        step,
                        path: path.clone(),
                        ours,
                        theirs,
                    });
                }
            }
        }
    }
}
