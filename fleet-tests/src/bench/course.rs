//! The course that every entrant runs, in turn with the others: accuracy, single texts, batches of mixed lengths.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use engine::text_tokenizer::TextTokenizer;
use fastrand::Rng;
use serde::Serialize;

use crate::bench::{
    contender::Contender,
    field::{Class, Entrant, Ground, Runtime},
    lengths::{Kind, Lengths},
    lines::{Ask, Batches, Ready, Texts},
    stats::{Agreement, agreement, median},
    words::{Text, Words},
};

/// Longest sequence of the model.
const TOKENS_MAX: usize = 256;
/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Texts of one measurement of batches.
const TEXTS: usize = 64;
/// Who takes longer than this for one turn takes part once and no more.
const SLOW_MS: f64 = 4_000.0;
/// Idle time between two turns: threads of a runtime that spin for more work must have stopped.
const SETTLE: Duration = Duration::from_millis(15);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Threads of a resident, one course each.
    pub threads: Vec<NonZeroUsize>,
    /// Lengths of the single texts, in tokens.
    pub lengths: Vec<usize>,
    /// Sizes of the batches.
    pub batches: Vec<usize>,
    /// Rounds of single texts; in each, everyone has one turn that is not counted and three that are.
    pub rounds: usize,
    /// Rounds of batches.
    pub batch_rounds: usize,
    /// Seed of words, lengths and order.
    pub seed: u64,
}

/// The texts that are used besides those of wished lengths.
#[derive(Clone, Copy, Debug)]
pub struct Corpus<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Path,
    /// Whose embeddings are compared, one a line.
    pub sentences: &'a Path,
    /// Files whose words make up texts of wished lengths.
    pub words: &'a [PathBuf],
}

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Those who ran, and those who could not.
    pub entrants: Vec<Entered>,
    /// Each measurement.
    pub rows: Vec<Row>,
}

/// One entrant with a number of threads.
#[derive(Clone, Debug, Serialize)]
pub struct Entered {
    /// Who.
    pub entrant: Entrant,
    /// With how many threads.
    pub threads: usize,
    /// Size of the model's file.
    pub model_bytes: u64,
    /// What it said when it was ready.
    pub ready: Option<Ready>,
    /// Beside onnxruntime's f32.
    pub agreement: Option<Agreement>,
    /// Why it does not take part.
    pub failure: Option<String>,
    /// Its embeddings of the sentences.
    #[serde(skip)]
    pub embeddings: Vec<Vec<f32>>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// One text of so many tokens.
    Single(usize),
    /// [`TEXTS`] texts of mixed lengths, so many in a batch.
    Mixed(Kind, usize),
}

/// One entrant's turns at one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Who.
    pub who: String,
    /// Ours or not.
    pub runtime: Runtime,
    /// Which arithmetic.
    pub class: Class,
    /// With how many threads.
    pub threads: usize,
    /// What.
    pub what: What,
    /// Texts of a turn.
    pub texts: usize,
    /// Tokens of a turn, without padding.
    pub tokens: usize,
    /// Of each round, by the clock.
    pub wall_ms: Vec<f64>,
    /// Of each round, of the processor.
    pub cpu_ms: Vec<f64>,
}

/// Runs everything; `say` is told what is going on.
///
/// # Errors
/// Texts cannot be read, or an entrant that was ready ends.
pub fn run(
    ground: &Ground,
    corpus: &Corpus<'_>,
    entrants: &[Entrant],
    plan: &Plan,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<Seen> {
    let logs = tempfile::tempdir().context("making a folder for logs")?;
    let json = fs::read(corpus.tokenizer).context("reading the tokenizer")?;
    let tokenizer = TextTokenizer::from_json(&json, TEXT_BYTES_MAX, TOKENS_MAX)?;
    let sentences = sentences(corpus.sentences, &tokenizer)?;
    let words = words(corpus.words, &tokenizer)?;
    let mut seen = Seen::default();
    for threads in &plan.threads {
        let mut field = Vec::new();
        for entrant in entrants {
            say(&format!("starting {} on {threads} threads", entrant.name()));
            let (entered, contender) = enter(entrant, ground, *threads, logs.path(), &sentences);
            if let Some(failure) = &entered.failure {
                say(&format!("  left out: {failure}"));
            }
            field.extend(contender.map(|contender| (*entrant, contender)));
            seen.entrants.push(entered);
        }
        let mut random = Rng::with_seed(plan.seed);
        for set in sets(plan, &words, &tokenizer, &mut random)? {
            say(&format!("{} on {threads} threads", set.what.name()));
            seen.rows.extend(turns(&mut field, &set, threads.get())?);
        }
    }
    agree(&mut seen.entrants);
    Ok(seen)
}

/// What is computed in one turn, and how often there is one.
struct Set {
    what: What,
    batches: Vec<Vec<Text>>,
    rounds: usize,
    turns: Turns,
}

/// How often a turn computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turns {
    /// Once that is not counted and three times that are, of which the median counts.
    WarmedUp,
    /// Once.
    Once,
}

fn sets(
    plan: &Plan,
    words: &Words,
    tokenizer: &TextTokenizer,
    random: &mut Rng,
) -> anyhow::Result<Vec<Set>> {
    let mut sets = Vec::new();
    for tokens in &plan.lengths {
        let text = words.text(*tokens, tokenizer, random)?;
        sets.push(Set {
            what: What::Single(*tokens),
            batches: vec![vec![text]],
            rounds: plan.rounds,
            turns: Turns::WarmedUp,
        });
    }
    for kind in [Kind::Long, Kind::Short] {
        let lengths = Lengths::of(kind)?.spread(TEXTS, random);
        let texts = lengths.iter().map(|tokens| words.text(*tokens, tokenizer, random));
        let texts: Vec<Text> = texts.collect::<anyhow::Result<_>>()?;
        sets.extend(plan.batches.iter().map(|size| Set {
            what: What::Mixed(kind, *size),
            batches: texts.chunks((*size).max(1)).map(<[Text]>::to_vec).collect(),
            rounds: plan.batch_rounds,
            turns: Turns::Once,
        }));
    }
    Ok(sets)
}

