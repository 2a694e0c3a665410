//! The process that serves the disks, as seen by who gives the orders.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::blocks::{
    log::{Cut, Shape},
    needs,
    orders::{Answer, Order},
};

/// Longest an order may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process; it ends with this value.
#[derive(Debug)]
pub struct Disks {
    child: Child,
    orders: UnixStream,
    answers: BufReader<UnixStream>,
    folder: PathBuf,
}

impl Disks {
    /// Has `program` serve `disks` disks of `bytes` bytes at `folder`, which lies in what [`needs::share`] was told.
    pub fn start(program: &Path, folder: &Path, disks: usize, bytes: u64) -> anyhow::Result<Self> {
        let (orders, theirs) = UnixStream::pair().context("making a pair of sockets")?;
        orders.set_read_timeout(Some(PATIENCE)).context("limiting the wait for an answer")?;
        let child = needs::apart(program)
            .arg("disks")
            .arg("--folder")
            .arg(folder)
            .args(["--disks", &disks.to_string(), "--bytes", &bytes.to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .context("starting the process that serves the disks")?;
        let answers = BufReader::new(orders.try_clone().context("sharing the socket")?);
        let mut disks = Self { child, orders, answers, folder: folder.to_owned() };
        disks.answer()?;
        Ok(disks)
    }

    /// The file that is a disk.
    pub fn file(&self, disk: usize) -> PathBuf {
        self.folder.join(disk.to_string())
    }

    /// Orders something that has no result.
    pub fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        match self.ask(order)? {
            Answer::Done => Ok(()),
            other @ (Answer::Length(_)
            | Answer::Shape(_)
            | Answer::Left { .. }
            | Answer::Refused(_)) => bail!("{order:?} was answered with {other:?}"),
        }
    }

    /// How much is in a disk's log.
    pub fn length(&mut self, disk: usize) -> anyhow::Result<usize> {
        match self.ask(&Order::Length { disk })? {
            Answer::Length(length) => Ok(length),
            other
            @ (Answer::Done | Answer::Shape(_) | Answer::Left { .. } | Answer::Refused(_)) => {
                bail!("the log's length was answered with {other:?}")
            }
        }
    }

    /// Ends a disk's log.
    pub fn finish(&mut self, disk: usize) -> anyhow::Result<Shape> {
        match self.ask(&Order::Finish { disk })? {
            Answer::Shape(shape) => Ok(shape),
            other @ (Answer::Done
            | Answer::Length(_)
            | Answer::Left { .. }
            | Answer::Refused(_)) => bail!("the end of the log was answered with {other:?}"),
        }
    }

    /// Puts what `cut` left on a disk; gives how many writes it could undo, and how many it did.
    pub fn load(&mut self, disk: usize, cut: Cut) -> anyhow::Result<(usize, usize)> {
        match self.ask(&Order::Load { disk, cut })? {
            Answer::Left { volatile, lost } => Ok((volatile, lost)),
            other @ (Answer::Done | Answer::Length(_) | Answer::Shape(_) | Answer::Refused(_)) => {
                bail!("a power cut was answered with {other:?}")
            }
        }
    }

    fn ask(&mut self, order: &Order) -> anyhow::Result<Answer> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).context("ordering the disks")?;
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        let length = self.answers.read_line(&mut line).context("waiting for the disks")?;
        if length == 0 {
            let ended = self.child.wait().context("waiting for the disks")?;
            bail!("the process that serves the disks ended with {ended}");
        }
        serde_json::from_str(&line).context("reading the disks' answer")
    }
}

impl Drop for Disks {
    /// Whatever still waits for a disk then fails and ends.
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
