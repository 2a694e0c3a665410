//! `socle demo`: how it starts and how it ends.

use std::io;

use crate::{
    demo::{
        arguments::DemoArgs,
        script::{self, StoppedAt},
        timeline,
    },
    terminal::Terminal,
};

/// Why the demo could not be told to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A step failed.
    #[error("telling the story")]
    Stopped(#[from] Box<StoppedAt>),
    /// The story was told, but not every check held.
    #[error("{0} of {1} checks did not hold")]
    Checks(usize, usize),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle demo`.
pub fn run(args: &DemoArgs, terminal: &Terminal) -> Result<(), DemoError> {
    let mut timeline = timeline::Timeline::start(*terminal);
    let told = script::tell(args, &mut timeline);
    timeline.finish(told.as_ref().err().map(|failure| failure.to_string()))?;
    told?;
    match timeline.failed() {
        0 => Ok(()),
        failed => Err(DemoError::Checks(failed, timeline.checked())),
    }
}
