//! All servers on the same cores, in turn.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context as _;
use engine::text_tokenizer::TextTokenizer;
use fastrand::Rng;
use serde::Serialize;

use crate::{
    bench::{
        lengths::{Kind, Lengths},
        stats::median,
        words::{Text, Words},
    },
    serving::{
        arrivals::poisson,
        load::{self, Outcome, Trial},
        processor::Group,
        search::Search,
        target::{Form, Target, Tensor},
    },
};

/// Texts that are asked over and over.
const TEXTS: usize = 512;
/// Longest text, in bytes and tokens.
const TEXT_BYTES_MAX: usize = 64 * 1024;
const TOKENS_MAX: usize = 256;
/// By how much a rate is taken back that does not hold when it is tried again.
const BACK: f64 = 0.93;
/// Times that it is taken back, at most.
const TIMES_BACK: usize = 6;

/// How it is done.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Plan {
    /// Seconds of a trial that count.
    pub seconds: u32,
    /// Requests a second of the first trial.
    pub first_rate: f64,
    /// Trials of a search, at most.
    pub trials: u32,
    /// Times that the rate found is tried again.
    pub confirmations: usize,
    /// Connections.
    pub connections: usize,
    /// 99 of 100 requests must be answered in this time.
    pub limit_ms: f64,
    /// Requests one after the other for the cost of the way alone.
    pub one_by_one: usize,
    /// Rounds of those.
    pub rounds: usize,
    /// Seed of texts and arrivals.
    pub seed: u64,
}

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Maker {
    /// We.
    Socle,
    /// NVIDIA.
    Triton,
    /// Seldon.
    #[serde(rename = "MLServer")]
    Mlserver,
}

/// A server as it is asked in one form.
#[derive(Debug)]
pub struct Rival {
    /// What it is called.
    pub name: String,
    /// Whose it is.
    pub maker: Maker,
    /// Where its encoder is asked.
    pub encoder: Target,
    /// The shape of one text's tensor, as this server wants it.
    pub shape: &'static [i64],
    /// Where its model that does nothing is asked.
    pub identity: Target,
    /// For what.
    pub nothing: Tensor,
    /// Its processes.
    pub processes: Vec<Group>,
}

/// What was seen of a server.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// Which.
    pub name: String,
    /// Whose.
    pub maker: Maker,
    /// How it was asked.
    pub form: Form,
    /// The highest rate that it keeps, in requests a second.
    pub rate: Option<f64>,
    /// The trials that confirm it.
    pub confirmed: Vec<Outcome>,
    /// Every trial before that.
    pub trials: Vec<(f64, Outcome)>,
    /// Processor time of a request in the confirming trials, in milliseconds, by who spent it.
    pub processor_ms: BTreeMap<&'static str, Vec<f64>>,
}

/// The way to a model that does nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// Of which server.
    pub name: String,
    /// Whose.
    pub maker: Maker,
    /// How it was asked.
    pub form: Form,
    /// The median of each round.
    pub p50_ms: Vec<f64>,
}

/// Texts of the length of real short ones.
///
/// # Errors
/// Files cannot be read.
pub fn texts(tokenizer: &Path, words: &[impl AsRef<Path>], seed: u64) -> anyhow::Result<Vec<Text>> {
    let json = std::fs::read(tokenizer).context("reading the tokenizer")?;
    let tokenizer = TextTokenizer::from_json(&json, TEXT_BYTES_MAX, TOKENS_MAX)?;
    let read = words.iter().map(|file| std::fs::read_to_string(file.as_ref()));
    let corpus = read.collect::<Result<Vec<_>, _>>().context("reading words")?.join("\n");
    let words = Words::of(&corpus, &tokenizer)?;
    let mut random = Rng::with_seed(seed);
    let lengths = Lengths::of(Kind::Short)?.spread(TEXTS, &mut random);
    lengths.iter().map(|tokens| words.text(*tokens, &tokenizer, &mut random)).collect()
}