/// Starts an entrant and takes its embeddings of the sentences.
fn enter(
    entrant: &Entrant,
    ground: &Ground,
    threads: NonZeroUsize,
    logs: &Path,
    sentences: &Texts,
) -> (Entered, Option<Contender>) {
    let mut entered = Entered {
        entrant: *entrant,
        threads: threads.get(),
        model_bytes: bytes(&entrant.model(&ground.models)),
        ready: None,
        agreement: None,
        failure: None,
        embeddings: Vec::new(),
    };
    let name = entrant.name();
    let started = Contender::start(&name, entrant.command(ground, threads), logs);
    let asked = started.and_then(|mut contender| {
        entered.ready = Some(contender.ready.clone());
        entered.embeddings = contender.embed(sentences)?;
        Ok(contender)
    });
    match asked {
        Ok(contender) => (entered, Some(contender)),
        Err(error) => {
            entered.failure = Some(format!("{error:#}"));
            (entered, None)
        }
    }
}

/// The size of a model: of its file, and of the file of weights that OpenVINO lays beside.
fn bytes(model: &Path) -> u64 {
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let weights = model.with_extension("bin");
    if model.extension().is_some_and(|kind| kind == "xml") {
        size(model) + size(&weights)
    } else {
        size(model)
    }
}

/// One measurement: everyone in turn, beginning with another one in each round.
fn turns(
    field: &mut [(Entrant, Contender)],
    set: &Set,
    threads: usize,
) -> anyhow::Result<Vec<Row>> {
    let batches = |one: fn(&Text) -> Vec<u32>| -> Vec<Vec<Vec<u32>>> {
        set.batches.iter().map(|batch| batch.iter().map(one).collect()).collect()
    };
    let texts = set.batches.iter().map(|batch| batch.iter().map(|text| text.text.clone()));
    let ask = Ask::Hold(Batches {
        name: set.what.name(),
        ids: batches(|text| text.ids.clone()),
        texts: texts.map(Iterator::collect).collect(),
    });
    let line = serde_json::to_string(&ask)?;
    let single = matches!(set.what, What::Single(_));
    let mut rows = Vec::new();
    for (entrant, contender) in field.iter_mut() {
        if single || entrant.throughput {
            contender.hold(&line)?;
        }
        rows.push(Row {
            who: entrant.name(),
            runtime: entrant.runtime,
            class: entrant.class,
            threads,
            what: set.what,
            texts: set.batches.iter().map(Vec::len).sum(),
            tokens: set.batches.iter().flatten().map(|text| text.ids.len()).sum(),
            wall_ms: Vec::new(),
            cpu_ms: Vec::new(),
        });
    }
    for round in 0..set.rounds {
        for place in 0..field.len() {
            let at = (place + round) % field.len();
            let (Some((entrant, contender)), Some(row)) = (field.get_mut(at), rows.get_mut(at))
            else {
                continue;
            };
            let slow = row.wall_ms.first().is_some_and(|first| *first > SLOW_MS);
            if slow || !(single || entrant.throughput) {
                continue;
            }
            thread::sleep(SETTLE);
            if set.turns == Turns::WarmedUp {
                contender.time(&set.what.name(), 1)?;
            }
            let count = if set.turns == Turns::WarmedUp { 3 } else { 1 };
            let took = contender.time(&set.what.name(), count)?;
            row.wall_ms.push(median(&took.wall_ms));
            row.cpu_ms.push(median(&took.cpu_ms));
        }
    }
    rows.retain(|row| !row.wall_ms.is_empty());
    Ok(rows)
}

/// Compares everyone's embeddings with those of onnxruntime's f32.
fn agree(entrants: &mut [Entered]) {
    let exact = entrants.iter().find(|entered| {
        let Entrant { runtime, class, .. } = entered.entrant;
        runtime == Runtime::Onnxruntime && class == Class::Float && entered.failure.is_none()
    });
    let Some(exact) = exact.map(|entered| entered.embeddings.clone()) else { return };
    for entered in entrants.iter_mut().filter(|entered| entered.failure.is_none()) {
        entered.agreement = Some(agreement(&entered.embeddings, &exact));
    }
}

fn sentences(file: &Path, tokenizer: &TextTokenizer) -> anyhow::Result<Texts> {
    let read = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let lines = read.lines().map(str::trim).filter(|line| !line.is_empty());
    let texts: Vec<String> = lines.map(str::to_owned).collect();
    let ids = texts.iter().map(|text| Ok(tokenizer.tokens("", text)?.ids));
    Ok(Texts { ids: ids.collect::<anyhow::Result<_>>()?, texts })
}

fn words(files: &[PathBuf], tokenizer: &TextTokenizer) -> anyhow::Result<Words> {
    let read = files.iter().map(|file| {
        fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
    });
    let corpus: Vec<String> = read.collect::<anyhow::Result<_>>()?;
    Words::of(&corpus.join("\n"), tokenizer)
}

impl What {
    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::Single(tokens) => format!("one text of {tokens} tokens"),
            Self::Mixed(Kind::Short, size) => format!("short texts, {size} a batch"),
            Self::Mixed(Kind::Long, size) => format!("long texts, {size} a batch"),
        }
    }
}
