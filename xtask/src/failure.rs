//! What a command says when it cannot go on: what happened, to what, why, and what to do next.
//!
//! Nothing in xtask branches on the kind of a failure, a person reads it; so it is one struct of
//! sentences and an exit status, not an enum of domains.

use std::error::Error;
use std::fmt;

/// How the process ends, as seen by the shell or CI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A check ran and did not hold (1).
    Failed,
    /// The machine lacks something that the command needs (3); 2 is clap's, for bad usage.
    Missing,
    /// A program that was driven ended with this code, which is passed on.
    Passed(u8),
}

impl Exit {
    /// The code for the operating system.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Missing => 3,
            Self::Passed(code) => code,
        }
    }
}

/// One reason to stop.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    next: Option<String>,
    exit: Exit,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure that says what happened, and to what.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), next: None, exit: Exit::Failed, source: None }
    }

    /// The machine lacks something.
    pub(crate) fn missing(what: impl Into<String>) -> Self {
        Self { exit: Exit::Missing, ..Self::new(what) }
    }

    /// Adds what the reader is to do.
    pub(crate) fn next(mut self, advice: impl Into<String>) -> Self {
        self.next = Some(advice.into());
        self
    }

    /// Adds the cause.
    pub(crate) fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Ends the process with this status instead.
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The status that the process is to end with.
    pub(crate) fn status(&self) -> Exit {
        self.exit
    }
}

/// What happened, the chain of causes, and the advice on a line of its own.
impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.what)?;
        let mut cause = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = cause {
            write!(out, ": {error}")?;
            cause = error.source();
        }
        match &self.next {
            Some(next) => write!(out, "\n  do next: {next}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Exit, Failure};

    #[test]
    fn a_failure_names_cause_and_advice_in_that_order() {
        let failure = Failure::new("reading `a.toml`")
            .because(io::Error::other("disk on fire"))
            .next("put it out");
        assert_eq!(failure.to_string(), "reading `a.toml`: disk on fire\n  do next: put it out");
    }

    #[test]
    fn exit_codes_tell_failed_from_missing_from_passed_on() {
        let codes = [Exit::Failed, Exit::Missing, Exit::Passed(42)].map(Exit::code);
        assert_eq!(codes, [1, 3, 42]);
    }
}
