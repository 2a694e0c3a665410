//! What the numbers that a model computes mean: probabilities of labels, the relevance of a document, the kind of a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most labels of a model.
pub const LABELS_MAX: usize = 4096;
/// Longest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// How logits become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// They are the scores.
    None,
    /// Each by itself, from 0 to 1: labels that do not exclude each other.
    Sigmoid,
    /// All together sum to 1: exactly one label holds.
    Softmax,
}

/// `[classification]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassificationSpec {
    /// A label for each column of the output, in its order.
    pub labels: Vec<String>,
    /// What is applied to the output.
    pub activation: Activation,
}

/// `[rerank]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RerankSpec {
    /// What is applied to the one column of the output; `softmax` makes no sense of one column and is refused.
    pub activation: Activation,
}

/// `[bytes]`: a model that looks at the beginning and the end of a file.
///
/// What it looks at is `tokenizer.max_tokens` numbers: the first `beginning` bytes of the file's first `block` bytes
/// without the white space in front, then the last `end` bytes of its last `block` bytes without the white space after
/// them, each filled up with `padding`: after the beginning, before the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BytesSpec {
    /// Bytes taken from the beginning.
    pub beginning: u32,
    /// Bytes taken from the end.
    pub end: u32,
    /// How much of the file is read at either end.
    pub block: u32,
    /// Stands where the file has no byte: a number above 255.
    pub padding: i32,
    /// A file shorter than this, without white space, has no label.
    pub least_bytes: u32,
    /// A label for each column of the output, in its order.
    pub labels: Vec<String>,
    /// The score that the best label has to reach.
    pub threshold: f32,
    /// The same for single labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thresholds: BTreeMap<String, f32>,
    /// Labels that are called by another name in answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
}

impl Activation {
    /// Makes scores of the logits of one input.
    pub fn apply(self, logits: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Sigmoid => logits.iter_mut().for_each(|value| *value = sigmoid(*value)),
            Self::Softmax => softmax(logits),
        }
    }
}

impl ClassificationSpec {
    /// Whether it can be used with an output of `dim` columns.
    ///
    /// # Errors
    /// Says what is impossible.
    pub fn check(&self, dim: u32) -> Result<(), String> {
        check_labels("classification", &self.labels, dim)
    }
}

impl RerankSpec {
    /// Whether it can be used with an output of `dim` columns.
    ///
    /// # Errors
    /// Says what is impossible.
    pub fn check(self, dim: u32) -> Result<(), String> {
        match (dim, self.activation) {
            (1, Activation::None | Activation::Sigmoid) => Ok(()),
            (1, Activation::Softmax) => {
                Err("has [rerank] activation = \"softmax\"; use \"sigmoid\" or \"none\"".into())
            }
            (other, _) => Err(format!(
                "has [rerank] and encoder.dim = {other}; a reranker gives 1 score for each pair"
            )),
        }
    }
}

impl BytesSpec {
    /// Whether it can be used with a window of `window` numbers and an output of `dim` columns.
    ///
    /// # Errors
    /// Says what is impossible.
    pub fn check(&self, window: u32, dim: u32) -> Result<(), String> {
        if self.beginning.checked_add(self.end) != Some(window) {
            return Err(format!(
                "has [bytes] beginning + end = {}, tokenizer.max_tokens = {window}; they must be the same",
                u64::from(self.beginning) + u64::from(self.end)
            ));
        }
        if self.block < self.beginning.max(self.end) || self.block > 1 << 20 {
            return Err(
                "has a [bytes] block shorter than beginning or end, or above 1 MiB".to_owned()
            );
        }
        let numbers = self.thresholds.values().chain([&self.threshold]);
        if numbers.into_iter().any(|threshold| !(0.0..=1.0).contains(threshold)) {
            return Err("has a [bytes] threshold outside 0 to 1".into());
        }
        check_labels("bytes", &self.labels, dim)
    }

    /// The numbers that the model looks at in a file that begins with `head` and ends with `tail`: its first and last
    /// `block` bytes, which are the same bytes when it is shorter.
    pub fn window(&self, head: &[u8], tail: &[u8]) -> Vec<i32> {
        let block = self.block as usize;
        let head = head.get(..block.min(head.len())).unwrap_or_default();
        let head = head.get(head.iter().take_while(|byte| is_space(**byte)).count()..);
        let head = head.unwrap_or_default();
        let tail = tail.get(tail.len().saturating_sub(block)..).unwrap_or_default();
        let behind = tail.iter().rev().take_while(|byte| is_space(**byte)).count();
        let tail = tail.get(..tail.len() - behind).unwrap_or_default();
        let (beginning, end) = (self.beginning as usize, self.end as usize);
        let mut window = Vec::with_capacity(beginning + end);
        window.extend(head.iter().take(beginning).map(|byte| i32::from(*byte)));
        window.resize(beginning, self.padding);
        let last = tail.get(tail.len().saturating_sub(end)..).unwrap_or_default();
        window.resize(beginning + end - last.len(), self.padding);
        window.extend(last.iter().map(|byte| i32::from(*byte)));
        window
    }

