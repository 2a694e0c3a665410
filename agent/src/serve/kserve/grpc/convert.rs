//! Between gRPC's messages and what the rest of the protocol's code knows.

use std::collections::HashMap;

use bytes::Bytes;
use engine::worker::message::ModelInfo;

use crate::serve::{
    kserve::{
        element,
        exchange::{
            Inference, Input, Output, Values, check_count, element_count, refuse_parameter,
        },
        grpc::message::{
            BatchStatistics, ConfigInput, ConfigOutput, InferParameter, InferStatistics,
            InferTensor, InferTensorContents, ModelConfig, ModelInferRequest, ModelInferResponse,
            ModelMetadataResponse, ModelParameter, ModelStatistics, ParameterChoice,
            StatisticDuration, TensorMetadata,
        },
        rest,
        signature::{self, Port},
        statistics::{Duration, Statistics},
    },
    refused::Refused,
};

/// `TYPE_FP32` and `TYPE_STRING` of the model configuration.
const CONFIG_FP32: i32 = 11;
const CONFIG_STRING: i32 = 13;

/// How tensors are carried: a client is answered in the form it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// All bytes of a tensor in one field.
    Raw,
    /// A field for each type.
    Typed,
}

/// The request in `message`, and the form it came in.
///
/// # Errors
/// Names the tensor or parameter and what is wrong with it.
pub fn inference(message: ModelInferRequest) -> Result<(Inference, Contents), Refused> {
    let ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents, .. } = message;
    let truncate = truncate(&parameters)?;
    check_parameters("the request", &parameters)?;
    for output in &outputs {
        check_parameters(&output.name, &output.parameters)?;
    }
    let contents = if raw_input_contents.is_empty() { Contents::Typed } else { Contents::Raw };
    if contents == Contents::Raw && raw_input_contents.len() != inputs.len() {
        let message = format!(
            "there are {} inputs and {} entries of raw_input_contents; there must be one for each input",
            inputs.len(),
            raw_input_contents.len()
        );
        return Err(Refused::bad("raw_contents", message));
    }
    let mut raw = raw_input_contents.into_iter();
    let inputs =
        inputs.into_iter().map(|tensor| input(tensor, raw.next())).collect::<Result<_, _>>()?;
    let wanted = outputs.into_iter().map(|output| output.name).collect();
    let id = (!id.is_empty()).then_some(id);
    Ok((Inference { id, truncate, inputs, wanted }, contents))
}

fn input(tensor: InferTensor, raw: Option<Bytes>) -> Result<Input, Refused> {
    let InferTensor { name, datatype, shape, parameters, contents } = tensor;
    check_parameters(&name, &parameters)?;
    let count = element_count(&name, &datatype, &shape)?;
    let elements = match (raw, contents) {
        (Some(bytes), None) => element::elements(&name, bytes)?,
        (None, Some(contents)) => contents.bytes_contents,
        (None, None) => Vec::new(),
        (Some(_), Some(_)) => {
            let message =
                format!("input `{name}` has both contents and an entry of raw_input_contents");
            return Err(Refused::bad("raw_contents", message));
        }
    };
    check_count(&name, &shape, count, elements.len())?;
    Ok(Input { name, elements })
}

fn check_parameters(
    owner: &str,
    parameters: &HashMap<String, InferParameter>,
) -> Result<(), Refused> {
    parameters.keys().try_for_each(|key| refuse_parameter(owner, key))
}

fn truncate(parameters: &HashMap<String, InferParameter>) -> Result<bool, Refused> {
    match parameters.get("truncate").map(|parameter| &parameter.choice) {
        None => Ok(false),
        Some(Some(ParameterChoice::Bool(truncate))) => Ok(*truncate),
        Some(_) => Err(Refused::bad("parameter", "parameter `truncate` must be a bool_param")),
    }
}

