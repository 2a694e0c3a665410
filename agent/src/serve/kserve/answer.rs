//! Asking a model with tensors.

use bytes::Bytes;
use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    package::Task,
    worker::message::{BytesInput, FileEnds, ModelInfo, Scores, Scoring, TextInput},
};

use crate::serve::{
    context::Context,
    inference,
    kserve::{
        exchange::{Inference, Input, Output, Values, shown},
        signature::{self, EMBEDDING, FILE, LABEL, QUERY, SCORE, SCORES, TEXT},
    },
    refused::Refused,
};

/// What `model` gives for `request`.
///
/// # Errors
/// A tensor is missing, unknown or repeated, a text is not UTF-8, or the model refuses.
pub async fn infer(
    context: &Context,
    model: &ModelInfo,
    request: Inference,
) -> Result<Vec<Output>, Refused> {
    check_outputs(model, &request.wanted)?;
    let Inference { truncate, inputs, wanted, .. } = request;
    let long = if truncate { LongText::Cut } else { LongText::Refuse };
    let outputs = match model.task {
        Task::Embedding | Task::Assistant => {
            let [texts] = take(model, inputs, [TEXT])?;
            vec![embed(context, model, texts, long).await?]
        }
        Task::Classification => {
            let [texts] = take(model, inputs, [TEXT])?;
            let texts = utf8(TEXT, texts)?.into_iter();
            let inputs = texts.map(|text| TextInput { text, pair: None }).collect();
            let how = (long, Scoring::Scores);
            labelled(inference::classify(context, model, inputs, how).await?)
        }
        Task::Rerank => {
            let [query, texts] = take(model, inputs, [QUERY, TEXT])?;
            let compared = (one(QUERY, utf8(QUERY, query)?)?, utf8(TEXT, texts)?);
            let scores =
                inference::rerank(context, model, compared, (long, Scoring::Scores)).await?;
            let shape = vec![scores.tokens.len()];
            vec![Output { name: SCORE, shape, values: Values::Fp32(scores.rows.into_vec().into()) }]
        }
        Task::Bytes => {
            let [files] = take(model, inputs, [FILE])?;
            let whole = |bytes: Bytes| FileEnds { head: Vec::from(bytes).into(), tail: None };
            let files = BytesInput::Files(files.into_iter().map(whole).collect());
            labelled(inference::bytes(context, model, files).await?)
        }
    };
    Ok(outputs
        .into_iter()
        .filter(|output| wanted.is_empty() || wanted.iter().any(|name| name == output.name))
        .collect())
}

/// The label of each input where one holds, and the scores of all.
fn labelled(scores: Scores) -> Vec<Output> {
    let Scores { columns, rows, labels, tokens, .. } = scores;
    let labels: Vec<String> = labels.into_iter().map(Option::unwrap_or_default).collect();
    let shape = vec![tokens.len(), columns as usize];
    vec![
        Output { name: LABEL, shape: vec![labels.len()], values: Values::Bytes(labels) },
        Output { name: SCORES, shape, values: Values::Fp32(rows.into_vec().into()) },
    ]
}

/// The one element of input `name`.
fn one(name: &str, mut elements: Vec<String>) -> Result<String, Refused> {
    match (elements.pop(), elements.is_empty()) {
        (Some(element), true) => Ok(element),
        (_, _) => Err(Refused::bad("shape", format!("input `{name}` must have one element"))),
    }
}

async fn embed(
    context: &Context,
    model: &ModelInfo,
    texts: Vec<Bytes>,
    long: LongText,
) -> Result<Output, Refused> {
    let embeddings =
        inference::embed(context, model, utf8(TEXT, texts)?, long, InputKind::Plain).await?;
    Ok(Output {
        name: EMBEDDING,
        shape: vec![embeddings.tokens.len(), embeddings.dim as usize],
        values: Values::Fp32(embeddings.rows.into_vec().into()),
    })
}

