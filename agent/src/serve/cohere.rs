//! Cohere's `/v1/rerank` and `/v2/rerank`.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::Request,
    response::{IntoResponse as _, Response},
};
use engine::{embedder::LongText, worker::message::Scoring};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::serve::{
    body,
    context::Context,
    ranking::{self, Ranked},
    refused::{Dialect, Refused},
};

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Gives documents back when asked to.
    One,
    /// Never does.
    Two,
}

#[derive(Debug, Deserialize)]
struct RerankRequest {
    #[serde(default)]
    model: Option<String>,
    query: String,
    documents: Vec<Document>,
    #[serde(default)]
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: bool,
    #[serde(default)]
    rank_fields: Vec<String>,
}

/// A text, or an object whose `text`, or the fields that are asked for, is ranked.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Document {
    Text(String),
    Object(Map<String, Value>),
}

#[derive(Debug, Serialize)]
struct RerankResponse {
    id: String,
    results: Vec<RankedDocument>,
    meta: Meta,
}

#[derive(Debug, Serialize)]
struct RankedDocument {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Meta {
    api_version: ApiVersion,
    billed_units: Units,
    tokens: Tokens,
}

#[derive(Debug, Serialize)]
struct ApiVersion {
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Units {
    search_units: u32,
}

#[derive(Debug, Serialize)]
struct Tokens {
    input_tokens: u64,
}

/// `POST /v1/rerank`.
pub async fn rerank_v1(State(context): State<Context>, request: Request<Body>) -> Response {
    read(&context, request, Version::One).await
}

/// `POST /v2/rerank`.
pub async fn rerank_v2(State(context): State<Context>, request: Request<Body>) -> Response {
    read(&context, request, Version::Two).await
}

async fn read(context: &Context, request: Request<Body>, version: Version) -> Response {
    match body::bytes(request).await {
        Ok(body) => answer(context, &body, version).await,
        Err(refused) => refused.into_response(Dialect::Cohere),
    }
}

/// The answer to a request with this body.
pub async fn answer(context: &Context, body: &[u8], version: Version) -> Response {
    match rank(context, body, version).await {
        Ok(response) => Json(response).into_response(),
        Err(refused) => refused.into_response(Dialect::Cohere),
    }
}

async fn rank(context: &Context, body: &[u8], version: Version) -> Result<RerankResponse, Refused> {
    let asked: RerankRequest = body::parse(body)?;
    let model = context.model_for(asked.model.as_deref(), &ranking::TASKS).await?;
    let texts = asked
        .documents
        .iter()
        .enumerate()
        .map(|(at, document)| document.text(at, &asked.rank_fields))
        .collect::<Result<Vec<_>, _>>()?;
    let most = asked.top_n.unwrap_or(texts.len());
    // That server cuts long documents rather than refuse them, and its clients rely on it.
    let how = (LongText::Cut, Scoring::Scores);
    let (ranked, input_tokens) = ranking::rank(context, &model, (asked.query, texts), how).await?;
    let give = asked.return_documents && version == Version::One;
    let result = |ranked: Ranked| RankedDocument {
        index: ranked.index,
        relevance_score: ranked.score,
        document: give.then(|| asked.documents.get(ranked.index).map(Document::given)).flatten(),
    };
    let version = match version {
        Version::One => "1",
        Version::Two => "2",
    };
    Ok(RerankResponse {
        id: format!("{:032x}", fastrand::u128(..)),
        results: ranked.into_iter().take(most).map(result).collect(),
        meta: Meta {
            api_version: ApiVersion { version },
            billed_units: Units { search_units: 1 },
            tokens: Tokens { input_tokens },
        },
    })
}

impl Document {
    fn text(&self, at: usize, fields: &[String]) -> Result<String, Refused> {
        let missing = |field: &str| {
            let shown: String = field.chars().take(80).collect();
            let message = format!("document {at} has no text `{}`", shown.escape_debug());
            Refused::bad("document", message)
        };
        let object = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::Object(object) => object,
        };
        let field =
            |name: &str| object.get(name).and_then(Value::as_str).ok_or_else(|| missing(name));
        if fields.is_empty() {
            return field("text").map(str::to_owned);
        }
        let texts = fields.iter().map(|name| field(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(texts.join("\n"))
    }

    fn given(&self) -> Value {
        match self {
            Self::Text(text) => serde_json::json!({ "text": text }),
            Self::Object(object) => Value::Object(object.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(document: Value, fields: &[&str]) -> Result<String, String> {
        let document: Document = serde_json::from_value(document).unwrap();
        let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
        document.text(3, &fields).map_err(|refused| refused.message)
    }

    #[test]
    fn a_document_is_a_text_or_holds_one() {
        assert_eq!(text(json!("a"), &[]).unwrap(), "a");
        assert_eq!(text(json!({"text": "a", "n": 1}), &[]).unwrap(), "a");
        assert_eq!(text(json!({"t": "a", "b": "c"}), &["t", "b"]).unwrap(), "a\nc");
        assert_eq!(text(json!({"t": "a"}), &[]).unwrap_err(), "document 3 has no text `text`");
        assert_eq!(text(json!({"t": 1}), &["t"]).unwrap_err(), "document 3 has no text `t`");
    }
}
