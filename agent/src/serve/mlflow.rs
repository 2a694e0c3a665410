//! The scoring server's routes of MLflow: `/ping`, `/version`, `/invocations`.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use engine::{embedder::LongText, encoder_spec::InputKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::serve::{
    body,
    context::Context,
    inference,
    refused::{Dialect, Refused},
    tei::embed::TASKS,
};

/// Columns that hold the texts where a table has several.
const COLUMNS: [&str; 4] = ["text", "texts", "input", "inputs"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invocation {
    #[serde(default)]
    dataframe_split: Option<Split>,
    #[serde(default)]
    dataframe_records: Option<Vec<Map<String, Value>>>,
    #[serde(default)]
    instances: Option<Value>,
    #[serde(default)]
    inputs: Option<Value>,
    #[serde(default)]
    params: Option<Params>,
    /// Of TensorFlow's serving, which sends `instances` too; there is one signature here.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without effect")]
    signature_name: Option<String>,
}

/// A table by its columns' names and its rows.
#[derive(Debug, Deserialize)]
struct Split {
    columns: Vec<Value>,
    data: Vec<Vec<Value>>,
}

#[derive(Debug, Default, Deserialize)]
struct Params {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    truncate: bool,
}

#[derive(Debug, Serialize)]
struct Predictions {
    predictions: Vec<Vec<f32>>,
}

/// `GET /ping`: models can be asked.
pub async fn ping(State(context): State<Context>) -> Response {
    match context.status.look(|snapshot| snapshot.not_ready()) {
        None => "\n".into_response(),
        Some(reason) => Refused::unavailable("not_ready", reason).into_response(Dialect::Mlflow),
    }
}

/// `GET /version`: of this agent.
pub async fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// `POST /invocations`.
pub async fn invocations(State(context): State<Context>, request: Request<Body>) -> Response {
    match predict(&context, request).await {
        Ok(predictions) => Json(predictions).into_response(),
        Err(refused) => refused.into_response(Dialect::Mlflow),
    }
}

async fn predict(context: &Context, request: Request<Body>) -> Result<Predictions, Refused> {
    json_alone(request.headers())?;
    let asked: Invocation = body::json(request).await?;
    let params = asked.params.as_ref();
    let long = match params {
        Some(Params { truncate: true, .. }) => LongText::Cut,
        Some(_) | None => LongText::Refuse,
    };
    let model = params.and_then(|params| params.model.clone());
    let texts = asked.texts()?;
    let model = context.model_for(model.as_deref(), &TASKS).await?;
    let embeddings = inference::embed(context, &model, texts, long, InputKind::Plain).await?;
    Ok(Predictions { predictions: embeddings.vectors() })
}

fn json_alone(headers: &HeaderMap) -> Result<(), Refused> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match kind.map(|kind| kind.split(';').next().unwrap_or_default().trim()) {
        Some("application/json") => Ok(()),
        // A browser that was told the password sends it along by itself, but not with JSON and from another site.
        other => {
            let other = other.unwrap_or_default();
            let shown: String = other.chars().take(80).collect();
            let message = format!(
                "content type `{}` is not read here; send application/json",
                shown.escape_debug()
            );
            Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message))
        }
    }
}

impl Invocation {
    /// The texts of the one form that is used.
    fn texts(self) -> Result<Vec<String>, Refused> {
        let Self { dataframe_split, dataframe_records, instances, inputs, .. } = self;
        match (dataframe_split, dataframe_records, instances.or(inputs)) {
            (Some(table), None, None) => table.texts(),
            (None, Some(records), None) => {
                records.into_iter().enumerate().map(|(at, record)| of_record(at, record)).collect()
            }
            (None, None, Some(tensor)) => of_tensor(tensor),
            (_, _, _) => Err(Refused::bad(
                "inputs",
                "send one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`",
            )),
        }
    }
}

impl Split {
    fn texts(self) -> Result<Vec<String>, Refused> {
        let names: Vec<&str> =
            self.columns.iter().map(|name| name.as_str().unwrap_or("")).collect();
        let column = column(&names)?;
        let rows = self.data.into_iter().enumerate();
        rows.map(|(at, mut row)| {
            let value = if column < row.len() { row.swap_remove(column) } else { Value::Null };
            of_value(at, value)
        })
        .collect()
    }
}

