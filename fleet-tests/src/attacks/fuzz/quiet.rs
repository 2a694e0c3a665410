//! The panics of one thread, noted instead of printed: many are caught on purpose, and a backtrace alone takes more
//! memory than an input may.

use std::{
    cell::{Cell, RefCell},
    panic,
    sync::Once,
};

thread_local! {
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Does `work`, and gives what the last panic in it said, which need not have left it.
pub fn noting<T>(work: impl FnOnce() -> T) -> (T, Option<String>) {
    HOOK.call_once(|| {
        let printed = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if LISTENING.get() {
                SAID.replace(Some(panic.to_string()));
            } else {
                printed(panic);
            }
        }));
    });
    LISTENING.set(true);
    let done = work();
    LISTENING.set(false);
    (done, SAID.take())
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_caught_panic_is_noted_and_the_next_work_knows_nothing_of_it() {
        let (caught, said) = noting(|| catch_unwind(|| panic!("the sky fell")).is_err());
        assert!(caught);
        assert!(said.is_some_and(|said| said.contains("the sky fell")));
        assert_eq!(noting(|| 7), (7, None));
    }
}
