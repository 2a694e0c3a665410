//! The Open Inference Protocol over gRPC, asked through a plain HTTP/2 client that frames its messages itself.

use agent::serve::{
    kserve::grpc::message::{
        Empty, InferParameter, InferRequestedOutput, InferTensor, InferTensorContents,
        ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataResponse,
        ModelRequest, ModelStatisticsResponse, ParameterChoice, ReadyResponse,
        RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelRequest,
        ServerMetadataResponse,
    },
    taking::Taking,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::json;

use crate::fixture::{Gateway, MODEL, TOKEN};

/// A connection; calls may go on at the same time.
#[derive(Clone)]
struct Client {
    sender: SendRequest<Full<Bytes>>,
    authorization: Option<String>,
    timeout: Option<&'static str>,
}

/// An error: gRPC's code, its message, and when to try again.
#[derive(Debug, PartialEq)]
struct Failed {
    code: u32,
    message: String,
    again_ms: Option<u64>,
}

impl Client {
    async fn connect(gateway: &Gateway) -> Self {
        let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender, authorization: Some(format!("Bearer {TOKEN}")), timeout: None }
    }

    async fn call<R: Message + Default>(
        &mut self,
        method: &str,
        message: impl Message,
    ) -> Result<R, Failed> {
        let message = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        self.send(method, frame).await
    }

    async fn send<R: Message + Default>(
        &mut self,
        method: &str,
        frame: Vec<u8>,
    ) -> Result<R, Failed> {
        let mut request =
            Request::post(format!("http://localhost/inference.GRPCInferenceService/{method}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(timeout) = self.timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let request = request.body(Full::new(Bytes::from(frame))).unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or(head.headers);
        let text = |name: &str| trailers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let code = text("grpc-status").unwrap().parse().unwrap();
        if code != 0 {
            let message = percent_decoded(&text("grpc-message").unwrap_or_default());
            let again_ms = text("grpc-retry-pushback-ms").map(|ms| ms.parse().unwrap());
            return Err(Failed { code, message, again_ms });
        }
        let bytes = body.to_bytes();
        assert_eq!(bytes[0], 0, "not compressed");
        assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - 5);
        Ok(R::decode(&bytes[5..]).unwrap())
    }
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn text(elements: i64) -> InferTensor {
    InferTensor {
        name: "text".into(),
        datatype: "BYTES".into(),
        shape: vec![elements],
        ..InferTensor::default()
    }
}

fn request(inputs: Vec<InferTensor>, raw_input_contents: Vec<Bytes>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: MODEL.into(),
        id: "7".into(),
        inputs,
        raw_input_contents,
        ..ModelInferRequest::default()
    }
}

fn raw(texts: &[&str]) -> Bytes {
    let bytes = texts.iter().flat_map(|text| {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        [&length, text.as_bytes()].concat()
    });
    bytes.collect()
}

fn typed(texts: &[&'static str]) -> Option<InferTensorContents> {
    let bytes_contents = texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
    Some(InferTensorContents { bytes_contents, ..InferTensorContents::default() })
}

/// The code by which one text is refused, and after how many milliseconds it may be sent again.
pub(crate) async fn refusal(gateway: &Gateway, refused: &str) -> (u32, Option<u64>) {
    let mut client = Client::connect(gateway).await;
    let asked = request(vec![text(1)], vec![raw(&[refused])]);
    let failed = client.call::<ModelInferResponse>("ModelInfer", asked).await.unwrap_err();
    assert!(failed.message.contains("wait already: try again in"), "{failed:?}");
    (failed.code, failed.again_ms)
}

#[test]
fn grpc_gives_the_numbers_of_rest_in_the_form_that_was_sent() {
    let gateway = Gateway::with_model();
    let texts = ["How do I reset my password?", "Où est l'imprimante ?"];
    let rest = gateway.post(
        &format!("/v2/models/{MODEL}/infer"),
        &json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": texts}]}),
    );
    let data = rest.json()["outputs"][0]["data"].clone();
    let expected: Vec<f32> =
        data.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect();
    gateway.runtime.block_on(async {
        let mut client = Client::connect(&gateway).await;
        let raw_request = request(vec![text(2)], vec![raw(&texts)]);
        let answer: ModelInferResponse = client.call("ModelInfer", raw_request).await.unwrap();
        assert_eq!((answer.model_name.as_str(), answer.id.as_str()), (MODEL, "7"));
        assert_eq!(answer.outputs[0].shape, [2, 384]);
        assert_eq!(answer.outputs[0].contents, None);
        let (words, _) = answer.raw_output_contents[0].as_chunks::<4>();
        let numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        assert!(numbers == expected, "raw numbers differ");

        let typed_request =
            request(vec![InferTensor { contents: typed(&texts), ..text(2) }], vec![]);
        let answer: ModelInferResponse = client.call("ModelInfer", typed_request).await.unwrap();
        assert!(answer.raw_output_contents.is_empty());
        let contents = answer.outputs[0].contents.as_ref().unwrap();
        assert!(contents.fp32_contents == expected, "typed numbers differ");
    });
    assert_eq!(gateway.context.tally.answered(), 3, "inference over gRPC counts in a probation");
}

#[test]
fn what_is_served_is_told_over_grpc_too() {
    let gateway = Gateway::with_model();
    gateway.runtime.block_on(async {
        let mut client = Client::connect(&gateway).await;
        let asked = || ModelRequest { name: MODEL.into(), version: "1".into() };
        let ready: ReadyResponse = client.call("ServerReady", Empty {}).await.unwrap();
        assert!(ready.ready);
        let ready: ReadyResponse = client.call("ModelReady", asked()).await.unwrap();
        assert!(ready.ready);
        for (name, version) in [("gpt", ""), (MODEL, "99")] {
            let unknown = ModelRequest { name: name.into(), version: version.into() };
            let ready: ReadyResponse = client.call("ModelReady", unknown).await.unwrap();
            assert!(!ready.ready, "{name} {version}");
        }
        let server: ServerMetadataResponse = client.call("ServerMetadata", Empty {}).await.unwrap();
        assert!(server.extensions.contains(&"statistics".to_owned()), "{server:?}");
        let metadata: ModelMetadataResponse = client.call("ModelMetadata", asked()).await.unwrap();
        assert_eq!(
            (metadata.inputs[0].name.as_str(), &metadata.outputs[0].shape),
            ("text", &vec![-1, 384])
        );
        let config: ModelConfigResponse = client.call("ModelConfig", asked()).await.unwrap();
        assert_eq!(config.config.unwrap().output[0].data_type, 11);
        let index: RepositoryIndexResponse =
            client.call("RepositoryIndex", RepositoryIndexRequest::default()).await.unwrap();
        assert_eq!(index.models[0].state, "READY");
        let inferred = request(vec![text(1)], vec![raw(&["a"])]);
        let _answer: ModelInferResponse = client.call("ModelInfer", inferred).await.unwrap();
        let all = ModelRequest::default();
        let said: ModelStatisticsResponse = client.call("ModelStatistics", all).await.unwrap();
        let stats = &said.model_stats[0];
        assert_eq!((stats.name.as_str(), stats.inference_count), (MODEL, 1));
        assert_eq!(stats.inference_stats.as_ref().unwrap().success.as_ref().unwrap().count, 1);
    });
}

#[test]
fn what_is_wrong_is_named_with_grpcs_own_code() {
    let gateway = Gateway::with_model();
    let cut = |value| InferParameter { choice: Some(value) };
    let with = |key: &str, value| {
        let mut asked = request(vec![text(1)], vec![raw(&["a"])]);
        asked.parameters.insert(key.to_owned(), cut(value));
        asked
    };
    let unknown_output = ModelInferRequest {
        outputs: vec![InferRequestedOutput { name: "logits".into(), ..Default::default() }],
        ..request(vec![text(1)], vec![raw(&["a"])])
    };
    let cases: Vec<(ModelInferRequest, u32, &str)> = vec![
        (ModelInferRequest { model_name: "gpt".into(), ..Default::default() }, 5, "no model `gpt`"),
        (
            ModelInferRequest { model_version: "9".into(), ..request(vec![], vec![]) },
            5,
            "no version `9`",
        ),
        (request(vec![], vec![]), 3, "no input `text`"),
        (request(vec![text(2)], vec![raw(&["a"])]), 3, "shape [2] but 1 elements"),
        (
            request(vec![text(1)], vec![Bytes::from_static(b"\x09\0\0\0a")]),
            3,
            "ends within element 0",
        ),
        (request(vec![text(1)], vec![raw(&["a"]), raw(&["b"])]), 3, "1 inputs and 2 entries"),
        (
            request(vec![InferTensor { contents: typed(&["a"]), ..text(1) }], vec![raw(&["a"])]),
            3,
            "both contents",
        ),
        (request(vec![text(1)], vec![Bytes::from_static(b"\x01\0\0\0\xff")]), 3, "not UTF-8"),
        (unknown_output, 3, "no output `logits`"),
        (with("sequence_id", ParameterChoice::Int64(1)), 3, "keeps state"),
        (with("truncate", ParameterChoice::Int64(1)), 3, "bool_param"),
        (request(vec![text(1)], vec![raw(&["a ".repeat(2000).as_str()])]), 3, "more tokens"),
    ];
    gateway.runtime.block_on(async {
        let mut client = Client::connect(&gateway).await;
        for (asked, code, expected) in cases {
            let failed = client.call::<ModelInferResponse>("ModelInfer", asked).await.unwrap_err();
            assert_eq!(failed.code, code, "{}", failed.message);
            assert!(failed.message.contains(expected), "`{}` is not `{expected}`", failed.message);
        }
        let long = with("truncate", ParameterChoice::Bool(true));
        let long = ModelInferRequest {
            raw_input_contents: vec![raw(&["a ".repeat(2000).as_str()])],
            ..long
        };
        let _cut: ModelInferResponse = client.call("ModelInfer", long).await.unwrap();

        let load = RepositoryModelRequest { model_name: MODEL.into(), ..Default::default() };
        let failed = client.call::<Empty>("RepositoryModelLoad", load).await.unwrap_err();
        assert!(failed.code == 7 && failed.message.contains("signed release"), "{failed:?}");
        let failed =
            client.call::<Empty>("SystemSharedMemoryRegister", Empty {}).await.unwrap_err();
        assert_eq!(failed.code, 12);
        for (frame, expected) in
            [(vec![0, 0, 0, 0, 2, 0xff, 0xff], 13), (vec![0, 0xff, 0, 0, 0], 8), (vec![], 13)]
        {
            let failed = client.send::<Empty>("ModelInfer", frame).await.unwrap_err();
            assert!([expected, 3, 11].contains(&failed.code), "{failed:?}");
        }
        let mut stranger = Client { authorization: None, ..client.clone() };
        let failed = stranger.call::<Empty>("ServerLive", Empty {}).await.unwrap_err();
        assert_eq!(failed.code, 16);
        let mut hurried = Client { timeout: Some("1n"), ..client };
        let asked = request(vec![text(1)], vec![raw(&["a"])]);
        let failed = hurried.call::<Empty>("ModelInfer", asked).await.unwrap_err();
        assert_eq!(failed.code, 4, "{failed:?}");
    });
}

#[test]
fn an_ending_gateway_finishes_what_http2_has_under_way() {
    let gateway = Gateway::with_model();
    gateway.runtime.block_on(async {
        let mut client = Client::connect(&gateway).await;
        let mut other = client.clone();
        let ready: ReadyResponse = client.call("ServerReady", Empty {}).await.unwrap();
        assert!(ready.ready);
        let long = "a text of some length ".repeat(10);
        let asked = request(vec![text(64)], vec![raw(&vec![long.as_str(); 64])]);
        let under_way =
            tokio::spawn(
                async move { other.call::<ModelInferResponse>("ModelInfer", asked).await },
            );
        let begun = async {
            while gateway.context.metrics.in_flight.get() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), begun).await.unwrap();
        gateway.taking.send_replace(Taking::Leave);
        let answer = under_way.await.unwrap().unwrap();
        assert_eq!(answer.outputs[0].shape, [64, 384]);
    });
}
