//! What was seen, as tables in Markdown.

use crate::bench::{
    course::{Entered, Row, Seen, What},
    field::{Class, Runtime},
    stats::{median, median_ratio},
};

/// Which of the two times a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// By the clock.
    Wall,
    /// Of the processor: on a machine that others keep busy.
    Cpu,
}

/// All tables.
pub fn all(seen: &Seen, by: By) -> Vec<String> {
    let mut threads: Vec<usize> = seen.rows.iter().map(|row| row.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let mut lines = Vec::new();
    for threads in threads {
        let rows: Vec<&Row> = seen.rows.iter().filter(|row| row.threads == threads).collect();
        let single = |row: &&Row| matches!(row.what, What::Single(_));
        let (singles, mixed): (Vec<&Row>, Vec<&Row>) = rows.into_iter().partition(single);
        let what = if by == By::Wall { "ms" } else { "ms of processor time" };
        lines.push(format!("\n### One text, {threads} threads, {what}"));
        lines.extend(table(&singles, by, |row| format!("{:.2}", median(by.of(row)))));
        lines.push(format!("\n### Batches of mixed lengths, {threads} threads, texts per second"));
        lines.extend(table(&mixed, by, |row| format!("{:.0}", per_second(row, by, row.texts))));
        lines.push(format!("\n### Batches of mixed lengths, {threads} threads, tokens per second"));
        lines.extend(table(&mixed, by, |row| format!("{:.0}", per_second(row, by, row.tokens))));
    }
    lines.push("\n### Loading, memory and accuracy".to_owned());
    lines.extend(entered(&seen.entrants));
    lines
}

impl By {
    fn of(self, row: &Row) -> &[f64] {
        match self {
            Self::Wall => &row.wall_ms,
            Self::Cpu => &row.cpu_ms,
        }
    }
}

fn per_second(row: &Row, by: By, count: usize) -> f64 {
    count as f64 * 1e3 / median(by.of(row))
}

/// A column for each thing that was measured, a row for each entrant, and then how ours compares.
fn table(rows: &[&Row], by: By, cell: impl Fn(&Row) -> String) -> Vec<String> {
    let mut columns: Vec<What> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !columns.contains(&row.what) {
            columns.push(row.what);
        }
        if !names.contains(&row.who.as_str()) {
            names.push(&row.who);
        }
    }
    let heads: Vec<String> = columns.iter().map(|what| what.name()).collect();
    let mut lines = vec![
        format!("| | {} |", heads.join(" | ")),
        format!("|---|{}", "---|".repeat(columns.len())),
    ];
    let of = |what: &What, who: &str| rows.iter().find(|row| row.what == *what && row.who == who);
    for name in names {
        let cells =
            columns.iter().map(|what| of(what, name).map_or_else(String::new, |row| cell(row)));
        lines.push(format!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | ")));
    }
    for versus in VERSUS {
        let cells: Vec<String> = columns
            .iter()
            .map(|what| {
                let here: Vec<&Row> =
                    rows.iter().filter(|row| row.what == *what).copied().collect();
                versus.ratio(&here, by).map_or_else(String::new, |ratio| format!("{ratio:.2}×"))
            })
            .collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            lines.push(format!("| **{}** | {} |", versus.name, cells.join(" | ")));
        }
    }
    lines
}

/// How many times as long the quickest form of a peer takes as one of ours.
struct Versus {
    name: &'static str,
    ours: (Runtime, &'static str),
    peer: &'static [Runtime],
    class: Option<Class>,
}

const VERSUS: [Versus; 4] = [
    Versus {
        name: "onnxruntime's best int8 / socle q8",
        ours: (Runtime::Socle, "q8"),
        peer: &[Runtime::Onnxruntime],
        class: Some(Class::Quantized),
    },
    Versus {
        name: "onnxruntime f32 / socle f32",
        ours: (Runtime::Socle, "f32"),
        peer: &[Runtime::Onnxruntime],
        class: Some(Class::Float),
    },
    Versus {
        name: "OpenVINO's best / socle q8",
        ours: (Runtime::Socle, "q8"),
        peer: &[Runtime::Openvino, Runtime::OpenvinoF32],
        class: None,
    },
    Versus {
        name: "fastembed's best / socle q8, both from texts",
        ours: (Runtime::SocleTexts, "q8"),
        peer: &[Runtime::Fastembed],
        class: None,
    },
];

impl Versus {
    fn ratio(&self, rows: &[&Row], by: By) -> Option<f64> {
        let (runtime, form) = self.ours;
        let ours = rows.iter().find(|row| row.runtime == runtime && row.who.ends_with(form))?;
        let peers = rows.iter().filter(|row| {
            self.peer.contains(&row.runtime) && self.class.is_none_or(|class| row.class == class)
        });
        let quickest =
            peers.min_by(|one, other| median(by.of(one)).total_cmp(&median(by.of(other))))?;
        Some(median_ratio(by.of(quickest), by.of(ours)))
    }
}

fn entered(entrants: &[Entered]) -> Vec<String> {
    let mut lines = vec![
        "| | threads | model MB | ready in ms | process MB | of it for the model MB | cosine mean | least | same neighbour |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for entered in entrants {
        let name = entered.entrant.name();
        let (threads, model) = (entered.threads, mb(entered.model_bytes));
        let Some(ready) = entered.ready.as_ref().filter(|_| entered.failure.is_none()) else {
            let why = entered.failure.as_deref().unwrap_or("not ready");
            lines.push(format!("| {name} | {threads} | {model} | left out: {why} | | | | | |"));
            continue;
        };
        let agreement = entered.agreement.map_or_else(
            || " | | ".to_owned(),
            |found| {
                format!(
                    "{:.4} | {:.4} | {:.2}",
                    found.cosine_mean, found.cosine_min, found.same_neighbour
                )
            },
        );
        lines.push(format!(
            "| {name} {} | {threads} | {model} | {:.0} | {} | {} | {agreement} |",
            ready.version,
            ready.load_ms,
            mb(ready.resident_bytes),
            mb(ready.resident_bytes.saturating_sub(ready.before_bytes)),
        ));
    }
    lines
}

fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(who: &str, runtime: Runtime, class: Class, wall_ms: &[f64]) -> Row {
        Row {
            who: who.to_owned(),
            runtime,
            class,
            threads: 1,
            what: What::Single(16),
            texts: 1,
            tokens: 16,
            wall_ms: wall_ms.to_vec(),
            cpu_ms: wall_ms.to_vec(),
        }
    }

    #[test]
    fn ours_is_held_against_the_quickest_form_of_a_peer() {
        let rows = [
            row("socle q8", Runtime::Socle, Class::Quantized, &[2.0, 2.0]),
            row("onnxruntime dynamic8", Runtime::Onnxruntime, Class::Quantized, &[3.0, 3.0]),
            row("onnxruntime q8", Runtime::Onnxruntime, Class::Quantized, &[9.0, 9.0]),
            row("onnxruntime f32", Runtime::Onnxruntime, Class::Float, &[1.0, 1.0]),
        ];
        let text = table(&rows.iter().collect::<Vec<_>>(), By::Wall, |row| row.who.clone());
        assert!(text.contains(&"| **onnxruntime's best int8 / socle q8** | 1.50× |".to_owned()));
    }

    #[test]
    fn a_peer_that_is_not_there_has_no_line() {
        let rows = [row("socle q8", Runtime::Socle, Class::Quantized, &[2.0])];
        let text = table(&rows.iter().collect::<Vec<_>>(), By::Wall, |row| row.who.clone());
        assert_eq!(text.len(), 3);
    }
}
