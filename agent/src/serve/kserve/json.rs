//! Requests and responses of the REST form: JSON, whose tensors may be sent as bytes behind it.

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq as _};
use serde_json::{Map, Value};

use crate::serve::{
    kserve::{
        element,
        exchange::{
            Inference, Input, Output, Values, check_count, element_count, refuse_parameter,
        },
    },
    refused::Refused,
};

/// An inference request.
#[derive(Debug, Deserialize)]
pub struct InferRequest {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    inputs: Vec<InputTensor>,
    #[serde(default)]
    outputs: Vec<OutputWanted>,
}

#[derive(Debug, Deserialize)]
struct InputTensor {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(default)]
    data: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct OutputWanted {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// Which outputs are to be sent as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AsBytes {
    all: bool,
    one_by_one: Vec<(String, bool)>,
}

impl AsBytes {
    /// All of them.
    pub fn all() -> Self {
        Self { all: true, one_by_one: Vec::new() }
    }

    /// Whether the output called `name` is.
    pub fn holds(&self, name: &str) -> bool {
        let said = self.one_by_one.iter().find(|(known, _)| known == name);
        said.map_or(self.all, |(_, as_bytes)| *as_bytes)
    }
}

impl InferRequest {
    /// The request with its tensors, of which `tail` holds those that were sent as bytes, and how to send the answer.
    ///
    /// # Errors
    /// Names the tensor or parameter and what is wrong with it.
    pub fn read(self, mut tail: Bytes) -> Result<(Inference, AsBytes), Refused> {
        let mut as_bytes = AsBytes {
            all: flag("the request", &self.parameters, "binary_data_output")?.unwrap_or(false),
            one_by_one: Vec::new(),
        };
        for key in self.parameters.keys() {
            refuse_parameter("the request", key)?;
        }
        for output in &self.outputs {
            for key in output.parameters.keys() {
                refuse_parameter(&output.name, key)?;
            }
            if let Some(said) = flag(&output.name, &output.parameters, "binary_data")? {
                as_bytes.one_by_one.push((output.name.clone(), said));
            }
        }
        let truncate = flag("the request", &self.parameters, "truncate")?.unwrap_or(false);
        let inputs =
            self.inputs.into_iter().map(|input| input.read(&mut tail)).collect::<Result<_, _>>()?;
        if !tail.is_empty() {
            let message = format!(
                "{} bytes follow the last tensor: add `binary_data_size` to the input they belong to",
                tail.len()
            );
            return Err(Refused::bad("binary_tensor", message));
        }
        let wanted = self.outputs.into_iter().map(|output| output.name).collect();
        Ok((Inference { id: self.id, truncate, inputs, wanted }, as_bytes))
    }
}

impl InputTensor {
    fn read(self, tail: &mut Bytes) -> Result<Input, Refused> {
        let Self { name, shape, datatype, parameters, data } = self;
        for key in parameters.keys() {
            refuse_parameter(&name, key)?;
        }
        let count = element_count(&name, &datatype, &shape)?;
        let elements = match binary_size(&name, &parameters)? {
            Some(size) if size > tail.len() => {
                let message = format!(
                    "input `{name}` has `binary_data_size` {size}, but only {} bytes are left behind the JSON",
                    tail.len()
                );
                return Err(Refused::bad("binary_tensor", message));
            }
            Some(_) if data.is_some() => {
                let message = format!("input `{name}` has both `data` and `binary_data_size`");
                return Err(Refused::bad("binary_tensor", message));
            }
            Some(size) => element::elements(&name, tail.split_to(size))?,
            None => {
                let mut elements = Vec::new();
                gather(&name, data.unwrap_or(Value::Null), 0, &mut elements)?;
                elements
            }
        };
        check_count(&name, &shape, count, elements.len())?;
        Ok(Input { name, elements })
    }
}

fn binary_size(name: &str, parameters: &Map<String, Value>) -> Result<Option<usize>, Refused> {
    let Some(value) = parameters.get("binary_data_size") else { return Ok(None) };
    match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
        Some(size) => Ok(Some(size)),
        None => {
            let message = format!("`binary_data_size` of input `{name}` must be a number of bytes");
            Err(Refused::bad("binary_tensor", message))
        }
    }
}

fn flag(owner: &str, parameters: &Map<String, Value>, key: &str) -> Result<Option<bool>, Refused> {
    match parameters.get(key) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => {
            let message = format!("parameter `{key}` of {owner} must be true or false");
            Err(Refused::bad("parameter", message))
        }
    }
}

/// Data may be flat or nested by rows.
fn gather(name: &str, data: Value, depth: usize, into: &mut Vec<Bytes>) -> Result<(), Refused> {
    let wrong = |what: &str| {
        let message = format!("data of input `{name}` {what}; it must be a list of strings");
        Err(Refused::bad("data", message))
    };
    match data {
        Value::Array(items) if depth < 2 => {
            items.into_iter().try_for_each(|item| gather(name, item, depth + 1, into))
        }
        Value::String(text) if depth > 0 => {
            into.push(text.into());
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

/// An inference response. Typed, since a `Value` would write each f32 with the digits of an f64.
#[derive(Debug, Serialize)]
pub struct InferResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    model_name: &'a str,
    model_version: &'a str,
    outputs: Vec<OutputTensor<'a>>,
}

#[derive(Debug, Serialize)]
struct OutputTensor<'a> {
    name: &'static str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "data")]
    data: Option<&'a Values>,
}

#[derive(Debug, Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

/// Who answers: name and version.
#[derive(Clone, Copy, Debug)]
pub struct Answering<'a> {
    /// The request's id.
    pub id: Option<&'a str>,
    /// The model's name.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// The response with `outputs`, and those that go behind it as bytes.
pub fn response<'a>(
    answering: Answering<'a>,
    outputs: &'a [Output],
    as_bytes: &AsBytes,
) -> (InferResponse<'a>, Vec<Bytes>) {
    let mut tail = Vec::new();
    let outputs = outputs
        .iter()
        .map(|output| {
            let raw = as_bytes.holds(output.name).then(|| element::raw(&output.values));
            let parameters = raw.as_ref().map(|bytes| BinarySize { binary_data_size: bytes.len() });
            let data = raw.is_none().then_some(&output.values);
            tail.extend(raw);
            let (name, datatype) = (output.name, output.values.datatype());
            OutputTensor { name, datatype, shape: &output.shape, parameters, data }
        })
        .collect();
    let Answering { id, model, version } = answering;
    (InferResponse { id, model_name: model, model_version: version, outputs }, tail)
}