/// The highest rate that each server keeps: each search makes a step in turn, and then the rates found are tried again,
/// in turn too.
///
/// # Errors
/// A server cannot be reached.
pub fn rates(
    rivals: &[Rival],
    texts: &[Text],
    plan: &Plan,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Kept>> {
    let mut random = Rng::with_seed(plan.seed);
    let mut runs: Vec<Run<'_>> = rivals.iter().map(|rival| Run::new(rival, texts, plan)).collect();
    while runs.iter().any(|run| run.search.next().is_some()) {
        for run in &mut runs {
            let Some(rate) = run.search.next() else { continue };
            let (outcome, _) = run.trial(rate, plan, &mut random)?;
            say(&line(&run.kept.name, rate, &outcome));
            run.search.saw(rate, outcome.keeps(plan.limit_ms));
            run.kept.trials.push((rate, outcome));
        }
    }
    for run in &mut runs {
        run.kept.rate = run.search.found();
    }
    for _ in 0..TIMES_BACK {
        for _ in 0..plan.confirmations {
            for run in runs.iter_mut().filter(|run| run.kept.confirmed.len() < plan.confirmations) {
                let Some(rate) = run.kept.rate else { continue };
                let (outcome, spent) = run.trial(rate, plan, &mut random)?;
                say(&format!("again: {}", line(&run.kept.name, rate, &outcome)));
                run.kept.confirmed.push(outcome);
                for (who, ms) in spent {
                    run.kept.processor_ms.entry(who).or_default().push(ms);
                }
            }
        }
        for run in &mut runs {
            run.take_back(plan.limit_ms);
        }
    }
    Ok(runs.into_iter().map(|run| run.kept).collect())
}

struct Run<'a> {
    rival: &'a Rival,
    requests: Vec<Vec<u8>>,
    search: Search,
    kept: Kept,
}

impl<'a> Run<'a> {
    fn new(rival: &'a Rival, texts: &[Text], plan: &Plan) -> Self {
        let input = |text: &Text| Tensor::text(&text.text, rival.shape);
        Self {
            rival,
            requests: texts.iter().map(|text| rival.encoder.request(&input(text))).collect(),
            search: Search::new(plan.first_rate, plan.trials),
            kept: Kept {
                name: rival.name.clone(),
                maker: rival.maker,
                form: rival.encoder.form,
                rate: None,
                confirmed: Vec::new(),
                trials: Vec::new(),
                processor_ms: BTreeMap::new(),
            },
        }
    }

    /// One trial, and the processor's milliseconds of a request by who spent them.
    fn trial(
        &self,
        rate: f64,
        plan: &Plan,
        random: &mut Rng,
    ) -> anyhow::Result<(Outcome, Vec<(&'static str, f64)>)> {
        let warm_up = Duration::from_secs(1);
        let length = warm_up + Duration::from_secs(u64::from(plan.seconds));
        let arrivals = poisson(rate, length, random);
        let own = Group::own();
        let groups: Vec<&Group> = self.rival.processes.iter().chain([&own]).collect();
        let before: Vec<Duration> = groups.iter().map(|group| group.spent()).collect();
        let outcome = load::run(&Trial {
            target: &self.rival.encoder,
            requests: &self.requests,
            arrivals: &arrivals,
            warm_up,
            connections: plan.connections,
        })
        .with_context(|| format!("asking {}", self.rival.name))?;
        let spent = groups.iter().zip(before).map(|(group, before)| {
            let took = group.spent().saturating_sub(before);
            (group.name, took.as_secs_f64() * 1e3 / arrivals.len().max(1) as f64)
        });
        Ok((outcome, spent.collect()))
    }

    /// A rate whose trials do not hold in the middle is taken back, and tried again.
    fn take_back(&mut self, limit_ms: f64) {
        let all = self.kept.confirmed.len();
        let kept = self.kept.confirmed.iter().filter(|outcome| outcome.keeps(limit_ms)).count();
        if all > 0 && kept * 2 <= all {
            self.kept.rate = self.kept.rate.map(|rate| rate * BACK);
            self.kept.confirmed.clear();
            self.kept.processor_ms.clear();
        }
    }
}

/// What the way to a model that does nothing costs, server by server, in turn.
///
/// # Errors
/// A server does not answer.
pub fn ways(rivals: &[Rival], plan: &Plan) -> anyhow::Result<Vec<Way>> {
    let new = |rival: &Rival| Way {
        name: rival.name.clone(),
        maker: rival.maker,
        form: rival.identity.form,
        p50_ms: Vec::new(),
    };
    let mut ways: Vec<Way> = rivals.iter().map(new).collect();
    for _ in 0..plan.rounds {
        for (rival, way) in rivals.iter().zip(&mut ways) {
            let request = rival.identity.request(&rival.nothing);
            let asked = load::one_by_one(&rival.identity, &request, plan.one_by_one);
            way.p50_ms.push(asked.with_context(|| format!("asking {}", rival.name))?);
        }
    }
    Ok(ways)
}

impl Way {
    /// The median of the rounds.
    pub fn median_ms(&self) -> f64 {
        median(&self.p50_ms)
    }
}

fn line(name: &str, rate: f64, outcome: &Outcome) -> String {
    format!(
        "{name}: {rate:.0} a second: p50 {:.1} ms, p99 {:.1} ms, {} requests, {} failed{}",
        outcome.p50_ms,
        outcome.p99_ms,
        outcome.requests,
        outcome.failed,
        if outcome.behind { ", fell behind" } else { "" }
    )
}
