//! OpenAI's `/v1/embeddings` and `/v1/models`.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::Request,
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    text_tokenizer::Special,
    worker::message::{Embeddings, ModelInfo},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::serve::{
    body,
    context::Context,
    inference,
    refused::{Dialect, Refused},
    tei::embed::check_dimensions,
};

#[derive(Debug, Deserialize)]
struct EmbeddingsRequest {
    model: String,
    input: Value,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Float,
    Base64,
}

/// What is answered. Typed, since a `Value` would write each f32 with the digits of an f64.
#[derive(Debug, Serialize)]
struct EmbeddingsResponse {
    object: &'static str,
    data: Vec<Row>,
    model: String,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Row {
    object: &'static str,
    index: usize,
    embedding: Numbers,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Numbers {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// `POST /v1/embeddings`.
pub async fn embeddings(State(context): State<Context>, request: Request<Body>) -> Response {
    match embed(&context, request).await {
        Ok(body) => Json(body).into_response(),
        Err(refused) => refused.into_response(Dialect::OpenAi),
    }
}

/// `GET /v1/models`.
pub async fn models(State(context): State<Context>) -> Response {
    match context.models().await {
        Ok(models) => {
            let data: Vec<Value> = models.iter().map(described).collect();
            Json(json!({ "object": "list", "data": data })).into_response()
        }
        Err(refused) => refused.into_response(Dialect::OpenAi),
    }
}

/// `GET /v1/models/{model}`.
pub async fn model(State(context): State<Context>, Path(name): Path<String>) -> Response {
    match context.model(&name).await {
        Ok(model) => Json(described(&model)).into_response(),
        Err(refused) => refused.into_response(Dialect::OpenAi),
    }
}

async fn embed(context: &Context, request: Request<Body>) -> Result<EmbeddingsResponse, Refused> {
    let request: EmbeddingsRequest = body::json(request).await?;
    let encoding = encoding(request.encoding_format.as_deref())?;
    let input = input(request.input)?;
    let model = context.model(&request.model).await?;
    check_dimensions(&model, request.dimensions)?;
    let texts = match input {
        Input::Texts(texts) => texts,
        Input::Tokens(ids) => inference::decode(context, &model, ids, Special::Leave).await?,
    };
    let embeddings =
        inference::embed(context, &model, texts, LongText::Refuse, InputKind::Plain).await?;
    let tokens: u64 = embeddings.tokens.iter().copied().map(u64::from).sum();
    Ok(EmbeddingsResponse {
        object: "list",
        data: rows(&embeddings, encoding),
        model: model.name,
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    })
}

fn encoding(format: Option<&str>) -> Result<Encoding, Refused> {
    match format {
        None | Some("float") => Ok(Encoding::Float),
        Some("base64") => Ok(Encoding::Base64),
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            let message = format!(
                "`encoding_format` is `{}`; it must be `float` or `base64`",
                shown.escape_debug()
            );
            Err(Refused::bad("encoding_format", message))
        }
    }
}

/// What is to be embedded.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Texts(Vec<String>),
    /// Numbers of tokens, of the model's own vocabulary.
    Tokens(Vec<Vec<u32>>),
}

/// The input: a string, or a list of strings, of numbers, or of lists of numbers.
fn input(input: Value) -> Result<Input, Refused> {
    let wrong = |message: &str| Refused::bad("input", message);
    match input {
        Value::String(text) => Ok(Input::Texts(vec![text])),
        Value::Array(items) if items.is_empty() => {
            Err(wrong("`input` is an empty list; send at least one text"))
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let text = |item: &Value| item.as_str().map(str::to_owned);
            Ok(Input::Texts(items.iter().filter_map(text).collect()))
        }
        Value::Array(items) if items.iter().all(Value::is_number) => {
            Ok(Input::Tokens(vec![tokens(0, &items)?]))
        }
        Value::Array(items) if items.iter().all(Value::is_array) => {
            let lists = items.iter().filter_map(Value::as_array).enumerate();
            Ok(Input::Tokens(lists.map(|(at, list)| tokens(at, list)).collect::<Result<_, _>>()?))
        }
        Value::Array(items) => {
            let at = items.iter().position(|item| !item.is_string()).unwrap_or_default();
            Err(wrong(&format!("element {at} of `input` is not a string")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(wrong("`input` must be a string or a list of strings"))
        }
    }
}

fn tokens(at: usize, list: &[Value]) -> Result<Vec<u32>, Refused> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    list.iter().map(id).collect::<Option<Vec<u32>>>().ok_or_else(|| {
        Refused::bad("input", format!("element {at} of `input` holds what is no number of a token"))
    })
}

fn rows(embeddings: &Embeddings, encoding: Encoding) -> Vec<Row> {
    let row = |(index, embedding)| Row { object: "embedding", index, embedding };
    match encoding {
        Encoding::Float => {
            let vectors = embeddings.vectors().into_iter().map(Numbers::Float);
            vectors.enumerate().map(row).collect()
        }
        Encoding::Base64 => {
            let row_bytes = (embeddings.dim as usize).max(1) * size_of::<f32>();
            let texts = embeddings.rows.as_slice().chunks_exact(row_bytes);
            let texts = texts.map(|bytes| Numbers::Base64(BASE64.encode(bytes)));
            texts.enumerate().map(row).collect()
        }
    }
}

fn described(model: &ModelInfo) -> Value {
    json!({ "id": model.name, "object": "model", "created": 0, "owned_by": "socle" })
}

#[cfg(test)]
mod tests {
    use protocol::{blob::Blob, digest::Digest};

    use super::*;

    #[test]
    fn input_is_a_text_or_a_list_of_texts() {
        let texts =
            |texts: &[&str]| Input::Texts(texts.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(input(json!("a")).unwrap(), texts(&["a"]));
        assert_eq!(input(json!(["a", "b"])).unwrap(), texts(&["a", "b"]));
        assert_eq!(input(json!([1, 2])).unwrap(), Input::Tokens(vec![vec![1, 2]]));
        assert_eq!(input(json!([[1], [2]])).unwrap(), Input::Tokens(vec![vec![1], vec![2]]));
        let cases = [
            (json!([]), "empty list"),
            (json!([1, -2]), "element 0 of `input` holds what is no number of a token"),
            (json!([[1], ["a"]]), "element 1"),
            (json!(["a", null]), "element 1"),
            (json!({"text": "a"}), "a string or a list"),
        ];
        for (given, expected) in cases {
            let message = input(given.clone()).unwrap_err().message;
            assert!(message.contains(expected), "{given}: {message}");
        }
    }

    #[test]
    fn both_encodings_hold_the_same_numbers() {
        let numbers = [0.5_f32, -1.25, 3.0, 1e-20];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let embeddings = Embeddings {
            package: Digest::of(b""),
            dim: 2,
            rows: Blob::from(bytes.clone()),
            tokens: vec![3, 4],
            compute_us: 1,
            queue_us: 0,
        };
        let floats = rows(&embeddings, Encoding::Float);
        assert_eq!(floats[1].embedding, Numbers::Float(vec![3.0, 1e-20]));
        let base64 = rows(&embeddings, Encoding::Base64);
        assert_eq!((base64.len(), base64[1].index), (2, 1));
        assert_eq!(base64[1].embedding, Numbers::Base64(BASE64.encode(&bytes[8..])));
    }
}
