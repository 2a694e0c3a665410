//! Words for the person at the terminal: on standard error, so that standard output stays free
//! for results.

use std::io::{self, IsTerminal, Write};

/// A plain line. A closed standard error is nobody listening, not a failure.
pub(crate) fn line(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// A line that opens a part of the work.
pub(crate) fn heading(text: &str) {
    let (bold, plain) = if io::stderr().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    line(&format!("\n{bold}== {text}{plain}"));
}

/// The result of a command, on standard output.
pub(crate) fn result(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}
