//! How relevant texts are to a query: by a model made for that where the release has one, else by the cosine of
//! embeddings.

use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    package::Task,
    worker::message::{Embeddings, ModelInfo, Scoring},
};

use crate::serve::{context::Context, inference, refused::Refused};

/// The tasks of models that can rank, the better first.
pub const TASKS: [Task; 3] = [Task::Rerank, Task::Embedding, Task::Assistant];

/// A text and how relevant it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Its place in the request.
    pub index: usize,
    /// Higher is more relevant.
    pub score: f32,
}

/// The texts, most relevant first, and how many tokens were read.
///
/// # Errors
/// The model refuses.
pub async fn rank(
    context: &Context,
    model: &ModelInfo,
    (query, mut texts): (String, Vec<String>),
    how: (LongText, Scoring),
) -> Result<(Vec<Ranked>, u64), Refused> {
    if texts.is_empty() {
        return Err(Refused::bad("no_texts", "there is no text to rank; send at least one"));
    }
    let (long, _) = how;
    match model.task {
        Task::Rerank => {
            let scores = inference::rerank(context, model, (query, texts), how).await?;
            let relevance = scores.vectors().into_iter().filter_map(|row| row.first().copied());
            Ok((sorted(relevance.collect()), total(&scores.tokens)))
        }
        Task::Embedding | Task::Assistant | Task::Classification | Task::Bytes
            if model.prefixes =>
        {
            let asked = vec![query];
            let asked = inference::embed(context, model, asked, long, InputKind::Query).await?;
            let told = inference::embed(context, model, texts, long, InputKind::Passage).await?;
            let query = asked.vectors().pop().unwrap_or_default();
            let scores = cosines(&query, &told.vectors());
            Ok((sorted(scores), total(&asked.tokens) + total(&told.tokens)))
        }
        Task::Embedding | Task::Assistant | Task::Classification | Task::Bytes => {
            texts.insert(0, query);
            let embeddings =
                inference::embed(context, model, texts, long, InputKind::Plain).await?;
            Ok((sorted(similarities(&embeddings)), total(&embeddings.tokens)))
        }
    }
}

fn total(tokens: &[u32]) -> u64 {
    tokens.iter().copied().map(u64::from).sum()
}

/// The cosines of the first embedding with each of the others, which are unit vectors.
pub fn similarities(embeddings: &Embeddings) -> Vec<f32> {
    let vectors = embeddings.vectors();
    let Some((first, others)) = vectors.split_first() else { return Vec::new() };
    cosines(first, others)
}

fn cosines(one: &[f32], others: &[Vec<f32>]) -> Vec<f32> {
    let dot = |other: &Vec<f32>| one.iter().zip(other).map(|(a, b)| a * b).sum();
    others.iter().map(dot).collect()
}

/// Equal scores keep their order.
fn sorted(scores: Vec<f32>) -> Vec<Ranked> {
    let mut ranked: Vec<Ranked> =
        scores.into_iter().enumerate().map(|(index, score)| Ranked { index, score }).collect();
    ranked.sort_by(|one, other| other.score.total_cmp(&one.score));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_relevant_goes_first_and_equals_keep_their_order() {
        let order: Vec<usize> =
            sorted(vec![0.1, 0.9, 0.1, -0.5, 0.95]).iter().map(|ranked| ranked.index).collect();
        assert_eq!(order, [4, 1, 0, 2, 3]);
    }
}
