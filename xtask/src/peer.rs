//! `cargo xtask peer embeddings`: our embeddings beside onnxruntime's on the same model file.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::http::Agent;
use crate::machine::{Machine, Output};
use crate::venv::{self, Environment};
use crate::{say, shell};

/// Without what onnxruntime's tooling and the tokenizer's Hub client would need besides.
const PEER: Environment =
    Environment { name: "embeddings", requirements: "xtask/peers/requirements.txt" };

const SCRIPT: &str = "xtask/peers/embeddings.py";

/// 25 English and 25 French sentences.
const SENTENCES: &str = "workbench/data/faq/sentences-50.txt";

/// The least cosine that counts as equal.
pub(crate) const COSINE_MIN: f64 = 0.9999;

#[derive(Debug, Deserialize)]
struct Peer {
    versions: serde_json::Map<String, Value>,
    embeddings: Vec<Vec<f64>>,
}

#[derive(Debug, Serialize)]
struct Table {
    ok: bool,
    sentences: usize,
    cosine_min: f64,
    cosine_mean: f64,
    base64_equal: bool,
    peer: serde_json::Map<String, Value>,
}

/// Compares the agent with the peer and prints the table.
pub(crate) fn embeddings(machine: &Machine, agent: &Agent, model: &Path) -> Result<(), Failure> {
    let file = machine.root.join(SENTENCES);
    let text = fs::read_to_string(&file)
        .map_err(|error| Failure::new(format!("reading `{SENTENCES}`")).because(error))?;
    let sentences: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let peer = ask_peer(machine, model, &file)?;
    let ours = ask_agent(agent, &sentences)?;
    let cosines = compare(&ours.float, &peer.embeddings)?;
    for (cosine, sentence) in cosines.iter().zip(&sentences) {
        say::line(&format!("{cosine:.7}  {sentence}"));
    }
    let cosine_min = cosines.iter().copied().fold(f64::INFINITY, f64::min);
    let cosine_mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    let base64_equal = ours.float == ours.base64;
    let table = Table {
        ok: cosine_min >= COSINE_MIN && base64_equal,
        sentences: cosines.len(),
        cosine_min,
        cosine_mean,
        base64_equal,
        peer: peer.versions,
    };
    print(machine, &table)?;
    if table.ok {
        return Ok(());
    }
    Err(Failure::new(format!(
        "our embeddings are not the peer's: least cosine {cosine_min:.7}, wanted {COSINE_MIN}; \
         base64 {} the floats",
        if base64_equal { "equals" } else { "differs from" }
    )))
}

fn print(machine: &Machine, table: &Table) -> Result<(), Failure> {
    let text = match machine.output {
        Output::Json => serde_json::to_string(table).unwrap_or_default(),
        Output::Person => format!(
            "{} sentences: least cosine {:.7}, mean {:.7} (at least {COSINE_MIN}); base64 equal: {}",
            table.sentences, table.cosine_min, table.cosine_mean, table.base64_equal
        ),
    };
    say::result(&text).map_err(|error| Failure::new("printing the result").because(error))
}

fn ask_peer(machine: &Machine, model: &Path, sentences: &Path) -> Result<Peer, Failure> {
    let python = venv::python(machine, PEER)?;
    say::line("asking onnxruntime");
    let mut command = machine.command(&python);
    command.arg(SCRIPT).arg(model.join("model.onnx")).arg(model.join("tokenizer.json"));
    command.arg(sentences).stdin(Stdio::null()).stdout(Stdio::piped());
    let printed = shell::read(&mut command)?;
    if !printed.status.success() {
        return Err(Failure::new(format!("the peer failed: {}", printed.err.trim())));
    }
    serde_json::from_str(&printed.out)
        .map_err(|error| Failure::new("reading the peer's answer").because(error))
}

struct Ours {
    float: Vec<Vec<f64>>,
    base64: Vec<Vec<f64>>,
}

fn ask_agent(agent: &Agent, sentences: &[&str]) -> Result<Ours, Failure> {
    say::line("asking the agent");
    let mut connection = agent.connect()?;
    let model = connection.first_model()?;
    let mut ask = |format: &str| {
        let body = json!({ "model": model, "input": sentences, "encoding_format": format });
        let answer = connection.post("/v1/embeddings", &body)?;
        let data = answer.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
        data.iter()
            .map(|entry| entry.get("embedding").and_then(vector))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Failure::new(format!("/v1/embeddings gave no {format} embeddings")))
    };
    Ok(Ours { float: ask("float")?, base64: ask("base64")? })
}

/// An array of numbers, or base64 of little-endian `f32`.
fn vector(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::Array(numbers) => {
            numbers.iter().map(|number| number.as_f64().map(|n| f64::from(n as f32))).collect()
        }
        Value::String(text) => {
            let bytes = data_encoding::BASE64.decode(text.as_bytes()).ok()?;
            let (words, rest) = bytes.as_chunks::<4>();
            let floats = words.iter().map(|word| f64::from(f32::from_le_bytes(*word))).collect();
            rest.is_empty().then_some(floats)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// The cosine of each pair; unequal shapes are a failure.
fn compare(ours: &[Vec<f64>], peer: &[Vec<f64>]) -> Result<Vec<f64>, Failure> {
    if ours.len() != peer.len() || ours.is_empty() {
        let (ours, peer) = (ours.len(), peer.len());
        return Err(Failure::new(format!("{ours} embeddings of ours, {peer} of the peer")));
    }
    ours.iter().zip(peer).map(|(one, other)| cosine(one, other)).collect()
}

fn cosine(one: &[f64], other: &[f64]) -> Result<f64, Failure> {
    if one.len() != other.len() {
        let (one, other) = (one.len(), other.len());
        return Err(Failure::new(format!("ours has {one} dimensions, the peer's {other}")));
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    Ok(dot(one, other) / (dot(one, one) * dot(other, other)).sqrt())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{compare, vector};

    #[test]
    fn base64_and_numbers_give_the_same_vector() {
        assert_eq!(vector(&json!([1.0, -2.5])), Some(vec![1.0, -2.5]));
        assert_eq!(vector(&json!("AACAPwAAIMA=")), Some(vec![1.0, -2.5]));
        assert_eq!(vector(&json!("AACAPwAAIA==")), None);
        assert_eq!(vector(&json!(1)), None);
    }

    #[test]
    fn cosine_ignores_length_and_sees_direction() {
        let cosines = compare(&[vec![2.0, 0.0], vec![1.0, 1.0]], &[vec![1.0, 0.0], vec![0.0, 1.0]]);
        let cosines = cosines.unwrap();
        assert!((cosines[0] - 1.0).abs() < 1e-12 && (cosines[1] - 0.5_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn other_shapes_are_refused() {
        assert!(compare(&[vec![1.0]], &[]).is_err());
        assert!(compare(&[vec![1.0]], &[vec![1.0, 2.0]]).is_err());
    }
}