/// Which of the columns holds the texts.
fn column(names: &[&str]) -> Result<usize, Refused> {
    if names.len() == 1 {
        return Ok(0);
    }
    names.iter().position(|name| COLUMNS.contains(name)).ok_or_else(|| {
        let message = format!(
            "which of the {} columns holds the texts? Name it `{}`, or send it alone",
            names.len(),
            COLUMNS[0]
        );
        Refused::bad("columns", message)
    })
}

fn of_record(at: usize, mut record: Map<String, Value>) -> Result<String, Refused> {
    let names: Vec<&str> = record.keys().map(String::as_str).collect();
    let name = names.get(column(&names)?).map(|name| (*name).to_owned()).unwrap_or_default();
    of_value(at, record.remove(&name).unwrap_or(Value::Null))
}

/// A list of texts, of lists of one text, or of records; or columns by name.
fn of_tensor(tensor: Value) -> Result<Vec<String>, Refused> {
    match tensor {
        Value::String(text) => Ok(vec![text]),
        Value::Array(items) => {
            let items = items.into_iter().enumerate();
            items
                .map(|(at, item)| match item {
                    Value::Object(record) => of_record(at, record),
                    Value::Array(mut row) if row.len() == 1 => {
                        of_value(at, row.pop().unwrap_or(Value::Null))
                    }
                    Value::Null
                    | Value::Bool(_)
                    | Value::Number(_)
                    | Value::String(_)
                    | Value::Array(_) => of_value(at, item),
                })
                .collect()
        }
        Value::Object(mut columns) => {
            let names: Vec<&str> = columns.keys().map(String::as_str).collect();
            let name =
                names.get(column(&names)?).map(|name| (*name).to_owned()).unwrap_or_default();
            match columns.remove(&name) {
                Some(values @ (Value::Array(_) | Value::String(_))) => of_tensor(values),
                Some(_) | None => Err(not_a_text(0)),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Err(not_a_text(0)),
    }
}

fn of_value(at: usize, value: Value) -> Result<String, Refused> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(not_a_text(at))
        }
    }
}

fn not_a_text(at: usize) -> Refused {
    Refused::bad("inputs", format!("row {at} is not a text"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(invocation: Value) -> Result<Vec<String>, String> {
        let invocation: Invocation = serde_json::from_value(invocation).unwrap();
        invocation.texts().map_err(|refused| refused.message)
    }

    #[test]
    fn every_form_of_the_protocol_gives_the_same_texts() {
        for form in [
            json!({"dataframe_split": {"columns": ["anything"], "data": [["a"], ["b"]]}}),
            json!({"dataframe_split": {"columns": ["id", "text"], "index": [0, 1], "data": [[1, "a"], [2, "b"]]}}),
            json!({"dataframe_records": [{"text": "a", "id": 1}, {"text": "b", "id": 2}]}),
            json!({"instances": ["a", "b"]}),
            json!({"instances": [{"text": "a"}, {"text": "b"}]}),
            json!({"inputs": [["a"], ["b"]]}),
            json!({"inputs": {"text": ["a", "b"]}, "params": {"truncate": true}}),
        ] {
            assert_eq!(texts(form.clone()).unwrap(), ["a", "b"], "{form}");
        }
    }

    #[test]
    fn what_holds_no_texts_is_named() {
        for (form, expected) in [
            (json!({}), "send one of"),
            (json!({"instances": ["a"], "dataframe_records": []}), "send one of"),
            (json!({"instances": ["a", 7]}), "row 1 is not a text"),
            (
                json!({"dataframe_split": {"columns": ["a", "b"], "data": []}}),
                "which of the 2 columns",
            ),
            (json!({"dataframe_split": {"columns": ["a"], "data": [[]]}}), "row 0 is not a text"),
        ] {
            let message = texts(form.clone()).unwrap_err();
            assert!(message.contains(expected), "{form}: {message}");
        }
    }
}
