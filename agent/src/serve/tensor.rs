//! JSON tensors of the Open Inference Protocol v2: one BYTES input of texts, one FP32 output of embeddings. Pure.

use engine::worker::message::{Embeddings, ModelInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::serve::refused::Refused;

/// Name of the one input.
pub const INPUT: &str = "text";
/// Name of the one output.
pub const OUTPUT: &str = "embedding";

/// An inference request.
#[derive(Debug, Deserialize)]
pub struct InferRequest {
    /// Repeated by the response.
    #[serde(default)]
    pub id: Option<String>,
    /// `truncate: true` lets long texts be cut.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// The tensors.
    pub inputs: Vec<InputTensor>,
    /// What to compute; all when left out.
    #[serde(default)]
    pub outputs: Vec<OutputWanted>,
}

/// One input.
#[derive(Debug, Deserialize)]
pub struct InputTensor {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(default)]
    data: Option<Value>,
}

/// An output asked for.
#[derive(Debug, Deserialize)]
pub struct OutputWanted {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

impl InferRequest {
    /// The texts in the request.
    ///
    /// # Errors
    /// Names the tensor and what is wrong with its name, type, shape or data.
    pub fn texts(self, model: &str) -> Result<Vec<String>, Refused> {
        for output in &self.outputs {
            if output.name != OUTPUT {
                let message = format!(
                    "model `{model}` has no output `{}`; it has `{OUTPUT}` (FP32)",
                    shown(&output.name)
                );
                return Err(Refused::bad("unknown_output", message));
            }
            refuse_binary(&output.name, &output.parameters, "binary_data")?;
        }
        let count = self.inputs.len();
        let takes = format!("it takes `{INPUT}` (BYTES, shape [n])");
        let mut inputs = self.inputs.into_iter();
        let Some(input) = inputs.next() else {
            return Err(Refused::bad(
                "no_input",
                format!("the request has no inputs; model `{model}` needs one: {takes}"),
            ));
        };
        if let Some(other) =
            std::iter::once(&input).chain(inputs.as_slice()).find(|input| input.name != INPUT)
        {
            let message = format!("model `{model}` has no input `{}`; {takes}", shown(&other.name));
            return Err(Refused::bad("unknown_input", message));
        }
        if count > 1 {
            return Err(Refused::bad(
                "repeated_input",
                format!("input `{INPUT}` is there {count} times"),
            ));
        }
        input.texts()
    }

