//! Says when the agent was built, in seconds since 1970: `SOURCE_DATE_EPOCH`, else the time of the last commit, else 0.
//! Never the clock: the same sources give the same bytes.

use std::{env, process::Command};

fn main() {
    // Only a lower bound is asked for, so an older time from before the last commit does no harm.
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    let built = env::var("SOURCE_DATE_EPOCH").ok().and_then(seconds).or_else(last_commit);
    println!("cargo::rustc-env=SOCLE_BUILT_AT_S={}", built.unwrap_or(0));
}

fn last_commit() -> Option<u64> {
    let git = Command::new("git").args(["log", "-1", "--format=%ct"]).output().ok()?;
    String::from_utf8(git.stdout).ok().and_then(seconds)
}

fn seconds(text: String) -> Option<u64> {
    text.trim().parse().ok()
}
