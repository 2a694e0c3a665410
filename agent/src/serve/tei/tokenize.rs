//! `/tokenize` and `/decode`: texts as the model's tokens, and back.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::Request,
    response::{IntoResponse as _, Response},
};
use engine::{
    package::Task,
    text_tokenizer::{Special, Tokens},
};
use serde::{Deserialize, Serialize};

use crate::serve::{
    body,
    context::Context,
    inference,
    refused::{Dialect, Refused},
    texts::Texts,
};

/// The tasks of models that read texts.
const TASKS: [Task; 4] = [Task::Embedding, Task::Assistant, Task::Classification, Task::Rerank];

#[derive(Debug, Deserialize)]
struct TokenizeRequest {
    inputs: Texts,
    #[serde(default)]
    add_special_tokens: Option<bool>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DecodeRequest {
    ids: Ids,
    #[serde(default)]
    skip_special_tokens: Option<bool>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(Vec<u32>),
    Several(Vec<Vec<u32>>),
}

/// A token. `start` and `stop` count characters of the text; none where the model added it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Token {
    id: u32,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

/// `POST /tokenize`.
pub async fn tokenize(State(context): State<Context>, request: Request<Body>) -> Response {
    match tokens(&context, request).await {
        Ok(tokens) => Json(tokens).into_response(),
        Err(refused) => refused.into_response(Dialect::Tei),
    }
}

/// `POST /decode`.
pub async fn decode(State(context): State<Context>, request: Request<Body>) -> Response {
    match texts(&context, request).await {
        Ok(texts) => Json(texts).into_response(),
        Err(refused) => refused.into_response(Dialect::Tei),
    }
}

async fn tokens(context: &Context, request: Request<Body>) -> Result<Vec<Vec<Token>>, Refused> {
    let asked: TokenizeRequest = body::json(request).await?;
    let model = context.model_for(asked.model.as_deref(), &TASKS).await?;
    let special =
        if asked.add_special_tokens == Some(false) { Special::Leave } else { Special::Keep };
    let texts = asked.inputs.into_vec();
    let read = inference::tokenize(context, &model, texts.clone(), special).await?;
    Ok(texts.iter().zip(read).map(|(text, tokens)| described(text, tokens)).collect())
}

async fn texts(context: &Context, request: Request<Body>) -> Result<Vec<String>, Refused> {
    let asked: DecodeRequest = body::json(request).await?;
    let model = context.model_for(asked.model.as_deref(), &TASKS).await?;
    let special =
        if asked.skip_special_tokens == Some(false) { Special::Keep } else { Special::Leave };
    let ids = match asked.ids {
        Ids::One(ids) => vec![ids],
        Ids::Several(all) => all,
    };
    inference::decode(context, &model, ids, special).await
}

fn described(text: &str, tokens: Tokens) -> Vec<Token> {
    let Tokens { ids, tokens, offsets, special } = tokens;
    let characters = |bytes: u32| {
        text.get(..bytes as usize).map_or_else(|| text.chars().count(), |part| part.chars().count())
    };
    ids.into_iter()
        .zip(tokens)
        .zip(offsets.into_iter().zip(special))
        .map(|((id, piece), ((start, stop), special))| {
            let special = special != 0;
            let place = |bytes| (!special).then(|| characters(bytes));
            Token { id, text: piece, special, start: place(start), stop: place(stop) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters() {
        let tokens = Tokens {
            ids: vec![0, 7, 8],
            tokens: vec!["<s>".into(), "où".into(), "est".into()],
            offsets: vec![(0, 0), (0, 3), (4, 7)],
            special: vec![1, 0, 0],
        };
        let places: Vec<_> = described("où est", tokens)
            .iter()
            .map(|token| (token.special, token.start, token.stop))
            .collect();
        let expected = [(true, None, None), (false, Some(0), Some(2)), (false, Some(3), Some(6))];
        assert_eq!(places, expected);
    }
}