    /// Whether long texts may be cut.
    ///
    /// # Errors
    /// `truncate` is no boolean.
    pub fn truncate(&self) -> Result<bool, Refused> {
        match self.parameters.get("truncate") {
            None => Ok(false),
            Some(Value::Bool(truncate)) => Ok(*truncate),
            Some(_) => Err(Refused::bad("truncate", "parameter `truncate` must be true or false")),
        }
    }
}

impl InputTensor {
    fn texts(self) -> Result<Vec<String>, Refused> {
        let Self { name, shape, datatype, parameters, data } = self;
        refuse_binary(&name, &parameters, "binary_data_size")?;
        if datatype != "BYTES" {
            let message =
                format!("input `{name}` has datatype `{}`; it must be BYTES", shown(&datatype));
            return Err(Refused::bad("datatype", message));
        }
        let elements = match shape.as_slice() {
            [count] | [count, 1] => usize::try_from(*count).ok(),
            _ => None,
        };
        let Some(elements) = elements else {
            let mut text = format!("{shape:?}");
            text.truncate(80);
            return Err(Refused::bad(
                "shape",
                format!("input `{name}` has shape {text}; it must be [n] or [n, 1]"),
            ));
        };
        let mut texts = Vec::new();
        gather(&name, data.unwrap_or(Value::Null), 0, &mut texts)?;
        if texts.len() == elements {
            Ok(texts)
        } else {
            let message =
                format!("input `{name}` has shape {shape:?} but {} elements of data", texts.len());
            Err(Refused::bad("shape", message))
        }
    }
}

/// Data may be flat or nested by rows.
fn gather(name: &str, data: Value, depth: usize, texts: &mut Vec<String>) -> Result<(), Refused> {
    let wrong = |what: &str| {
        let message = format!("data of input `{name}` {what}; it must be a list of strings");
        Err(Refused::bad("data", message))
    };
    match data {
        Value::Array(items) if depth < 2 => {
            items.into_iter().try_for_each(|item| gather(name, item, depth + 1, texts))
        }
        Value::String(text) if depth > 0 => {
            texts.push(text);
            Ok(())
        }
        Value::Array(_) => wrong("is nested deeper than its shape"),
        Value::Null if depth == 0 => wrong("is missing"),
        Value::String(_) => wrong("is a string"),
        Value::Null => wrong("holds null"),
        Value::Bool(_) => wrong("holds a boolean"),
        Value::Number(_) => wrong("holds a number"),
        Value::Object(_) => wrong("holds an object"),
    }
}

fn refuse_binary(name: &str, parameters: &Map<String, Value>, key: &str) -> Result<(), Refused> {
    match parameters.get(key) {
        None | Some(Value::Bool(false)) => Ok(()),
        Some(_) => {
            let message = format!(
                "`{name}` asks for binary tensor data (`{key}`); this server speaks JSON tensors"
            );
            Err(Refused::bad("binary_tensor", message))
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

/// Metadata of a model.
pub fn metadata(model: &ModelInfo) -> Value {
    json!({
        "name": model.name,
        "versions": [model.version],
        "platform": "socle_tract_onnx",
        "inputs": [{ "name": INPUT, "datatype": "BYTES", "shape": [-1] }],
        "outputs": [{ "name": OUTPUT, "datatype": "FP32", "shape": [-1, model.dim] }],
    })
}

/// An inference response. Typed, since a `Value` would write each f32 with the digits of an f64.
#[derive(Debug, Serialize)]
pub struct InferResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    model_name: String,
    model_version: String,
    outputs: [OutputTensor; 1],
}

#[derive(Debug, Serialize)]
struct OutputTensor {
    name: &'static str,
    datatype: &'static str,
    shape: [usize; 2],
    data: Vec<f32>,
}

/// The response with `embeddings`.
pub fn response(id: Option<String>, model: ModelInfo, embeddings: &Embeddings) -> InferResponse {
    let output = OutputTensor {
        name: OUTPUT,
        datatype: "FP32",
        shape: [embeddings.tokens.len(), embeddings.dim as usize],
        data: embeddings.vectors().into_iter().flatten().collect(),
    };
    InferResponse { id, model_name: model.name, model_version: model.version, outputs: [output] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(request: Value) -> Result<Vec<String>, String> {
        let request: InferRequest = serde_json::from_value(request).unwrap();
        request.texts("m").map_err(|refused| refused.message)
    }

    fn input(change: impl FnOnce(&mut Map<String, Value>)) -> Value {
        let mut input =
            json!({"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]});
        change(input.as_object_mut().unwrap());
        json!({"inputs": [input]})
    }

    #[test]
    fn flat_and_nested_data_are_the_same_texts() {
        assert_eq!(texts(input(|_| {})).unwrap(), ["a", "b"]);
        let nested = input(|input| {
            input.insert("shape".into(), json!([2, 1]));
            input.insert("data".into(), json!([["a"], ["b"]]));
        });
        assert_eq!(texts(nested).unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_wrong_tensor_is_named_with_what_is_wrong() {
        let cases = [
            ("shape", json!([3]), "input `text` has shape [3] but 2 elements of data"),
            ("shape", json!([1, 2]), "input `text` has shape [1, 2]; it must be [n] or [n, 1]"),
            ("shape", json!([-2]), "input `text` has shape [-2]; it must be [n] or [n, 1]"),
            ("datatype", json!("FP32"), "input `text` has datatype `FP32`; it must be BYTES"),
            (
                "name",
                json!("tokens"),
                "model `m` has no input `tokens`; it takes `text` (BYTES, shape [n])",
            ),
            (
                "data",
                json!([1, 2]),
                "data of input `text` holds a number; it must be a list of strings",
            ),
            ("data", json!("a"), "data of input `text` is a string; it must be a list of strings"),
            ("data", json!(null), "data of input `text` is missing; it must be a list of strings"),
            (
                "data",
                json!([[["a"]]]),
                "data of input `text` is nested deeper than its shape; it must be a list of strings",
            ),
        ];
        for (member, value, expected) in cases {
            let request = input(|input| drop(input.insert(member.into(), value)));
            assert_eq!(texts(request).unwrap_err(), expected);
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let one = input(|_| {})["inputs"][0].clone();
        let cases = [
            (json!({"inputs": []}), "the request has no inputs"),
            (json!({"inputs": [one, one]}), "input `text` is there 2 times"),
            (json!({"inputs": [one], "outputs": [{"name": "logits"}]}), "no output `logits`"),
            (
                json!({"inputs": [one], "outputs": [{"name": "embedding", "parameters": {"binary_data": true}}]}),
                "binary tensor",
            ),
        ];
        for (request, expected) in cases {
            let message = texts(request).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