/// The response with `outputs`.
pub fn response(
    id: Option<String>,
    model: &ModelInfo,
    outputs: Vec<Output>,
    contents: Contents,
) -> ModelInferResponse {
    let mut raw_output_contents = Vec::new();
    let outputs = outputs
        .into_iter()
        .map(|output| {
            let contents = match contents {
                Contents::Raw => {
                    raw_output_contents.push(element::raw(&output.values));
                    None
                }
                Contents::Typed => Some(typed(&output.values)),
            };
            InferTensor {
                name: output.name.to_owned(),
                datatype: output.values.datatype().to_owned(),
                shape: output.shape.iter().map(|size| i64::try_from(*size).unwrap_or(-1)).collect(),
                parameters: HashMap::new(),
                contents,
            }
        })
        .collect();
    ModelInferResponse {
        model_name: model.name.clone(),
        model_version: model.version.clone(),
        id: id.unwrap_or_default(),
        parameters: HashMap::new(),
        outputs,
        raw_output_contents,
    }
}

fn typed(values: &Values) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match values {
        Values::Fp32(_) => contents.fp32_contents = values.numbers().collect(),
        Values::Bytes(texts) => {
            contents.bytes_contents = texts.iter().map(|text| text.clone().into()).collect();
        }
    }
    contents
}

/// Metadata of `model`.
pub fn metadata(model: &ModelInfo) -> ModelMetadataResponse {
    let signature::Metadata { name, versions, platform, inputs, outputs } =
        signature::metadata(model);
    let ports = |ports: Vec<Port>| {
        let one = |Port { name, datatype, shape }: Port| TensorMetadata {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape,
        };
        ports.into_iter().map(one).collect()
    };
    let platform = platform.to_owned();
    ModelMetadataResponse {
        name,
        versions,
        platform,
        inputs: ports(inputs),
        outputs: ports(outputs),
    }
}

/// Configuration of `model`.
pub fn config(model: &ModelInfo) -> ModelConfig {
    let data_type =
        |port: &Port| if port.config_type() == "TYPE_FP32" { CONFIG_FP32 } else { CONFIG_STRING };
    let input = signature::inputs(model).into_iter().map(|port| ConfigInput {
        name: port.name.to_owned(),
        data_type: data_type(&port),
        dims: port.shape,
    });
    let output = signature::outputs(model).into_iter().map(|port| ConfigOutput {
        name: port.name.to_owned(),
        data_type: data_type(&port),
        dims: port.shape,
    });
    let parameters = rest::parameters(model)
        .into_iter()
        .map(|(key, string_value)| (key, ModelParameter { string_value }));
    ModelConfig {
        name: model.name.clone(),
        platform: signature::PLATFORM.to_owned(),
        max_batch_size: 0,
        input: input.collect(),
        output: output.collect(),
        parameters: parameters.collect(),
        backend: signature::BACKEND.to_owned(),
    }
}

/// Statistics of one model.
pub fn statistics(statistics: Statistics) -> ModelStatistics {
    let one = |Duration { count, ns }: Duration| Some(StatisticDuration { count, ns });
    let Statistics { name, version, last_inference, inference_count, execution_count, .. } =
        statistics;
    let times = statistics.inference_stats;
    let inference_stats = InferStatistics {
        success: one(times.success),
        fail: one(times.fail),
        queue: one(times.queue),
        compute_input: one(times.compute_input),
        compute_infer: one(times.compute_infer),
        compute_output: one(times.compute_output),
        cache_hit: one(times.cache_hit),
        cache_miss: one(times.cache_miss),
    };
    let batch_stats = statistics.batch_stats.into_iter().map(|batch| BatchStatistics {
        batch_size: batch.batch_size,
        compute_input: one(batch.compute_input),
        compute_infer: one(batch.compute_infer),
        compute_output: one(batch.compute_output),
    });
    ModelStatistics {
        name,
        version,
        last_inference,
        inference_count,
        execution_count,
        inference_stats: Some(inference_stats),
        batch_stats: batch_stats.collect(),
    }
}
