//! A resident process that is asked in turn with others.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};

use crate::bench::lines::{Answer, Ask, Ready, Texts, Took, Turns};

/// Longest wait for one answer. Stock int8 models took minutes for the largest set of batches.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running resident. It is killed when dropped.
#[derive(Debug)]
pub struct Contender {
    /// What it is called in tables.
    pub name: String,
    /// What it said when it was ready.
    pub ready: Ready,
    child: Child,
    asks: ChildStdin,
    answers: Receiver<std::io::Result<String>>,
    log: PathBuf,
}

impl Contender {
    /// Starts `command` and waits until it is ready. What it says on standard error goes to a file in `logs`.
    ///
    /// # Errors
    /// It does not start, or says why it cannot load its model.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> anyhow::Result<Self> {
        let log = logs.join(format!("{}.log", name.replace([' ', '/'], "-")));
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let (asks, out) = child.stdin.take().zip(child.stdout.take()).context("no pipes")?;
        let (send, answers) = sync_channel(1);
        let reader = thread::Builder::new().name(format!("answers of {name}"));
        let spawned = reader.spawn(move || {
            for line in BufReader::new(out).lines() {
                // Nobody waits any more once the contender is dropped.
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        drop(spawned.context("starting a reader")?);
        let ready =
            Ready { version: String::new(), load_ms: 0.0, resident_bytes: 0, before_bytes: 0 };
        let mut contender = Self { name: name.to_owned(), ready, child, asks, answers, log };
        match contender.answer()? {
            Answer::Ready(ready) => contender.ready = ready,
            other @ (Answer::Held(_) | Answer::Took(_) | Answer::Vectors(_)) => {
                bail!("{name} began with {other:?}")
            }
        }
        Ok(contender)
    }

    /// Has it keep batches; `line` is [`Ask::Hold`] as JSON, which is the same for all.
    ///
    /// # Errors
    /// It ended, or answered something else.
    pub fn hold(&mut self, line: &str) -> anyhow::Result<()> {
        match self.ask_line(line)? {
            Answer::Held(_) => Ok(()),
            other @ (Answer::Ready(_) | Answer::Took(_) | Answer::Vectors(_)) => {
                Err(self.unexpected(&other))
            }
        }
    }

    /// Has it compute the batches that it keeps.
    ///
    /// # Errors
    /// It ended, or answered something else.
    pub fn time(&mut self, name: &str, turns: u32) -> anyhow::Result<Took> {
        match self.ask(&Ask::Time(Turns { name: name.to_owned(), turns }))? {
            Answer::Took(took) if took.wall_ms.len() == turns as usize => Ok(took),
            other @ (Answer::Ready(_) | Answer::Held(_) | Answer::Vectors(_) | Answer::Took(_)) => {
                Err(self.unexpected(&other))
            }
        }
    }

    /// The embeddings of `texts`.
    ///
    /// # Errors
    /// It ended, or answered something else.
    pub fn embed(&mut self, texts: &Texts) -> anyhow::Result<Vec<Vec<f32>>> {
        match self.ask(&Ask::Embed(texts.clone()))? {
            Answer::Vectors(vectors) if vectors.len() == texts.ids.len() => Ok(vectors),
            other @ (Answer::Ready(_) | Answer::Held(_) | Answer::Took(_) | Answer::Vectors(_)) => {
                Err(self.unexpected(&other))
            }
        }
    }

    fn ask(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        let line = serde_json::to_string(ask)?;
        self.ask_line(&line)
    }

    fn ask_line(&mut self, line: &str) -> anyhow::Result<Answer> {
        let sent = self.asks.write_all(line.as_bytes()).and_then(|()| self.asks.write_all(b"\n"));
        sent.and_then(|()| self.asks.flush()).map_err(|_| self.ended())?;
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let line = self.answers.recv_timeout(PATIENCE).map_err(|_| self.ended())??;
        serde_json::from_str(&line).with_context(|| {
            format!("{} answered `{}`", self.name, line.chars().take(200).collect::<String>())
        })
    }

    fn unexpected(&self, answer: &Answer) -> anyhow::Error {
        let shown: String = format!("{answer:?}").chars().take(200).collect();
        anyhow!("{} answered {shown}", self.name)
    }

    /// Why there is no answer: the last that it said.
    fn ended(&mut self) -> anyhow::Error {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
        let how = match self.child.try_wait() {
            Ok(Some(status)) => format!("ended with {status}"),
            Ok(None) | Err(_) => format!("gave no answer in {} s", PATIENCE.as_secs()),
        };
        let last: String = last.chars().take(300).collect();
        anyhow!("{} {how}; it said last: {last}", self.name)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
