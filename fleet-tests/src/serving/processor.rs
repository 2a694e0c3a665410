//! Processor time of processes, from `/proc`.

use std::{fs, time::Duration};

/// What a tick of `/proc` is worth: `USER_HZ`, which is 100 on every Linux that we run on.
const TICK: Duration = Duration::from_millis(10);

/// Processes that are counted together.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they are.
    pub name: &'static str,
    /// Their ids.
    pub pids: Vec<u32>,
}

impl Group {
    /// This very process.
    pub fn own() -> Self {
        Self { name: "generator", pids: vec![std::process::id()] }
    }

    /// What they have spent so far; those that ended count nothing.
    pub fn spent(&self) -> Duration {
        self.pids.iter().filter_map(|pid| of(*pid)).sum()
    }
}

fn of(pid: u32) -> Option<Duration> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|ticks| TICK * ticks)
}

/// In user mode and in the kernel, all threads together.
fn ticks(stat: &str) -> Option<u32> {
    // The name in parentheses may hold spaces. What follows begins with the third field.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let kernel: u32 = fields.next()?.parse().ok()?;
    user.checked_add(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_kernel_time_are_added_whatever_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 1 2 3";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert!(of(std::process::id()).is_some() && of(u32::MAX).is_none());
    }
}
