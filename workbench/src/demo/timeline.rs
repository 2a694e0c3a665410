//! What happened when, and which promises held.

use std::{io, time::Instant};

use serde_json::{Value, json};

use crate::{
    demo::wait,
    terminal::{Colour, Terminal},
};

/// Longest evidence shown to a person.
const EVIDENCE_CHARS_MAX: usize = 150;

/// The demo's record, shown while it grows.
pub struct Timeline {
    terminal: Terminal,
    start: Instant,
    entries: Vec<Entry>,
    checks: Vec<Check>,
    facts: serde_json::Map<String, Value>,
}

struct Check {
    name: String,
    held: bool,
    evidence: String,
}

struct Entry {
    at_ms: u128,
    took_ms: u128,
    title: String,
    detail: String,
}

impl Timeline {
    /// An empty record, now.
    pub fn start(terminal: Terminal) -> Self {
        Self {
            terminal,
            start: wait::now(),
            entries: Vec::new(),
            checks: Vec::new(),
            facts: serde_json::Map::new(),
        }
    }

    /// The terminal it is shown on.
    pub const fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    /// A new chapter.
    pub fn chapter(&self, title: &str) -> io::Result<()> {
        self.terminal.line(&format!("\n{}", self.terminal.paint(Colour::Bold, title)))
    }

    /// Something that took from `since` until now.
    pub fn happened(&mut self, since: Instant, title: &str, detail: &str) -> io::Result<()> {
        let took_ms = since.elapsed().as_millis();
        let at_ms = self.start.elapsed().as_millis();
        let clock = format!("{:>3}.{}", at_ms / 1000, at_ms % 1000 / 100);
        let line = format!(
            "  {}  {:44} {:>8}  {}",
            self.terminal.paint(Colour::Dim, &clock),
            title,
            self.terminal.paint(Colour::Cyan, &duration(took_ms)),
            self.terminal.paint(Colour::Dim, detail),
        );
        self.entries.push(Entry {
            at_ms,
            took_ms,
            title: title.to_owned(),
            detail: detail.to_owned(),
        });
        self.terminal.line(&line)
    }

    /// A promise, and whether it held. `evidence` is what was seen.
    pub fn check(&mut self, name: &str, held: bool, evidence: &str) -> io::Result<()> {
        let mark = if held {
            self.terminal.paint(Colour::Green, "✓")
        } else {
            self.terminal.paint(Colour::Red, "✗")
        };
        self.checks.push(Check { name: name.to_owned(), held, evidence: evidence.to_owned() });
        let evidence = self.terminal.paint(Colour::Dim, &shortened(evidence));
        self.terminal.line(&format!("         {mark} {}  {evidence}", name.replace('_', " ")))
    }

    /// A line in passing.
    pub fn note(&self, text: &str) -> io::Result<()> {
        self.terminal.line(text)
    }

    /// A fact for the JSON output.
    pub fn fact(&mut self, name: &str, value: Value) {
        self.facts.insert(name.to_owned(), value);
    }

    /// Checks that did not hold.
    pub fn failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.held).count()
    }

    /// Checks made.
    pub fn checked(&self) -> usize {
        self.checks.len()
    }

    /// Shows the end, or the JSON object.
    pub fn finish(&self, error: Option<String>) -> io::Result<()> {
        let seconds = self.start.elapsed().as_secs_f64();
        let checks: serde_json::Map<String, Value> =
            self.checks.iter().map(|check| (check.name.clone(), Value::Bool(check.held))).collect();
        let evidence: serde_json::Map<String, Value> = self
            .checks
            .iter()
            .map(|check| (check.name.clone(), Value::String(check.evidence.clone())))
            .collect();
        let entries: Vec<Value> = self
            .entries
            .iter()
            .map(|entry| json!({ "at_ms": u64::try_from(entry.at_ms).unwrap_or(u64::MAX), "took_ms": u64::try_from(entry.took_ms).unwrap_or(u64::MAX), "title": entry.title, "detail": entry.detail }))
            .collect();
        let value = json!({
            "checks": checks,
            "evidence": evidence,
            "held": self.checked() - self.failed(),
            "seconds": (seconds * 10.0).round() / 10.0,
            "timeline": entries,
            "facts": self.facts,
            "error": error,
        });
        let (held, all) = (self.checked() - self.failed(), self.checked());
        let colour = if held == all && error.is_none() { Colour::Green } else { Colour::Red };
        let text =
            self.terminal.paint(colour, &format!("\n{held} of {all} checks held, {seconds:.0} s"));
        self.terminal.result(&text, &value)
    }
}

/// What fits beside a check; the whole text is in the JSON output.
fn shortened(evidence: &str) -> String {
    match evidence.char_indices().nth(EVIDENCE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &evidence[..end]),
        None => evidence.to_owned(),
    }
}

fn duration(ms: u128) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1000, ms % 1000 / 100) }
}
