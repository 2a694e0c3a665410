//! The dialects of text-embeddings-inference, Cohere, MLflow and OpenAI: the same answers, each in its own form.

use serde_json::{Value, json};

use crate::{
    fixture::{Gateway, MODEL, TOKEN},
    http::{self, Response},
};

const TEXTS: [&str; 2] = ["How do I reset my password?", "Où est l'imprimante ?"];

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn score(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

/// As MLflow's clients send it.
fn invoke(gateway: &Gateway, body: &Value) -> Response {
    let headers = ["Content-Type: application/json"];
    let body = body.to_string();
    let mut stream = http::connect(gateway.address);
    http::send_with(&mut stream, "POST /invocations", Some(TOKEN), &headers, body.as_bytes())
}

#[test]
fn every_dialect_gives_the_same_vectors() {
    let gateway = Gateway::with_model();
    let openai = gateway.post("/v1/embeddings", &json!({"model": MODEL, "input": TEXTS})).json();
    let expected: Vec<Vec<f32>> =
        (0..2).map(|at| numbers(&openai["data"][at]["embedding"])).collect();
    let check = |what: &str, rows: &Value| {
        let rows: Vec<Vec<f32>> = rows.as_array().unwrap().iter().map(numbers).collect();
        assert!(rows == expected, "{what} differs");
    };
    check("/embed", &gateway.post("/embed", &json!({"inputs": TEXTS})).json());
    check("/", &gateway.post("/", &json!({"inputs": TEXTS, "normalize": true})).json());
    let table = json!({"dataframe_split": {"columns": ["text"], "data": [[TEXTS[0]], [TEXTS[1]]]}});
    check("/invocations", &invoke(&gateway, &table).json()["predictions"]);
    assert_eq!(gateway.context.tally.answered(), 4, "all of them count in a probation");
}

#[test]
fn tokens_go_there_and_back() {
    let gateway = Gateway::with_model();
    let tokens = gateway.post("/tokenize", &json!({"inputs": "How do I"})).json();
    let tokens = tokens[0].as_array().unwrap();
    assert!(tokens[0]["special"] == true && tokens[0]["start"].is_null(), "{tokens:?}");
    assert_eq!((&tokens[1]["start"], &tokens[1]["stop"]), (&json!(0), &json!(3)));
    let ids: Vec<&Value> = tokens.iter().map(|token| &token["id"]).collect();
    let texts = gateway.post("/decode", &json!({"ids": ids})).json();
    assert_eq!(texts, json!(["how do i"]));
    let bare = json!({"inputs": ["How do I"], "add_special_tokens": false});
    let bare = gateway.post("/tokenize", &bare).json();
    assert_eq!(bare[0].as_array().unwrap().len(), tokens.len() - 2);

    let inner: Vec<&Value> = ids[1..ids.len() - 1].to_vec();
    let by_tokens = gateway.post("/v1/embeddings", &json!({"model": MODEL, "input": inner}));
    let by_text = gateway.post("/v1/embeddings", &json!({"model": MODEL, "input": "how do i"}));
    assert_eq!(by_tokens.json()["data"], by_text.json()["data"]);
}

#[test]
fn texts_are_ranked_alike_in_both_forms_of_the_request() {
    let gateway = Gateway::with_model();
    let query = "I forgot my password";
    let texts = ["The cafeteria opens at noon.", TEXTS[0], "Parking is on level two."];
    let tei = json!({"query": query, "texts": texts, "return_text": true});
    let tei = gateway.post("/rerank", &tei).json();
    assert_eq!((&tei[0]["index"], &tei[0]["text"]), (&json!(1), &json!(TEXTS[0])));
    let best = score(&tei[0]["score"]);
    assert!(best > score(&tei[1]["score"]), "{tei}");

    let cohere = json!({"query": query, "documents": texts, "top_n": 1, "return_documents": true});
    for path in ["/rerank", "/v1/rerank", "/v2/rerank"] {
        let answer = gateway.post(path, &cohere).json();
        assert_eq!(answer["results"].as_array().unwrap().len(), 1, "{path}: {answer}");
        let result = &answer["results"][0];
        assert_eq!((&result["index"], score(&result["relevance_score"])), (&json!(1), best));
        let document = if path == "/v2/rerank" { Value::Null } else { json!({"text": TEXTS[0]}) };
        assert_eq!(result["document"], document, "{path}");
    }
    let body = json!({"inputs": {"source_sentence": query, "sentences": texts}});
    let similar = numbers(&gateway.post("/similarity", &body).json());
    assert!((similar[1] - best).abs() < 1e-6, "{similar:?}");
}

#[test]
fn errors_have_the_form_that_each_dialects_clients_read() {
    let gateway = Gateway::with_model();
    let tei = gateway.post("/embed", &json!({"inputs": "", "model": MODEL}));
    assert_eq!((tei.status, &tei.json()["error_type"]), (400, &json!("Validation")));
    assert!(tei.message().contains("empty"), "{}", tei.message());
    let cohere =
        gateway.post("/v2/rerank", &json!({"model": "gpt", "query": "a", "documents": ["b"]}));
    assert_eq!(cohere.status, 404);
    assert!(cohere.json()["message"].as_str().unwrap().contains("no model `gpt`"));
    let mlflow = invoke(&gateway, &json!({"instances": [7]}));
    assert_eq!(
        (mlflow.status, &mlflow.json()["error_code"]),
        (400, &json!("INVALID_PARAMETER_VALUE"))
    );
    let wrong_task = gateway.post("/predict", &json!({"inputs": "a"}));
    assert_eq!(wrong_task.status, 404);
    assert!(wrong_task.message().contains("no model that does this"), "{}", wrong_task.message());
    for (body, expected) in [
        (json!({"inputs": "a", "normalize": false}), "unit vectors"),
        (json!({"inputs": "a", "dimensions": 7}), "384 dimensions, not 7"),
        (json!({"inputs": "a", "truncation_direction": "Left"}), "at their end only"),
        (json!({"inputs": "a", "prompt_name": "poem"}), "no prompt `poem`"),
        (json!({"inputs": 7}), "not of the expected shape"),
    ] {
        let refused = gateway.post("/embed", &body);
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.message().contains(expected), "{}", refused.message());
    }
    let untyped = gateway.post("/invocations", &json!({"inputs": ["a"]}));
    assert_eq!(untyped.status, 415);
    assert_eq!(gateway.context.tally.failed(), 0);
}

#[test]
fn probes_of_each_dialect_say_whether_models_can_be_asked() {
    let gateway = Gateway::with_model();
    for path in ["/ping", "/version", "/health", "/info"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
    assert_eq!(gateway.get("/info").json()["model_id"], MODEL);
    let factory = Gateway::without_model();
    for path in ["/ping", "/health", "/info"] {
        assert_eq!(factory.get(path).status, 503, "{path}");
    }
}
