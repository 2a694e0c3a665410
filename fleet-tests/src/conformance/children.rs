//! Several children at once, each with one test at a time; one that ends is started again and its test has failed.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::conformance::{case::Case, outcome::Outcome};

/// Longest wait for one test. A child watches its own processor time, so only one that the machine gives nothing at all,
/// or whose watching thread is gone too, is waited for so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came of one test.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The test.
    pub case: Case,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it did not pass.
    pub why: String,
}

/// How to start a child, which then reads folders and says outcomes.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

struct Running {
    child: Child,
    to: Option<ChildStdin>,
    from: Receiver<String>,
}

/// Tries all `cases` in `jobs` children of `program`; in the order of `cases`.
pub fn try_all(cases: &[Case], program: &Program, jobs: usize) -> anyhow::Result<Vec<Tried>> {
    let next = AtomicUsize::new(0);
    let tried: Mutex<Vec<Option<Tried>>> = Mutex::new(vec![None; cases.len()]);
    let work = || -> anyhow::Result<()> {
        let mut running = None;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(at) else { break };
            let one = try_one(case, program, &mut running)?;
            let mut tried = tried.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = tried.get_mut(at) {
                *place = Some(one);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(outcome) => outcome?,
                Err(_) => bail!("a thread that asks children panicked"),
            }
        }
        Ok(())
    })?;
    let tried = tried.into_inner().unwrap_or_else(PoisonError::into_inner);
    tried.into_iter().map(|one| one.context("a test was left out")).collect()
}

fn try_one(case: &Case, program: &Program, running: &mut Option<Running>) -> anyhow::Result<Tried> {
    let mut child = match running.take() {
        Some(child) => child,
        None => Running::start(program)?,
    };
    let answer = child.ask(&case.folder);
    let of = |outcome, why: &str| Tried { case: case.clone(), outcome, why: why.to_owned() };
    let Some(line) = answer else {
        let how = child.end();
        return Ok(of(Outcome::Ended, &how));
    };
    let (word, why) = line.split_once(' ').unwrap_or((&line, ""));
    *running = Some(child);
    Ok(of(word.parse().with_context(|| format!("a child said `{line}`"))?, why))
}

impl Running {
    fn start(program: &Program) -> anyhow::Result<Self> {
        let mut child = Command::new(&program.path)
            .args(&program.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Panics that are caught, and what the allocator says before it gives up: expected here by the hundred.
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.path.display()))?;
        let to = Some(child.stdin.take().context("a child without input")?);
        let out = child.stdout.take().context("a child without output")?;
        let (says, from) = sync_channel(1);
        thread::Builder::new().name("child-reader".into()).spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if says.send(line).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { child, to, from })
    }

    /// What it says of the test in `folder`; none if it ended or does not answer.
    fn ask(&mut self, folder: &Path) -> Option<String> {
        writeln!(self.to.as_mut()?, "{}", folder.display()).ok()?;
        self.from.recv_timeout(PATIENCE).ok()
    }

    /// Ends it, if it has not ended: how it did.
    fn end(mut self) -> String {
        // It may be ending now, by its own hand.
        drop(self.to.take());
        let ended = match self.from.recv_timeout(Duration::from_secs(5)) {
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) | Ok(_) => self.child.wait(),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                drop(self.child.kill());
                self.child.wait()
            }
        };
        ended.map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
