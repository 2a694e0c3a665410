//! An error with all its causes on one line, for a message that leaves the process.

use std::error::Error;

/// `error: its cause: the cause of that …`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("opening the door")]
    struct Outer(#[source] io::Error);

    #[test]
    fn every_cause_is_named_once() {
        let inner = Outer(io::Error::other("it is locked"));
        assert_eq!(chain(&inner), "opening the door: it is locked");
    }
}
