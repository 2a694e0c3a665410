//! The releases that are offered, one after the other: good ones of every kind, and bad ones of every kind between them.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, ensure};
use engine::{
    golden::GoldenSet,
    package::{GOLDEN_FILE, MODEL_FILE},
};
use fastrand::Rng;
use protocol::{
    digest::Digest,
    manifest::{Policy, Role},
};
use serde::Serialize;

use crate::{
    release::{PackedAgent, Recipe, Release, build},
    signing::FleetKeys,
    swap::variant::{Ingredients, Variant, Weights, all_differ, weights_differ},
};

/// Variants that are packed; releases go round among them.
const VARIANTS: usize = 6;

/// What a good release changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The answers.
    Faq,
    /// The weights, and the answers.
    Model,
    /// The agent's own executable.
    Agent,
    /// All of it.
    AgentAndModel,
}

/// What is wrong with a bad release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Poison {
    /// Its model does not answer as its golden set says.
    WrongGolden,
    /// Its gateway ends at every start.
    CrashAtStart,
    /// Its agent's archive cannot be unpacked.
    BrokenArchive,
    /// Its gateway starts and never answers.
    HangAtStart,
    /// Its agent does not pass `--self-check`.
    SelfCheck,
    /// Its model cannot be loaded.
    BrokenModel,
}

/// What is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It must commit.
    Good(Change),
    /// It must be given up, and never answer anybody.
    Bad(Poison),
}

/// A release on its way.
#[derive(Debug)]
pub struct Offer {
    /// What it is.
    pub kind: Kind,
    /// The release.
    pub release: Release,
    /// What it answers, if it is good; a number among [`Cargo::variants`].
    pub variant: usize,
}

/// Makes the releases.
#[derive(Debug)]
pub struct Cargo {
    keys: FleetKeys,
    variants: Vec<Variant>,
    /// Good executables, each really another file.
    agents: Vec<PackedAgent>,
    bad_agents: BTreeMap<Poison, PackedAgent>,
    counter: u64,
    variant: usize,
    agent: usize,
}

const CHANGES: [Change; 4] = [Change::Faq, Change::Agent, Change::Model, Change::AgentAndModel];
const POISONS: [Poison; 6] = [
    Poison::WrongGolden,
    Poison::CrashAtStart,
    Poison::BrokenArchive,
    Poison::HangAtStart,
    Poison::SelfCheck,
    Poison::BrokenModel,
];

/// The kinds of `good` and `bad` releases, in the order in which they are offered. Every kind comes as soon as it can;
/// where the bad ones stand is drawn.
pub fn plan(good: usize, bad: usize, random: &mut Rng) -> Vec<Kind> {
    let mut kinds: Vec<Kind> =
        CHANGES.iter().cycle().take(good).map(|change| Kind::Good(*change)).collect();
    for poison in POISONS.iter().cycle().take(bad) {
        kinds.insert(random.usize(0..=kinds.len()), Kind::Bad(*poison));
    }
    kinds
}

impl Cargo {
    /// Packs what the releases are made of. `agent` is the real executable, `other` one of another build that serves as
    /// well, and does as its last bytes say ([`crate::swap`] appends them).
    pub fn pack(
        keys: FleetKeys,
        ingredients: &Ingredients,
        agent: &Path,
        other: &Path,
    ) -> anyhow::Result<Self> {
        let variants: Vec<Variant> = (0..VARIANTS)
            .map(|at| {
                let weights = if at % 2 == 0 { Weights::First } else { Weights::Second };
                ingredients.variant(&format!("v{at}"), weights)
            })
            .collect::<anyhow::Result<_>>()?;
        all_differ(&variants)?;
        if let [first, second, ..] = variants.as_slice() {
            ensure!(
                weights_differ(first, second),
                "both kinds of weights give the same embeddings"
            );
        }
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        let (agent, other) = (read(agent)?, read(other)?);
        // Bytes after an executable's last section change its digest and nothing it does by itself.
        let ending =
            |content: &[u8], words: &str| PackedAgent::of(&[content, words.as_bytes()].concat());
        let agents = vec![
            PackedAgent::of(&agent)?,
            ending(&other, "\nsocle-crash-agent: serve\n")?,
            ending(&agent, "\nanother build\n")?,
        ];
        // An executable that no slot holds: one that is stored already would not be taken out of the archive.
        let mut broken = ending(&agent, "\na build that nobody has\n")?;
        let half = broken.archive.len() / 2;
        broken.archive.truncate(half);
        let bad_agents = BTreeMap::from([
            (Poison::CrashAtStart, ending(&other, "\nsocle-crash-agent: crash\n")?),
            (Poison::HangAtStart, ending(&other, "\nsocle-crash-agent: hang\n")?),
            (Poison::SelfCheck, ending(&other, "\nsocle-crash-agent: self-check\n")?),
            (Poison::BrokenArchive, broken),
        ]);
        Ok(Self { keys, variants, agents, bad_agents, counter: 0, variant: 0, agent: 0 })
    }

