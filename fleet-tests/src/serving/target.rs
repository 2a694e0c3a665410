//! Who is asked for what: a model of a server, and the form in which the Open Inference Protocol asks it.

use std::io;

use agent::serve::kserve::grpc::message::{InferTensor, ModelInferRequest};
use prost::Message as _;
use serde::Serialize;

use crate::serving::{
    grpc,
    wire::{self, Address},
};

/// How tensors are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// REST, all of it JSON.
    Json,
    /// REST, tensors as bytes behind the JSON, both ways.
    Binary,
    /// gRPC, tensors as bytes.
    Grpc,
}

/// A model of a server.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub address: Address,
    /// The model's name.
    pub model: String,
    /// What admits us, where something must.
    pub token: Option<String>,
    /// How it is asked.
    pub form: Form,
}

/// The one input of a request.
#[derive(Clone, Debug)]
pub struct Tensor {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<i64>,
    json: String,
    bytes: Vec<u8>,
}

/// An open connection to a server.
#[derive(Debug)]
pub enum Link {
    /// HTTP/1.1.
    Rest(wire::Connection),
    /// gRPC.
    Grpc(grpc::Connection),
}

impl Form {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Binary => "binary tensors",
            Self::Grpc => "gRPC",
        }
    }
}

impl Tensor {
    /// One text, as a server wants it shaped.
    pub fn text(text: &str, shape: &[i64]) -> Self {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        Self {
            name: "text",
            datatype: "BYTES",
            shape: shape.to_vec(),
            json: serde_json::json!([text]).to_string(),
            bytes: [&length.to_le_bytes(), text.as_bytes()].concat(),
        }
    }

    /// Eight numbers, for a model that gives them back.
    pub fn numbers() -> Self {
        let numbers = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        Self {
            name: "numbers",
            datatype: "FP32",
            shape: vec![8],
            json: serde_json::json!(numbers).to_string(),
            bytes: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        }
    }
}

impl Target {
    /// The bytes of a whole request with this input, as [`Link::ask`] sends them.
    pub fn request(&self, input: &Tensor) -> Vec<u8> {
        let Tensor { name, datatype, shape, json, bytes } = input;
        match self.form {
            Form::Json => {
                let body = format!(
                    r#"{{"inputs":[{{"name":"{name}","datatype":"{datatype}","shape":{shape:?},"data":{json}}}]}}"#
                );
                let head = self.head("application/json", "", body.len());
                [head.as_bytes(), body.as_bytes()].concat()
            }
            Form::Binary => {
                let json = format!(
                    r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{{"name":"{name}","datatype":"{datatype}","shape":{shape:?},"parameters":{{"binary_data_size":{}}}}}]}}"#,
                    bytes.len()
                );
                let begins = format!("Inference-Header-Content-Length: {}\r\n", json.len());
                let length = json.len() + bytes.len();
                let head = self.head("application/octet-stream", &begins, length);
                [head.as_bytes(), json.as_bytes(), bytes].concat()
            }
            Form::Grpc => {
                let tensor = InferTensor {
                    name: (*name).to_owned(),
                    datatype: (*datatype).to_owned(),
                    shape: shape.clone(),
                    ..InferTensor::default()
                };
                let message = ModelInferRequest {
                    model_name: self.model.clone(),
                    inputs: vec![tensor],
                    raw_input_contents: vec![bytes.clone().into()],
                    ..ModelInferRequest::default()
                };
                message.encode_to_vec()
            }
        }
    }

    fn head(&self, kind: &str, more: &str, length: usize) -> String {
        let token = self
            .token
            .as_ref()
            .map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        format!(
            "POST /v2/models/{}/infer HTTP/1.1\r\nHost: localhost\r\n{token}{more}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n",
            self.model
        )
    }
}

impl Link {
    /// Connects to the server of `target`.
    ///
    /// # Errors
    /// Nobody listens, or who does speaks another protocol.
    pub fn open(target: &Target) -> io::Result<Self> {
        match target.form {
            Form::Json | Form::Binary => Ok(Self::Rest(wire::Connection::open(&target.address)?)),
            Form::Grpc => {
                let path = "/inference.GRPCInferenceService/ModelInfer";
                let connection =
                    grpc::Connection::open(&target.address, path, target.token.as_deref())?;
                Ok(Self::Grpc(connection))
            }
        }
    }

    /// Sends a request of this target and reads its whole answer: HTTP's status, and body or message. A call that gRPC
    /// refuses is a 400.
    ///
    /// # Errors
    /// The connection broke.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        match self {
            Self::Rest(connection) => connection.ask(request),
            Self::Grpc(connection) => {
                Ok(connection.ask(request)?.map_or((400, &[]), |message| (200, message)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, str};

    use super::*;

    fn target(form: Form) -> Target {
        let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
        Target { address, model: "m".to_owned(), token: Some("t".to_owned()), form }
    }

    #[test]
    fn lengths_of_a_request_are_those_of_its_parts() {
        let text = Tensor::text("a \"b\"", &[1, 1]);
        for form in [Form::Json, Form::Binary] {
            let request = target(form).request(&text);
            let request = str::from_utf8(&request).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
            assert!(head.contains("Authorization: Bearer t\r\n"), "{head}");
            let end = match form {
                Form::Binary => body.len() - 9,
                Form::Json | Form::Grpc => body.len(),
            };
            let json: serde_json::Value = serde_json::from_str(&body[..end]).unwrap();
            assert_eq!(json["inputs"][0]["shape"], serde_json::json!([1, 1]));
            let begins = format!("Inference-Header-Content-Length: {end}\r\n");
            assert_eq!(head.contains(&begins), form == Form::Binary, "{head}");
        }
    }

    #[test]
    fn a_message_of_grpc_holds_the_tensor_as_bytes() {
        let bytes = target(Form::Grpc).request(&Tensor::numbers());
        let read = ModelInferRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!((read.model_name.as_str(), read.inputs[0].shape.as_slice()), ("m", &[8][..]));
        assert_eq!(read.raw_input_contents[0].len(), 32);
    }
}
