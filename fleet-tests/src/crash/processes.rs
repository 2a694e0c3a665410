//! Which processes a supervisor has, from `/proc`.

use std::{fs, path::PathBuf};

/// A process of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// What it is: `supervisor`, `gateway`, `worker`, `updater`, `arm`, `launch`.
    pub role: &'static str,
}

/// `root` and all that descend from it.
pub fn tree(root: u32) -> Vec<Process> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&of) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        next += 1;
    }
    found
        .into_iter()
        .map(|pid| {
            let role = if pid == root { "supervisor" } else { role(pid) };
            Process { pid, role }
        })
        .collect()
}

/// The value of a variable in the environment a process was started with.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(file(pid, "environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(file(pid, "stat")).ok()?;
    // The name in parentheses may hold spaces.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn role(pid: u32) -> &'static str {
    let line = fs::read(file(pid, "cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let launching = words.first().is_some_and(|name| name.ends_with(b"socle-launch"));
    let known: [(&[u8], &'static str); 5] = [
        (b"arm", "arm"),
        (b"gateway", "gateway"),
        (b"worker", "worker"),
        (b"updater", "updater"),
        (b"--self-check", "self-check"),
    ];
    if launching && !words.contains(&&b"arm"[..]) {
        return "launch";
    }
    known.iter().find(|(word, _)| words.contains(word)).map_or("other", |(_, role)| role)
}

fn file(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}