fn data<S: Serializer>(values: &Option<&Values>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    match values {
        Some(Values::Bytes(texts)) => {
            texts.iter().try_for_each(|text| list.serialize_element(text))?;
        }
        Some(values) => values.numbers().try_for_each(|number| list.serialize_element(&number))?,
        None => {}
    }
    list.end()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(request: Value) -> Result<Vec<Bytes>, String> {
        read(request, b"").map(|(inference, _)| inference.inputs[0].elements.clone())
    }

    fn read(request: Value, tail: &'static [u8]) -> Result<(Inference, AsBytes), String> {
        let request: InferRequest = serde_json::from_value(request).unwrap();
        request.read(Bytes::from_static(tail)).map_err(|refused| refused.message)
    }

    fn input(change: impl FnOnce(&mut Map<String, Value>)) -> Value {
        let mut input =
            json!({"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]});
        change(input.as_object_mut().unwrap());
        json!({"inputs": [input]})
    }

    #[test]
    fn flat_nested_and_binary_data_are_the_same_texts() {
        let expected = ["a", "b"].map(Bytes::from_static_str);
        assert_eq!(texts(input(|_| {})).unwrap(), expected);
        let nested = input(|input| {
            input.insert("shape".into(), json!([2, 1]));
            input.insert("data".into(), json!([["a"], ["b"]]));
        });
        assert_eq!(texts(nested).unwrap(), expected);
        let binary = input(|input| {
            input.remove("data");
            input.insert("parameters".into(), json!({"binary_data_size": 10}));
        });
        let (inference, as_bytes) = read(binary, b"\x01\0\0\0a\x01\0\0\0b").unwrap();
        assert_eq!(inference.inputs[0].elements, expected);
        assert!(!as_bytes.holds("embedding"));
    }

    /// Short for the tests.
    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Bytes;
    }

    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Bytes {
            Bytes::from_static(text.as_bytes())
        }
    }

    #[test]
    fn a_wrong_tensor_is_named_with_what_is_wrong() {
        let cases = [
            ("shape", json!([3]), "input `text` has shape [3] but 2 elements of data"),
            ("shape", json!([1, 2]), "input `text` has shape [1, 2]; it must be [n] or [n, 1]"),
            ("shape", json!([-2]), "input `text` has shape [-2]; it must be [n] or [n, 1]"),
            ("datatype", json!("FP32"), "input `text` has datatype `FP32`; it must be BYTES"),
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
            (
                "parameters",
                json!({"binary_data_size": 5}),
                "input `text` has `binary_data_size` 5, but only 0 bytes are left behind the JSON",
            ),
            (
                "parameters",
                json!({"binary_data_size": -1}),
                "`binary_data_size` of input `text` must be a number of bytes",
            ),
            (
                "parameters",
                json!({"shared_memory_region": "r"}),
                "`text` has parameter `shared_memory_region`: this server shares no memory with its clients; send the data itself",
            ),
        ];
        for (member, value, expected) in cases {
            let request = input(|input| drop(input.insert(member.into(), value)));
            assert_eq!(texts(request).unwrap_err(), expected);
        }
        let message = read(input(|_| {}), b"abc").unwrap_err();
        assert!(message.starts_with("3 bytes follow the last tensor"), "{message}");
    }

    #[test]
    fn one_outputs_word_goes_before_the_word_for_all() {
        let mut request = input(|_| {});
        request["parameters"] = json!({"binary_data_output": true});
        request["outputs"] = json!([
            {"name": "a"}, {"name": "b", "parameters": {"binary_data": false}}]);
        let (inference, as_bytes) = read(request, b"").unwrap();
        assert_eq!(inference.wanted, ["a", "b"]);
        assert_eq!((as_bytes.holds("a"), as_bytes.holds("b")), (true, false));
    }

    #[test]
    fn numbers_are_written_as_numbers_or_as_bytes() {
        let bytes: Vec<u8> = [0.1_f32, -2.0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let outputs = [Output {
            name: "embedding",
            shape: vec![1, 2],
            values: Values::Fp32(Bytes::from(bytes.clone())),
        }];
        let answering = Answering { id: None, model: "m", version: "1" };
        let (json, tail) = response(answering, &outputs, &AsBytes::default());
        let text = serde_json::to_string(&json).unwrap();
        assert!(text.ends_with(r#""shape":[1,2],"data":[0.1,-2.0]}]}"#), "{text}");
        assert!(tail.is_empty());
        let (json, tail) = response(answering, &outputs, &AsBytes::all());
        let text = serde_json::to_string(&json).unwrap();
        assert!(text.ends_with(r#""parameters":{"binary_data_size":8}}]}"#), "{text}");
        assert_eq!(tail, [Bytes::from(bytes)]);
    }
}