/// The elements of the inputs called `names`, each of which must be there once, and no other.
fn take<const N: usize>(
    model: &ModelInfo,
    inputs: Vec<Input>,
    names: [&str; N],
) -> Result<[Vec<Bytes>; N], Refused> {
    let takes = || signature::described(&signature::inputs(model));
    let mut found: [Option<Vec<Bytes>>; N] = std::array::from_fn(|_| None);
    for input in inputs {
        let Some(place) =
            names.iter().position(|name| *name == input.name).and_then(|at| found.get_mut(at))
        else {
            let message = format!(
                "model `{}` has no input `{}`; it takes {}",
                model.name,
                shown(&input.name),
                takes()
            );
            return Err(Refused::bad("unknown_input", message));
        };
        if place.replace(input.elements).is_some() {
            let message = format!("input `{}` is there more than once", input.name);
            return Err(Refused::bad("repeated_input", message));
        }
    }
    let missing =
        names.iter().zip(&found).find_map(|(name, elements)| elements.is_none().then_some(name));
    match missing {
        None => Ok(found.map(Option::unwrap_or_default)),
        Some(name) => {
            let message = format!(
                "the request has no input `{name}`; model `{}` takes {}",
                model.name,
                takes()
            );
            Err(Refused::bad("no_input", message))
        }
    }
}

fn check_outputs(model: &ModelInfo, wanted: &[String]) -> Result<(), Refused> {
    let outputs = signature::outputs(model);
    let Some(unknown) = wanted.iter().find(|name| outputs.iter().all(|port| port.name != **name))
    else {
        return Ok(());
    };
    let message = format!(
        "model `{}` has no output `{}`; it gives {}",
        model.name,
        shown(unknown),
        signature::described(&outputs)
    );
    Err(Refused::bad("unknown_output", message))
}

/// The texts of input `name`.
fn utf8(name: &str, elements: Vec<Bytes>) -> Result<Vec<String>, Refused> {
    let texts = elements.into_iter().enumerate().map(|(at, bytes)| {
        String::from_utf8(bytes.into()).map_err(|reason| {
            let end = reason.utf8_error().valid_up_to();
            let message = format!("element {at} of input `{name}` is not UTF-8 after byte {end}");
            Refused::bad("not_utf8", message)
        })
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use engine::{encoder_spec::Pooling, worker::message::ModelState};
    use protocol::digest::Digest;

    use super::*;

    fn model() -> ModelInfo {
        ModelInfo {
            name: "m".into(),
            version: "1".into(),
            task: Task::Embedding,
            dim: 384,
            digest: Digest::of(b""),
            text_bytes_max: 100,
            batch_max: 8,
            state: ModelState::Loaded,
            newest: true,
            preload: true,
            tokens_max: 256,
            pooling: Pooling::Mean,
            prefixes: false,
            labels: vec![],
            licence: "Apache-2.0".into(),
            weights: None,
        }
    }

    fn input(name: &str) -> Input {
        Input { name: name.into(), elements: vec![Bytes::from_static(b"a")] }
    }

    #[test]
    fn what_is_missing_unknown_or_too_much_is_named() {
        let cases = [
            (vec![], "no input `text`; model `m` takes `text` (BYTES, shape [n])"),
            (vec![input("text"), input("text")], "input `text` is there more than once"),
            (vec![input("tokens")], "model `m` has no input `tokens`; it takes `text`"),
        ];
        for (inputs, expected) in cases {
            let message = take(&model(), inputs, [TEXT]).unwrap_err().message;
            assert!(message.contains(expected), "{message} does not say {expected}");
        }
        let message = check_outputs(&model(), &["logits".into()]).unwrap_err().message;
        assert!(
            message.contains("no output `logits`; it gives `embedding` (FP32, shape [n, 384])"),
            "{message}"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_named() {
        let elements = vec![Bytes::from_static(b"a"), Bytes::from_static(b"ab\xff")];
        let message = utf8("text", elements).unwrap_err().message;
        assert_eq!(message, "element 1 of input `text` is not UTF-8 after byte 2");
    }
}
