//! Magika, which tells the kind of a file by its bytes: from the description that is published with it to ours.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    encoder_spec::{EncoderInput, Pooling},
    head::BytesSpec,
    package::{Spec, Task},
};

/// Of `config.min.json`, what a prediction needs.
#[derive(Debug, Deserialize)]
struct Config {
    beg_size: u32,
    mid_size: u32,
    end_size: u32,
    block_size: u32,
    padding_token: i32,
    min_file_size_for_dl: u32,
    medium_confidence_threshold: f32,
    target_labels_space: Vec<String>,
    thresholds: BTreeMap<String, f32>,
    overwrite_map: BTreeMap<String, String>,
}

/// Why a description cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum MagikaError {
    /// Not one.
    #[error("config.min.json is not Magika's: take the one that lies beside its model.onnx")]
    Parse(#[source] serde_json::Error),
    /// It looks at parts of files that this version does not.
    #[error(
        "this Magika also looks at {0} bytes from the middle of a file, which this version does not: take standard_v3_3"
    )]
    Middle(u32),
}

/// The description of the package `name` for the model whose `config.min.json` is `config`.
///
/// # Errors
/// It is not Magika's, or of a kind that this version does not know.
pub fn describe(name: &str, version: &str, config: &[u8]) -> Result<Spec, MagikaError> {
    let config: Config = serde_json::from_slice(config).map_err(MagikaError::Parse)?;
    if config.mid_size > 0 {
        return Err(MagikaError::Middle(config.mid_size));
    }
    let dim = u32::try_from(config.target_labels_space.len()).unwrap_or(u32::MAX);
    let mut spec = Spec::sentence_encoder(name, version, dim);
    spec.task = Task::Bytes;
    spec.source = "Magika, by Google".into();
    spec.tokenizer.max_tokens = config.beg_size.saturating_add(config.end_size);
    spec.encoder.inputs = vec![EncoderInput::Bytes];
    spec.encoder.output = "target_label".into();
    spec.encoder.pooling = Pooling::None;
    spec.encoder.normalize = false;
    spec.limits.tokens_max = spec.limits.tokens_max.max(16 * spec.tokenizer.max_tokens);
    spec.limits.memory_bytes = 64 << 20;
    spec.bytes = Some(BytesSpec {
        beginning: config.beg_size,
        end: config.end_size,
        block: config.block_size,
        padding: config.padding_token,
        least_bytes: config.min_file_size_for_dl,
        labels: config.target_labels_space,
        threshold: config.medium_confidence_threshold,
        thresholds: config.thresholds,
        rename: config.overwrite_map,
    });
    Ok(spec)
}
