//! A compute thread that no longer gets on with its work, and the end of its process.
//!
//! tract can loop for hours, or for ever, on a hostile model, and no thread can be stopped from outside: so the process
//! ends, and whoever keeps it starts the next one. A thread is given processor time, not time, so that a busy machine is
//! no hang. One that sleeps all the while, when no other thread of the process has anything to do, waits for something
//! that will not come.

use std::{
    fmt, fs, io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::pulse::{Beat, Pulse};

/// Longest time for telling whoever waits why nothing will come. What hangs may hold what it takes to tell.
const EXCUSE_MAX: Duration = Duration::from_millis(500);
/// How often the threads are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Of `/proc/<pid>/stat`: hundredths of a second, on every Linux.
const TICK_MS: u64 = 10;

/// A thread that is watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What it says.
    pub pulse: Arc<Pulse>,
    /// Its id in the kernel.
    pub thread: i32,
}

/// What the kernel says of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Processor time it had so far, in milliseconds.
    pub cpu_ms: u64,
    /// It waits for something other than a processor or a disk, and no other thread of the process is about to give it.
    pub sleeps: bool,
}

/// Since when a thread is at one piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    beat: Beat,
    cpu_ms: u64,
    /// Milliseconds at which it was seen asleep first, with no moment awake since.
    asleep_ms: Option<u64>,
}

/// Why a thread is taken to hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// It computed for longer than its piece of work may take.
    Computes {
        /// So long, in milliseconds of processor time.
        cpu_ms: u64,
    },
    /// It slept for so long, in milliseconds.
    Sleeps {
        /// So long.
        slept_ms: u64,
    },
}

/// What to think of a thread at `now_ms` that says `beat`, given what was known. Pure.
pub fn judge(
    known: Option<Since>,
    beat: Option<Beat>,
    seen: Seen,
    now_ms: u64,
) -> Result<Option<Since>, Hang> {
    let Some(beat) = beat else { return Ok(None) };
    let asleep_now = seen.sleeps.then_some(now_ms);
    let Some(known) = known.filter(|known| known.beat == beat) else {
        return Ok(Some(Since { beat, cpu_ms: seen.cpu_ms, asleep_ms: asleep_now }));
    };
    let cpu_ms = seen.cpu_ms.saturating_sub(known.cpu_ms);
    if cpu_ms > beat.allowed_ms {
        return Err(Hang::Computes { cpu_ms });
    }
    let asleep_ms = if seen.sleeps { known.asleep_ms.or(asleep_now) } else { None };
    let slept_ms = asleep_ms.map_or(0, |since| now_ms.saturating_sub(since));
    if slept_ms > beat.allowed_ms {
        return Err(Hang::Sleeps { slept_ms });
    }
    Ok(Some(Since { asleep_ms, ..known }))
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Computes { cpu_ms } => {
                write!(f, "it took {cpu_ms} ms of processor time, which is more than it may")
            }
            Self::Sleeps { slept_ms } => {
                write!(f, "it waited for {slept_ms} ms for something that does not come")
            }
        }
    }
}

/// Ends this process when one of `threads` hangs. Whoever waits for it is told before, by [`crate::pulse::waited_for`].
///
/// # Errors
/// The watching thread cannot be started.
pub fn guard(threads: Vec<Watched>) -> io::Result<()> {
    let watch = move || {
        let (pulse, hang) = watch(&threads);
        tracing::error!(
            "a compute thread hangs: {hang}; this worker ends, and the next one starts"
        );
        excuse(pulse, hang);
        std::process::abort();
    };
    thread::Builder::new().name("hang-watch".into()).spawn(watch).map(drop)
}

fn excuse(pulse: Arc<Pulse>, hang: Hang) {
    let (telling, told) = sync_channel::<()>(0);
    let tell = move || {
        pulse.give_up(&hang.to_string());
        drop(telling);
    };
    let late = match thread::Builder::new().name("excuse".into()).spawn(tell) {
        Ok(_) => told.recv_timeout(EXCUSE_MAX) == Err(RecvTimeoutError::Timeout),
        Err(_) => true,
    };
    if late {
        tracing::warn!("who waits for that thread was not told in time");
    }
}

/// Returns when one hangs.
#[expect(clippy::disallowed_methods, reason = "the worker's edge: how long a thread takes")]
fn watch(threads: &[Watched]) -> (Arc<Pulse>, Hang) {
    let start = Instant::now();
    let own = kernel_id();
    let mut known: Vec<Option<Since>> = vec![None; threads.len()];
    loop {
        thread::sleep(LOOK);
        let now_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        for (watched, known) in threads.iter().zip(&mut known) {
            let Some(beat) = watched.pulse.beat() else {
                *known = None;
                continue;
            };
            // Where the kernel does not say, nothing is concluded.
            let Some(seen) = look(watched.thread, own) else { continue };
            match judge(*known, Some(beat), seen, now_ms) {
                Ok(since) => *known = since,
                // It may have gone on between what it said and what the kernel said.
                Err(hang) if watched.pulse.beat() == Some(beat) => {
                    return (Arc::clone(&watched.pulse), hang);
                }
                Err(_) => *known = None,
            }
        }
    }
}

/// The id by which the kernel knows this thread.
pub fn kernel_id() -> Option<i32> {
    let link = fs::read_link("/proc/thread-self").ok()?;
    link.file_name()?.to_str()?.parse().ok()
}

