//! Our engine as a resident process: loads a model once, then does what each line asks.

use std::{
    fs,
    io::{BufRead, Write},
    num::NonZeroUsize,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use engine::{encoder::Encoder, package::Spec, sequence::Sequence, text_tokenizer::TextTokenizer};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    bench::lines::{Answer, Ask, Batches, Ready, Took, Turns},
    transport::program::now,
};

/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// What is loaded.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// The graph.
    pub model: &'a Path,
    /// Its tokenizer.
    pub tokenizer: &'a Path,
    /// Width of an embedding.
    pub dim: u32,
    /// Longest sequence.
    pub tokens_max: u32,
    /// For one batch.
    pub threads: NonZeroUsize,
    /// Whether what is timed begins at texts.
    pub from: From,
}

/// Where timing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum From {
    /// At token ids.
    Ids,
    /// At texts, which are tokenized too.
    Texts,
}

/// What a resident keeps.
#[derive(Debug)]
pub struct Resident {
    encoder: Encoder,
    tokenizer: TextTokenizer,
    from: From,
    held: Option<Batches>,
}

/// Loads the model, says so, and answers until `input` ends.
///
/// # Errors
/// The model cannot be loaded, or a line cannot be understood or answered.
pub fn serve(load: &Load<'_>, input: impl BufRead, mut output: impl Write) -> anyhow::Result<()> {
    let before_bytes = resident_bytes()?;
    let began = now();
    let mut resident = Resident::load(load)?;
    let load_ms = ms(began.elapsed());
    let ready = Ready {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        load_ms,
        resident_bytes: resident_bytes()?,
        before_bytes,
    };
    say(&mut output, &Answer::Ready(ready))?;
    for line in input.lines() {
        let line = line.context("reading what is asked")?;
        let ask = serde_json::from_str(&line).context("understanding what is asked")?;
        say(&mut output, &resident.answer(ask)?)?;
    }
    Ok(())
}

fn say(output: &mut impl Write, answer: &Answer) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    output.write_all(&line).and_then(|()| output.flush()).context("answering")
}

impl Resident {
    /// Loads the model and computes one embedding.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn load(load: &Load<'_>) -> anyhow::Result<Self> {
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        let mut spec = Spec::sentence_encoder("bench", "1.0.0", load.dim);
        spec.tokenizer.max_tokens = load.tokens_max;
        let tokenizer = TextTokenizer::from_json(
            &read(load.tokenizer)?,
            TEXT_BYTES_MAX,
            load.tokens_max as usize,
        )?;
        let onnx = read(load.model)?;
        let nodes_max = spec.limits.nodes_max as usize;
        let encoder = Encoder::load(&onnx, nodes_max, &spec.encoder, load.threads)
            .with_context(|| format!("loading {}", load.model.display()))?;
        drop(onnx);
        encoder.encode(Sequence::single(&[1, 2]))?;
        Ok(Self { encoder, tokenizer, from: load.from, held: None })
    }

    fn answer(&mut self, ask: Ask) -> anyhow::Result<Answer> {
        match ask {
            Ask::Hold(batches) => {
                self.held = Some(batches);
                Ok(Answer::Held(1))
            }
            Ask::Time(turns) => self.time(&turns).map(Answer::Took),
            Ask::Embed(texts) => {
                let one = |ids: &Vec<u32>| Ok(self.encoder.encode(Sequence::single(ids))?);
                let vectors = texts.ids.iter().map(one);
                vectors.collect::<anyhow::Result<_>>().map(Answer::Vectors)
            }
        }
    }

    fn time(&self, turns: &Turns) -> anyhow::Result<Took> {
        let Some(held) = self.held.as_ref().filter(|held| held.name == turns.name) else {
            bail!("no batches `{}` are kept", turns.name);
        };
        let mut took = Took::default();
        for _ in 0..turns.turns {
            let (began, began_cpu) = (now(), processor_time());
            match self.from {
                From::Ids => {
                    for batch in &held.ids {
                        self.compute(batch)?;
                    }
                }
                From::Texts => {
                    for batch in &held.texts {
                        self.compute(&self.tokenized(batch)?)?;
                    }
                }
            }
            took.cpu_ms.push(ms(processor_time().saturating_sub(began_cpu)));
            took.wall_ms.push(ms(began.elapsed()));
        }
        Ok(took)
    }

    fn tokenized(&self, texts: &[String]) -> anyhow::Result<Vec<Vec<u32>>> {
        texts.iter().map(|text| Ok(self.tokenizer.tokens("", text)?.ids)).collect()
    }

    fn compute(&self, batch: &[Vec<u32>]) -> anyhow::Result<()> {
        let sequences: Vec<_> = batch.iter().map(|ids| Sequence::single(ids)).collect();
        std::hint::black_box(self.encoder.encode_batch(&sequences)?);
        Ok(())
    }
}

/// `VmRSS` of this process.
fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("asking for own memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.and_then(|kib| kib.checked_mul(1024)).context("/proc/self/status gives no VmRSS")
}

/// What all threads of this process have used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
