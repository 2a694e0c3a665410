//! What an import did and what each step cost, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::import::{accuracy::Comparison, cut::CutReport, matrix::Format, source::Form};

/// What an import did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name and version of the package.
    pub name: String,
    /// Version, for people.
    pub version: String,
    /// In which form the model came.
    pub form: Form,
    /// What was asked for.
    pub format: Format,
    /// What the linear layers are kept as now: how many bits a weight has without its share of a scale.
    pub weight_bits: Vec<usize>,
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// How the vocabulary was cut.
    pub vocabulary: Option<CutReport>,
    /// From the model as it came to the package.
    pub whole: Comparison,
    /// Bytes of the model's file as it came, and of model.onnx.
    pub model_bytes: (u64, u64),
    /// Bytes of tokenizer.json as it came, and as it is now.
    pub tokenizer_bytes: (u64, u64),
}

/// A step.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What was done.
    pub what: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// What it changed, where it can change anything.
    pub cost: Option<Comparison>,
}

impl Report {
    /// For a person.
    pub fn text(&self) -> String {
        let mut text = format!("Imported {} {} from {:?}\n", self.name, self.version, self.form);
        for step in &self.steps {
            let cost = step.cost.map_or_else(String::new, |cost| format!("  {}", line(&cost)));
            append(&mut text, format_args!("  {:24} {:6.1} s{cost}\n", step.what, step.seconds));
        }
        if let Some(cut) = &self.vocabulary {
            let held = &cut.held_out;
            append(
                &mut text,
                format_args!(
                    "  vocabulary: {} of {} tokens kept for {} ({} of them used by {} lines)\n    \
                     on {} lines kept apart: {:.1} % read as before, {:.2} % more tokens, unknown {} of {} before and {} of {} after\n    \
                     dropped, for example: {}\n",
                    cut.tokens_kept,
                    cut.tokens_before,
                    cut.languages.join(", "),
                    cut.tokens_used,
                    cut.lines,
                    held.lines,
                    100.0 * held.lines_unchanged as f64 / held.lines.max(1) as f64,
                    100.0 * (held.tokens_after as f64 / held.tokens_before.max(1) as f64 - 1.0),
                    held.unknown_before,
                    held.tokens_before,
                    held.unknown_after,
                    held.tokens_after,
                    cut.dropped.join(" "),
                ),
            );
        }
        append(
            &mut text,
            format_args!(
                "  model {} → {}, tokenizer {} → {}\n  against the model as it came: {}",
                megabytes(self.model_bytes.0),
                megabytes(self.model_bytes.1),
                megabytes(self.tokenizer_bytes.0),
                megabytes(self.tokenizer_bytes.1),
                line(&self.whole),
            ),
        );
        text
    }
}

fn line(cost: &Comparison) -> String {
    format!(
        "cosine {:.4} mean, {:.4} least; same nearest {:.2} of {} texts",
        cost.mean_cosine, cost.least_cosine, cost.same_nearest, cost.texts
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn append(text: &mut String, what: std::fmt::Arguments<'_>) {
    match text.write_fmt(what) {
        // A string takes everything.
        Ok(()) | Err(_) => {}
    }
}
