//! How a compute thread says that it gets on with its work: before each piece, how long that piece may take.
//!
//! The code that computes calls [`step`] and knows nothing of who listens; on a thread that nobody watches it does
//! nothing. [`crate::worker::hang`] listens.

use std::{
    cell::{Cell, OnceCell},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What one piece of work may take besides its tokens, in milliseconds of processor time.
pub const STEP_MS: u64 = 1_000;
/// What it may take for each token. A slow core needs less than one.
pub const TOKEN_MS: u64 = 4;

/// Tells somebody why what they wait for will not come.
type Excuse = Box<dyn FnOnce(&str) + Send>;

/// What one thread said last.
#[derive(Default)]
pub struct Pulse {
    /// Grows with every piece.
    steps: AtomicU64,
    /// What the piece under way may take; 0 while there is none, or none that is bounded.
    allowed_ms: AtomicU64,
    /// For whoever waits for the work under way.
    excuse: Mutex<Option<Excuse>>,
}

/// A piece of work at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Which piece of this thread.
    pub step: u64,
    /// What it may take, in milliseconds of processor time.
    pub allowed_ms: u64,
}

/// While it lives, the work of this thread has another bound, or none.
#[derive(Debug)]
pub struct Otherwise {
    before_ms: u64,
    before_whole: bool,
}

/// While it lives, somebody waits for what this thread does.
#[derive(Debug)]
pub struct Waited(());

thread_local! {
    static OWN: OnceCell<Arc<Pulse>> = const { OnceCell::new() };
    /// Whether the bound is of all that follows together: then no piece of it begins another one.
    static WHOLE: Cell<bool> = const { Cell::new(false) };
}

impl Pulse {
    /// The piece that is under way now, if it is bounded.
    pub fn beat(&self) -> Option<Beat> {
        let step = self.steps.load(Ordering::Acquire);
        let allowed_ms = self.allowed_ms.load(Ordering::Acquire);
        (allowed_ms > 0).then_some(Beat { step, allowed_ms })
    }

    /// Tells whoever waits for the work under way `why` nothing will come of it.
    pub fn give_up(&self, why: &str) {
        if let Some(excuse) = self.excused_by(None) {
            excuse(why);
        }
    }

    fn excused_by(&self, excuse: Option<Excuse>) -> Option<Excuse> {
        let mut place = self.excuse.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, excuse)
    }

    fn begin(&self, allowed_ms: u64) {
        self.allowed_ms.store(allowed_ms, Ordering::Release);
        self.steps.fetch_add(1, Ordering::Release);
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pulse({:?})", self.beat())
    }
}

/// Has this thread say what it does by `pulse`, for as long as it lives.
pub fn listen(pulse: Arc<Pulse>) {
    OWN.with(|own| {
        // A thread has one pulse; a second one changes nothing.
        drop(own.set(pulse));
    });
}

/// A piece of work over `tokens` tokens begins.
pub fn step(tokens: usize) {
    let tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
    tell(|pulse| {
        // Work without a bound stays so, whatever it is made of.
        if pulse.allowed_ms.load(Ordering::Acquire) > 0 && !WHOLE.get() {
            pulse.begin(STEP_MS.saturating_add(TOKEN_MS.saturating_mul(tokens)));
        }
    });
}

/// A job begins, of which every piece is bounded.
pub fn begin() {
    tell(|pulse| pulse.begin(STEP_MS));
}

/// The job is done.
pub fn end() {
    tell(|pulse| pulse.begin(0));
}

/// What follows may take any time, as asking a driver does.
pub fn unbounded() -> Otherwise {
    otherwise(0)
}

/// What follows may take `allowed_ms` as a whole, whatever it is made of, as loading a model does.
pub fn at_most(allowed_ms: u64) -> Otherwise {
    let before = otherwise(allowed_ms.max(1));
    WHOLE.set(true);
    before
}

/// Somebody waits for what follows. If this thread is given up over it, `excuse` is called with the reason, on another
/// thread; there is one excuse at a time.
pub fn waited_for(excuse: impl FnOnce(&str) + Send + 'static) -> Waited {
    tell(|pulse| drop(pulse.excused_by(Some(Box::new(excuse)))));
    Waited(())
}

fn otherwise(allowed_ms: u64) -> Otherwise {
    let (mut before_ms, before_whole) = (0, WHOLE.replace(false));
    tell(|pulse| {
        before_ms = pulse.allowed_ms.load(Ordering::Acquire);
        pulse.begin(allowed_ms);
    });
    Otherwise { before_ms, before_whole }
}

impl Drop for Otherwise {
    fn drop(&mut self) {
        let before_ms = self.before_ms;
        WHOLE.set(self.before_whole);
        tell(|pulse| pulse.begin(before_ms));
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        tell(|pulse| drop(pulse.excused_by(None)));
    }
}

fn tell(say: impl FnOnce(&Pulse)) {
    OWN.with(|own| {
        if let Some(pulse) = own.get() {
            say(pulse);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_why_nothing_comes_and_nobody_else_is() {
        let pulse = Arc::new(Pulse::default());
        let watched = Arc::clone(&pulse);
        std::thread::spawn(move || {
            listen(pulse);
            let told = Arc::new(Mutex::new(Vec::new()));
            let excuse = |who: &str| {
                let (told, who) = (Arc::clone(&told), who.to_owned());
                move |why: &str| told.lock().unwrap().push(format!("{who}: {why}"))
            };
            watched.give_up("nobody waits");
            drop(waited_for(excuse("first")));
            watched.give_up("it was done");
            let _waited = waited_for(excuse("second"));
            watched.give_up("it hangs");
            watched.give_up("it still hangs");
            assert_eq!(*told.lock().unwrap(), ["second: it hangs"]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_piece_is_bounded_by_its_tokens_and_loading_as_a_whole() {
        let pulse = Arc::new(Pulse::default());
        let own = Arc::clone(&pulse);
        let allowed = move || own.beat().map(|beat| beat.allowed_ms);
        std::thread::spawn(move || {
            listen(pulse);
            step(5);
            assert_eq!(allowed(), None, "nobody began a job");
            begin();
            assert_eq!(allowed(), Some(STEP_MS));
            step(256);
            assert_eq!(allowed(), Some(STEP_MS + 256 * TOKEN_MS));
            {
                let _loading = unbounded();
                step(5);
                assert_eq!(allowed(), None);
            }
            assert_eq!(allowed(), Some(STEP_MS + 256 * TOKEN_MS));
            {
                let _loading = at_most(60_000);
                step(5);
                assert_eq!(allowed(), Some(60_000), "pieces are within the whole");
            }
            step(1);
            assert_eq!(allowed(), Some(STEP_MS + TOKEN_MS));
            end();
            assert_eq!(allowed(), None);
        })
        .join()
        .unwrap();
        // Nobody listens here.
        drop(waited_for(|_| ()));
        step(1);
        drop(unbounded());
    }
}