    /// What a file is called whose scores are `scores`; none when no label reaches its threshold.
    pub fn label(&self, scores: &[f32]) -> Option<&str> {
        let (at, score) = best(scores)?;
        let label = self.labels.get(at)?;
        let threshold = self.thresholds.get(label).copied().unwrap_or(self.threshold);
        (score >= threshold).then(|| self.rename.get(label).unwrap_or(label).as_str())
    }
}

/// The position and value of the largest score; none when there is none.
pub fn best(scores: &[f32]) -> Option<(usize, f32)> {
    let scores = scores.iter().copied().enumerate();
    scores.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

fn check_labels(section: &str, labels: &[String], dim: u32) -> Result<(), String> {
    if labels.len() > LABELS_MAX || labels.len() != dim as usize {
        return Err(format!(
            "has {} labels in [{section}] and encoder.dim = {dim}; each column has one, at most {LABELS_MAX}",
            labels.len()
        ));
    }
    if labels.iter().any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
        return Err(format!(
            "has an empty label in [{section}], or one above {LABEL_BYTES_MAX} bytes"
        ));
    }
    Ok(())
}

/// As in C's locale: vertical tab too.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn sigmoid(value: f32) -> f32 {
    // Either form is exact where the other one overflows.
    if value >= 0.0 {
        1.0 / (1.0 + (-value).exp())
    } else {
        let exp = value.exp();
        exp / (1.0 + exp)
    }
}

fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in &mut *values {
        *value = (*value - largest).exp();
        sum += *value;
    }
    if sum > 0.0 {
        for value in values {
            *value /= sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec() -> BytesSpec {
        BytesSpec {
            beginning: 4,
            end: 3,
            block: 8,
            padding: 256,
            least_bytes: 2,
            labels: vec!["png".into(), "text".into(), "random".into()],
            threshold: 0.5,
            thresholds: [("text".to_owned(), 0.9)].into(),
            rename: [("random".to_owned(), "unknown".to_owned())].into(),
        }
    }

    #[test]
    fn a_window_is_the_beginning_and_the_end_without_the_space_around() {
        let bytes = |text: &str| text.bytes().map(i32::from).collect::<Vec<_>>();
        let whole = b" \x0babcdefghij\n\x0c";
        assert_eq!(spec().window(whole, whole), bytes("abcdhij"));
        assert_eq!(spec().window(b"abcdefghij", b"abcdefghij"), bytes("abcdhij"));
        let short = b" ab ";
        let padded = [&bytes("ab ")[..], &[256], &bytes(" ab")].concat();
        assert_eq!(spec().window(short, short), padded, "the white space on the far side is kept");
        assert_eq!(spec().window(b"", b""), [256; 7]);
    }

    #[test]
    fn a_label_holds_from_its_own_threshold_on() {
        assert_eq!(spec().label(&[0.6, 0.3, 0.1]), Some("png"));
        assert_eq!(spec().label(&[0.1, 0.8, 0.1]), None, "text asks for 0.9");
        assert_eq!(spec().label(&[0.1, 0.9, 0.0]), Some("text"));
        assert_eq!(spec().label(&[0.1, 0.2, 0.7]), Some("unknown"));
        assert_eq!(spec().label(&[]), None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let check = |change: fn(&mut BytesSpec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.check(7, 3).unwrap_err()
        };
        assert_eq!(spec().check(7, 3), Ok(()));
        assert!(check(|spec| spec.end = 4).contains("beginning + end = 8"));
        assert!(check(|spec| spec.block = 3).contains("block shorter"));
        assert!(check(|spec| spec.threshold = 1.5).contains("threshold outside"));
        assert!(check(|spec| spec.labels.truncate(2)).contains("2 labels"));
        assert!(RerankSpec { activation: Activation::Softmax }.check(1).is_err());
        assert!(RerankSpec { activation: Activation::Sigmoid }.check(2).is_err());
    }

    proptest! {
        #[test]
        fn scores_are_probabilities(mut logits in proptest::collection::vec(-80_f32..80.0, 1..20)) {
            let best_logit = best(&logits).unwrap().0;
            let mut each = logits.clone();
            Activation::Sigmoid.apply(&mut each);
            prop_assert!(each.iter().all(|score| (0.0..=1.0).contains(score)));
            for (logit, score) in logits.iter().zip(&each) {
                let exact = 1.0 / (1.0 + (-f64::from(*logit)).exp());
                prop_assert!((f64::from(*score) - exact).abs() < 1e-6);
            }
            Activation::Softmax.apply(&mut logits);
            let sum: f32 = logits.iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            prop_assert_eq!(best(&logits).unwrap().1, logits[best_logit]);
        }

        #[test]
        fn a_window_has_its_width_and_shows_no_byte_twice_but_as_it_lies(
            file in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let spec = spec();
            let window = spec.window(&file, &file);
            prop_assert_eq!(window.len(), 7);
            prop_assert!(window.iter().all(|number| (0..=256).contains(number)));
        }
    }
}
