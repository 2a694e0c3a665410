//! Why something went wrong, on one line, for a message that leaves the process.

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Most characters that are told of a panic.
const PANIC_CHARS_MAX: usize = 300;

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

/// What `work` gives, or what it said when it panicked: tract and tokenizers do, on files that nobody tried.
///
/// # Errors
/// It panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        text.unwrap_or("no message").chars().take(PANIC_CHARS_MAX).collect()
    })
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

    #[test]
    fn a_panic_is_told_in_its_own_words() {
        assert_eq!(caught(|| 7), Ok(7));
        let told = |work: fn()| caught(work).unwrap_err();
        assert_eq!(told(|| panic!("no")), "no");
        assert_eq!(told(|| panic!("{}", "x".repeat(500))), "x".repeat(PANIC_CHARS_MAX));
        assert_eq!(told(|| std::panic::panic_any(7)), "no message");
    }
}
