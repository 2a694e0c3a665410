//! `/predict`: a score for each label of a classifier.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::Request,
    response::{IntoResponse as _, Response},
};
use engine::{
    package::Task,
    worker::message::{ModelInfo, Scores, Scoring, TextInput},
};
use serde::{Deserialize, Serialize};

use crate::serve::{
    body,
    context::Context,
    inference,
    refused::{Dialect, Refused},
    tei::embed,
};

#[derive(Debug, Deserialize)]
struct PredictRequest {
    inputs: Inputs,
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Option<String>,
    #[serde(default)]
    raw_scores: bool,
    #[serde(default)]
    model: Option<String>,
}

/// A text; a text or a pair of texts; several of either.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Inputs {
    Text(String),
    One(Vec<String>),
    Several(Vec<Vec<String>>),
}

/// A label and its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Prediction {
    score: f32,
    label: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Predictions {
    One(Vec<Prediction>),
    Several(Vec<Vec<Prediction>>),
}

/// `POST /predict`.
pub async fn predict(State(context): State<Context>, request: Request<Body>) -> Response {
    match predictions(&context, request).await {
        Ok(predictions) => Json(predictions).into_response(),
        Err(refused) => refused.into_response(Dialect::Tei),
    }
}

async fn predictions(context: &Context, request: Request<Body>) -> Result<Predictions, Refused> {
    let asked: PredictRequest = body::json(request).await?;
    let long = embed::long(asked.truncate, asked.truncation_direction.as_deref())?;
    let scoring = if asked.raw_scores { Scoring::Logits } else { Scoring::Scores };
    let model = context.model_for(asked.model.as_deref(), &[Task::Classification]).await?;
    let (inputs, several) = asked.inputs.read()?;
    let scores = inference::classify(context, &model, inputs, (long, scoring)).await?;
    let mut all = labelled(&model, &scores);
    match (several, all.pop()) {
        (false, Some(one)) => Ok(Predictions::One(one)),
        (true, Some(last)) => {
            all.push(last);
            Ok(Predictions::Several(all))
        }
        (_, None) => Err(Refused::internal("a classifier gave no scores")),
    }
}

impl Inputs {
    /// The texts, and whether they were sent as several.
    fn read(self) -> Result<(Vec<TextInput>, bool), Refused> {
        match self {
            Self::Text(text) => Ok((vec![TextInput { text, pair: None }], false)),
            Self::One(texts) => Ok((vec![input(0, texts)?], false)),
            Self::Several(all) => {
                let inputs = all.into_iter().enumerate();
                Ok((inputs.map(|(at, texts)| input(at, texts)).collect::<Result<_, _>>()?, true))
            }
        }
    }
}

fn input(at: usize, texts: Vec<String>) -> Result<TextInput, Refused> {
    let count = texts.len();
    let mut texts = texts.into_iter();
    match (texts.next(), texts.next(), texts.next()) {
        (Some(text), pair, None) => Ok(TextInput { text, pair }),
        (_, _, _) => {
            let message = format!(
                "input {at} has {count} texts; it must be a text or a pair. Send several as [[\"one\"], [\"another\"]]"
            );
            Err(Refused::bad("inputs", message))
        }
    }
}

/// The labels of each input with their scores, the best first.
fn labelled(model: &ModelInfo, scores: &Scores) -> Vec<Vec<Prediction>> {
    let one = |row: Vec<f32>| {
        let mut row: Vec<Prediction> = row
            .into_iter()
            .zip(&model.labels)
            .map(|(score, label)| Prediction { score, label: label.clone() })
            .collect();
        row.sort_by(|one, other| other.score.total_cmp(&one.score));
        row
    };
    scores.vectors().into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    type Pairs = Vec<(String, Option<String>)>;

    fn read(inputs: Value) -> Result<(Pairs, bool), String> {
        let inputs: Inputs = serde_json::from_value(inputs).unwrap();
        let (inputs, several) = inputs.read().map_err(|refused| refused.message)?;
        Ok((inputs.into_iter().map(|input| (input.text, input.pair)).collect(), several))
    }

    #[test]
    fn texts_and_pairs_are_told_apart() {
        let (a, b) = ("a".to_owned(), "b".to_owned());
        assert_eq!(read(json!("a")).unwrap(), (vec![(a.clone(), None)], false));
        assert_eq!(read(json!(["a", "b"])).unwrap(), (vec![(a.clone(), Some(b.clone()))], false));
        let several = (vec![(a.clone(), None), (a, Some(b))], true);
        assert_eq!(read(json!([["a"], ["a", "b"]])).unwrap(), several);
        assert!(read(json!([["a"], ["a", "b", "c"]])).unwrap_err().contains("input 1 has 3 texts"));
        assert!(read(json!([["a"], []])).unwrap_err().contains("input 1 has 0 texts"));
    }
}