    /// The fleet's keys.
    pub const fn keys(&self) -> &FleetKeys {
        &self.keys
    }

    /// What the releases answer.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// The next release.
    pub fn next(&mut self, kind: Kind) -> anyhow::Result<Offer> {
        self.counter += 1;
        match kind {
            Kind::Good(change) => {
                let variants = self.variants.len();
                match change {
                    // Weights alternate among the variants.
                    Change::Faq => self.variant = (self.variant + 2) % variants,
                    Change::Model => self.variant = (self.variant + 1) % variants,
                    Change::Agent => self.agent = (self.agent + 1) % self.agents.len(),
                    Change::AgentAndModel => {
                        self.variant = (self.variant + 1) % variants;
                        self.agent = (self.agent + 1) % self.agents.len();
                    }
                }
                let files = self.current()?.files.clone();
                let agent = self.agents.get(self.agent).context("no such agent")?.clone();
                self.offer(kind, agent, files, 3)
            }
            Kind::Bad(poison) => self.bad(kind, poison),
        }
    }

    fn bad(&self, kind: Kind, poison: Poison) -> anyhow::Result<Offer> {
        let variant = self.current()?;
        let files = match poison {
            Poison::WrongGolden => variant.with(GOLDEN_FILE, wrong_golden)?,
            // Cut in the middle of its weights.
            Poison::BrokenModel => variant.with(MODEL_FILE, |onnx| {
                Ok(onnx.get(..onnx.len() / 3).unwrap_or_default().to_vec())
            })?,
            Poison::CrashAtStart
            | Poison::BrokenArchive
            | Poison::HangAtStart
            | Poison::SelfCheck => variant.files.clone(),
        };
        let agent = match self.bad_agents.get(&poison) {
            Some(agent) => agent,
            None => self.agents.get(self.agent).context("no such agent")?,
        };
        // Everybody waits while a gateway that hangs is waited for.
        let tries = if poison == Poison::HangAtStart { 1 } else { 2 };
        self.offer(kind, agent.clone(), files, tries)
    }

    fn offer(
        &self,
        kind: Kind,
        agent: PackedAgent,
        mut files: Vec<(String, Role, Vec<u8>)>,
        tries: u8,
    ) -> anyhow::Result<Offer> {
        let note = format!("release {}\n", self.counter).into_bytes();
        files.push((
            format!("models/{}/notice.txt", crate::swap::variant::MODEL),
            Role::Notice,
            note,
        ));
        let policy = Policy {
            tries,
            load_ms: 180_000,
            golden_ms: 180_000,
            probation_ms: 180_000,
            probation_answers: 20,
        };
        let recipe = Recipe { counter: self.counter, agent, files, policy, signers: 2 };
        let release = build(&self.keys, recipe)?;
        Ok(Offer { kind, release, variant: self.variant })
    }

    fn current(&self) -> anyhow::Result<&Variant> {
        self.variants.get(self.variant).context("no such variant")
    }
}

impl Offer {
    /// The release's name everywhere.
    pub fn digest(&self) -> Digest {
        self.release.digest()
    }
}

/// Every vector is the one of the next text.
fn wrong_golden(json: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut golden = GoldenSet::parse(json)?;
    let mut vectors: Vec<Vec<f32>> =
        golden.embeddings.iter().map(|case| case.vector.clone()).collect();
    vectors.rotate_left(1);
    for (case, vector) in golden.embeddings.iter_mut().zip(vectors) {
        case.vector = vector;
    }
    Ok(serde_json::to_vec(&golden)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_offered_and_the_seed_says_when() {
        let plan_of = |seed| plan(50, 10, &mut Rng::with_seed(seed));
        let kinds = plan_of(7);
        assert_eq!(kinds.len(), 60);
        for change in CHANGES {
            assert!(kinds.iter().filter(|kind| **kind == Kind::Good(change)).count() >= 12);
        }
        for poison in POISONS {
            assert!(kinds.contains(&Kind::Bad(poison)), "{poison:?}");
        }
        assert_eq!(kinds, plan_of(7));
        assert_ne!(kinds, plan_of(8));
    }
}
