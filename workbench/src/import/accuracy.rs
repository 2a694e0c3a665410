//! What a step costs: the vectors of the same texts before and after it.

use std::num::NonZeroUsize;

use engine::{
    encoder::{EncodeError, Encoder as Engine, LoadError},
    encoder_spec::{EncoderSpec, Prefixes},
    pooling,
    sequence::Sequence,
    text_tokenizer::{TextError, TextTokenizer, TokenizerError},
};
use serde::Serialize;

/// Most nodes of a graph that this import wrote.
const NODES_MAX: usize = 20_000;
const TEXT_BYTES_MAX: usize = 1 << 20;

/// How near vectors stayed to those they are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// Texts.
    pub texts: usize,
    /// Mean cosine between the two vectors of a text.
    pub mean_cosine: f64,
    /// The least of them.
    pub least_cosine: f32,
    /// Share of the texts that have the same other text nearest to them: 0 to 1.
    pub same_nearest: f64,
    /// Largest difference between two numbers of the same place.
    pub largest_difference: f32,
}

/// Why a comparison cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AccuracyError {
    /// The tokenizer.
    #[error("loading the tokenizer for the comparison")]
    Tokenizer(#[from] TokenizerError),
    /// A text.
    #[error("reading the text `{text}`")]
    Text {
        /// The text.
        text: String,
        /// Why.
        source: TextError,
    },
    /// The model.
    #[error("loading the model for the comparison")]
    Load(#[from] LoadError),
    /// Running it.
    #[error("running the model on the text `{text}`")]
    Run {
        /// The text.
        text: String,
        /// Why.
        source: EncodeError,
    },
}

/// The ids of each of `texts` as queries, at most `tokens_max` long.
pub fn tokens(
    tokenizer_json: &[u8],
    prefixes: &Prefixes,
    texts: &[String],
    tokens_max: u32,
) -> Result<Vec<Vec<u32>>, AccuracyError> {
    let tokenizer = TextTokenizer::from_json(tokenizer_json, TEXT_BYTES_MAX, tokens_max as usize)?;
    texts
        .iter()
        .map(|text| match tokenizer.tokens(&prefixes.query, text) {
            Ok(sequence) => Ok(sequence.ids),
            Err(source) => Err(AccuracyError::Text { text: text.clone(), source }),
        })
        .collect()
}

/// The vectors that the graph in `onnx` gives for `sequences`, which are the ids of `texts`. `progress` is called with
/// (done, all) after each.
pub fn vectors(
    onnx: &[u8],
    spec: &EncoderSpec,
    (texts, sequences): (&[String], &[Vec<u32>]),
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Vec<f32>>, AccuracyError> {
    let engine = Engine::load(onnx, NODES_MAX, spec, NonZeroUsize::MIN)?;
    texts
        .iter()
        .zip(sequences)
        .enumerate()
        .map(|(at, (text, ids))| {
            let vector = engine.encode(Sequence::single(ids));
            progress(at + 1, texts.len());
            vector.map_err(|source| AccuracyError::Run { text: text.clone(), source })
        })
        .collect()
}

/// How near `after` stayed to `before`.
pub fn compare(before: &[Vec<f32>], after: &[Vec<f32>]) -> Comparison {
    let cosines = before.iter().zip(after).map(|(before, after)| pooling::cosine(before, after));
    let cosines: Vec<f32> = cosines.collect();
    let texts = cosines.len().max(1) as f64;
    let same = (0..cosines.len()).filter(|at| nearest(before, *at) == nearest(after, *at)).count();
    let numbers = before.iter().flatten().zip(after.iter().flatten());
    Comparison {
        texts: cosines.len(),
        mean_cosine: cosines.iter().copied().map(f64::from).sum::<f64>() / texts,
        least_cosine: cosines.iter().copied().fold(1.0, f32::min),
        same_nearest: same as f64 / texts,
        largest_difference: numbers.fold(0.0, |most, (a, b)| most.max((a - b).abs())),
    }
}

/// The vector nearest to the one at `of`, itself left out.
fn nearest(vectors: &[Vec<f32>], of: usize) -> Option<usize> {
    let this = vectors.get(of)?;
    let others = vectors.iter().enumerate().filter(|(at, _)| *at != of);
    let scored = others.map(|(at, other)| (at, pooling::cosine(this, other)));
    scored.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_says_how_far_and_whose_neighbour() {
        let before = vec![vec![1.0, 0.0], vec![0.8, 0.6], vec![0.0, 1.0]];
        let same = compare(&before, &before);
        assert!(same.mean_cosine > 0.999_999 && same.least_cosine > 0.999_999);
        assert_eq!((same.same_nearest, same.largest_difference, same.texts), (1.0, 0.0, 3));
        let turned = vec![vec![1.0, 0.0], vec![0.6, 0.8], vec![0.0, 1.0]];
        let turned = compare(&before, &turned);
        assert!((turned.least_cosine - 0.96).abs() < 1e-6, "{turned:?}");
        assert!((turned.same_nearest - 2.0 / 3.0).abs() < 1e-9, "{turned:?}");
        assert!((turned.largest_difference - 0.2).abs() < 1e-6, "{turned:?}");
    }
}