/// What the kernel says of a thread of this process; `own` is the one that asks.
fn look(thread: i32, own: Option<i32>) -> Option<Seen> {
    let (state, cpu_ms) = stat(thread)?;
    let sleeps = || {
        let others = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let others = others.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mut others = others.filter(|other| *other != thread && Some(*other) != own);
        !others.any(|other| stat(other).is_some_and(|(state, _)| state != b'S'))
    };
    Some(Seen { cpu_ms, sleeps: state == b'S' && sleeps() })
}

/// A thread's state and the processor time it had, in milliseconds.
fn stat(thread: i32) -> Option<(u8, u64)> {
    let path = PathBuf::from(format!("/proc/self/task/{thread}/stat"));
    let stat = fs::read_to_string(path).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // After the state come ten fields, then time in user mode and time in the kernel.
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((state, (user + system) * TICK_MS))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _, num::NonZeroUsize, os::unix::process::ExitStatusExt as _, process::Command,
    };

    use super::*;
    use crate::{pulse, worker::jobs::Jobs};

    const BEAT: Beat = Beat { step: 7, allowed_ms: 1_000 };

    fn awake(cpu_ms: u64) -> Seen {
        Seen { cpu_ms, sleeps: false }
    }

    fn asleep(cpu_ms: u64) -> Seen {
        Seen { cpu_ms, sleeps: true }
    }

    /// What is thought after each of `looks`, 500 ms apart; the last word of it.
    fn after(looks: &[(Option<Beat>, Seen)]) -> Result<(), Hang> {
        let mut known = None;
        for ((beat, seen), now_ms) in looks.iter().zip((0..).step_by(500)) {
            known = judge(known, *beat, *seen, now_ms)?;
        }
        Ok(())
    }

    #[test]
    fn only_a_thread_that_computes_or_sleeps_too_long_at_one_piece_hangs() {
        let other = Beat { step: 8, ..BEAT };
        let (one, two) = (Some(BEAT), Some(other));
        // Busy for longer than it may.
        let busy = [(one, awake(100)), (one, awake(600)), (one, awake(1_101))];
        assert_eq!(after(&busy), Err(Hang::Computes { cpu_ms: 1_001 }));
        // As busy, but at another piece.
        assert_eq!(after(&[(one, awake(100)), (one, awake(600)), (two, awake(1_600))]), Ok(()));
        // Ready to run all the while, and the machine gives it nothing.
        assert_eq!(after(&[(one, awake(100)); 100]), Ok(()));
        let slept =
            [(one, asleep(100)), (one, asleep(100)), (one, asleep(100)), (one, asleep(100))];
        assert_eq!(after(&slept), Err(Hang::Sleeps { slept_ms: 1_500 }));
        // Awake now and then.
        let mut naps = [(one, asleep(100)); 40];
        naps.iter_mut().step_by(2).for_each(|look| look.1.sleeps = false);
        assert_eq!(after(&naps), Ok(()));
        // Idle, or loading.
        assert_eq!(after(&[(None, asleep(100)); 100]), Ok(()));
    }

    /// Set in the child that the test starts from its own executable, to what its compute thread does.
    const CHILD: &str = "ENGINE_TEST_HANGING_CHILD";

    #[test]
    fn a_process_whose_compute_thread_hangs_ends_and_one_that_works_does_not() {
        if let Ok(what) = std::env::var(CHILD) {
            return child(&what);
        }
        let name = concat!(
            module_path!(),
            "::a_process_whose_compute_thread_hangs_ends_and_one_that_works_does_not"
        );
        let name = name.split_once("::").unwrap().1;
        for (what, ends) in [("computes", true), ("sleeps", true), ("steps", false)] {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(CHILD, what)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stdout);
            let aborted = child.status.signal() == Some(6);
            assert_eq!(aborted, ends, "{what}: {} {said}", child.status);
            assert_eq!(said.contains("EXCUSED: it "), ends, "{what}: {said}");
            assert!(aborted || child.status.success() && said.contains("1 passed"), "{said}");
        }
    }

    /// A process with one compute thread that does `what`. One that hangs would hang for far longer than it is let.
    fn child(what: &str) {
        const LONG: Duration = Duration::from_secs(120);
        let jobs = Jobs::start("compute", NonZeroUsize::MIN, 4).unwrap();
        guard(jobs.watched()).unwrap();
        let what = what.to_owned();
        let work = move || {
            let say = |why: &str| writeln!(std::io::stdout(), "EXCUSED: {why}").unwrap();
            let _waited = pulse::waited_for(say);
            let began = monotonic();
            match what.as_str() {
                "computes" => {
                    while monotonic().duration_since(began) < LONG {
                        std::hint::spin_loop();
                    }
                }
                "sleeps" => thread::sleep(LONG),
                _ => {
                    // Twice what one piece may take, in pieces.
                    let all = Duration::from_millis(2 * pulse::STEP_MS);
                    while monotonic().duration_since(began) < all {
                        pulse::step(1);
                    }
                }
            }
        };
        jobs.submit(Box::new(work)).unwrap();
        jobs.close();
    }

    #[expect(clippy::disallowed_methods, reason = "a test measures")]
    fn monotonic() -> Instant {
        Instant::now()
    }
}
