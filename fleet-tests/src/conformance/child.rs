//! The process that tries tests: limited in memory and in time like a worker, since a test may make tract take all of
//! both.

use std::{
    io::{self, BufRead as _, Write as _},
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use engine::{
    pulse::{self, Pulse},
    worker::{
        hang::{self, Watched},
        limits,
    },
};

use crate::conformance::trial;

/// Memory for a test besides what every worker has.
const MEMORY_BYTES: u64 = 512 << 20;

/// Tries the tests whose folders come in, one a line, and says what came of each: `outcome why`. A test that computes
/// for longer than a piece of a worker's work may take ends this process.
pub fn run() -> anyhow::Result<()> {
    limits::apply(MEMORY_BYTES)?;
    let pulse = Arc::new(Pulse::default());
    let thread = hang::kernel_id().context("/proc does not say the thread's id")?;
    pulse::listen(Arc::clone(&pulse));
    hang::guard(vec![Watched { pulse, thread }]).context("watching the thread")?;
    for line in io::stdin().lock().lines() {
        let line = line.context("reading which test comes next")?;
        pulse::begin();
        let (outcome, why) = trial::run(Path::new(&line));
        pulse::end();
        writeln!(io::stdout().lock(), "{outcome} {why}").context("saying what came of it")?;
    }
    Ok(())
}
