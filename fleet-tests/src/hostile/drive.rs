//! One case after the other: what came of each, and whether everything else went on as if nothing had been.

use std::{thread, time::Duration};

use anyhow::{Context as _, bail, ensure};
use engine::worker::{
    client::Client,
    message::{Call, Reply},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::{
    crash::bench::instant,
    hostile::{
        asks,
        case::{Act, Ask, Case, Files, MayServe},
        probe::Probe,
        stand::{Outcome, Stand},
        worker_watch::Seen,
    },
};

/// Longest wait for the serving worker's word.
const HELLO_MAX: Duration = Duration::from_secs(30);
/// Longest time until another worker serves after one was killed; how long it took is in the row.
const KILLED_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// A reason has at least so many characters: what, of what, and what to do.
const REASON_CHARS_MIN: usize = 20;
/// The outcome of a package that serves.
const SERVES: &str = "serves";

/// What came of a case.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The case.
    pub case: &'static str,
    /// What came of it, in one word or two.
    pub outcome: String,
    /// The reason that was reported, or the answer.
    pub reason: String,
    /// How long it took.
    pub took_ms: u64,
    /// How often a worker ended over it.
    pub ends: u64,
    /// How long each time until one was back.
    pub back_ms: Vec<u64>,
    /// How long a worker went on computing after the release was given up.
    pub lingered_ms: u64,
    /// Requests of others that were answered meanwhile.
    pub answered: u64,
    /// The longest time from one of these answers to the next.
    pub longest_gap_ms: u64,
    /// Whether the gateway ended over it.
    pub gateway_ended: bool,
    /// What did not hold.
    pub failed: Option<String>,
}

/// The stand and who watches it.
#[derive(Debug)]
pub struct Drive {
    stand: Stand,
    probe: Probe,
    gateway: u32,
}

impl Drive {
    /// Begins to ask the good model of `stand`.
    pub fn start(stand: Stand) -> anyhow::Result<Self> {
        let probe = Probe::start(stand.machine.unix())?;
        let gateway = stand.gateway()?;
        Ok(Self { stand, probe, gateway })
    }

    /// Tries one case. An error is one of the harness; what did not hold is in the row.
    pub fn try_case(&mut self, case: &Case) -> anyhow::Result<Row> {
        self.probe.take().context("before the case")?;
        let (slot, release) = self.stand.active()?;
        let live = self.stand.watch(slot, release)?;
        live.watches()?;
        let began = instant();
        let mut row = Row { case: case.name, ..Row::default() };
        let done = match &case.act {
            Act::Offer(change) => self.offered(case, change.as_ref(), &mut row),
            Act::Ask(ask) => self.asked(&ask(), &mut row),
            Act::Kill => self.killed(&mut row),
        };
        row.took_ms = millis(began.elapsed());
        let served = live.stop();
        let after = done.and_then(|()| self.after(case, served?, &mut row));
        row.failed = after.err().map(|error| format!("{error:#}"));
        Ok(row)
    }

    /// Ends the machine in order.
    pub fn end(self) -> anyhow::Result<()> {
        let Self { stand, probe, .. } = self;
        drop(probe);
        stand.machine.end()
    }

    fn offered(
        &mut self,
        case: &Case,
        change: &dyn Fn(&mut Files),
        row: &mut Row,
    ) -> anyhow::Result<()> {
        let serves = self.serving_pid()?;
        let release = self.stand.hostile(change)?;
        self.stand.offer(&release)?;
        let watch = match self.stand.staged(release.digest())? {
            Some(slot) => Some(self.stand.watch(slot, release.digest())?),
            None => None,
        };
        let outcome = self.stand.outcome(release.digest())?;
        if let Some(watch) = watch {
            note(row, watch.stop()?);
        }
        match outcome {
            Outcome::Committed => {
                row.outcome = SERVES.into();
                self.gateway = self.stand.gateway()?;
                ensure!(case.may_serve == MayServe::Yes, "a hostile package serves");
            }
            Outcome::GivenUp(reason) => {
                row.outcome = if row.ends > 0 { "worker ended" } else { "refused" }.into();
                row.reason = reason;
                let told = row.reason.chars().count() >= REASON_CHARS_MIN;
                ensure!(told, "no reason was reported");
                let because = case.because;
                ensure!(row.reason.contains(because), "the reason does not say `{because}`");
                row.lingered_ms = millis(self.stand.idle(serves)?);
            }
        }
        Ok(())
    }

    fn asked(&mut self, ask: &Ask, row: &mut Row) -> anyhow::Result<()> {
        let (status, body) = self.stand.answer(ask)?;
        row.outcome = match status {
            0 => "hung up".into(),
            200 => "answered".into(),
            status => format!("refused {status}"),
        };
        let body = String::from_utf8_lossy(&body).into_owned();
        row.reason = body.chars().take(200).collect();
        ensure!(ask.right.contains(&status), "status {status}, right is {:?}", ask.right);
        if status >= 400 && ask.right.contains(&400) && !ask.right.contains(&0) {
            let told = body.chars().count() >= REASON_CHARS_MIN;
            ensure!(told, "no reason was given");
        }
        let (status, _) = self.stand.answer(&asks::plain())?;
        ensure!(status == 200, "a plain text got status {status} afterwards");
        Ok(())
    }

    /// Kills the worker that serves, and waits until another one does.
    fn killed(&mut self, row: &mut Row) -> anyhow::Result<()> {
        let pid = self.serving_pid()?;
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process")?;
        kill_process(process, Signal::KILL)?;
        let until = instant() + KILLED_PATIENCE;
        while self.serving_pid().ok().is_none_or(|other| other == pid) {
            ensure!(instant() < until, "no other worker serves within {KILLED_PATIENCE:?}");
            thread::sleep(POLL);
        }
        row.outcome = "replaced".into();
        Ok(())
    }

    /// What must hold after every case; `served` is what was seen of the worker that served before.
    fn after(&mut self, case: &Case, served: Seen, row: &mut Row) -> anyhow::Result<()> {
        let ends = served.ends;
        // Where the package serves, the worker before it was told to end.
        if row.outcome != SERVES {
            note(row, served);
        }
        let tally = self.probe.take()?;
        row.answered = tally.answered;
        row.longest_gap_ms = millis(tally.longest_gap);
        let gateway = self.stand.gateway()?;
        let before = std::mem::replace(&mut self.gateway, gateway);
        row.gateway_ended = gateway != before;
        ensure!(!row.gateway_ended, "gateway {before} ended; {gateway} took its place");
        match &case.act {
            Act::Offer(_) if row.outcome != SERVES => {
                ensure!(ends == 0, "the good model's worker ended {ends} times");
            }
            Act::Offer(_) | Act::Ask(_) => {}
            Act::Kill => ensure!(ends == 1, "the worker that was killed ended {ends} times"),
        }
        let (status, _) = self.stand.answer(&asks::plain())?;
        ensure!(status == 200, "the good model does not answer: status {status}");
        Ok(())
    }

    /// The process of the worker that serves.
    fn serving_pid(&self) -> anyhow::Result<u32> {
        let (slot, _) = self.stand.active()?;
        let mut client = Client::connect(&self.stand.machine.worker(slot), HELLO_MAX)?;
        let Reply::Hello(info) = client.call(Call::hello())? else {
            bail!("the worker that serves does not greet");
        };
        Ok(info.pid)
    }
}

fn note(row: &mut Row, seen: Seen) {
    row.ends += seen.ends;
    row.back_ms.extend(seen.back.into_iter().map(millis));
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
