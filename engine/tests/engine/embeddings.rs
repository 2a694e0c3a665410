//! The embeddings, against onnxruntime's and at their limits.

use std::{error::Error as _, fs, time::Duration};

use engine::{
    embedder::{EmbedError, Embedder, LongText},
    encoder_spec::InputKind,
    package::{MODEL_FILE, TOKENIZER_FILE},
    pooling::cosine,
    text_tokenizer::TextError,
    weight_form::WeightForm,
};
use serde::Deserialize;

use crate::{
    dequantized,
    fixture::{embedder, real, spec},
};

/// What onnxruntime 1.x gives for the same model file, mean-pooled over the tokens and scaled to length 1.
const PEER: &str = include_str!("onnxruntime.jsonl");

#[derive(Deserialize)]
struct Expected {
    text: String,
    tokens: u32,
    vector: Vec<f32>,
}

/// The least cosine between what `embedder` gives and what onnxruntime gives.
fn worst_cosine(embedder: &Embedder) -> f32 {
    let expected: Vec<Expected> =
        PEER.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&str> = expected.iter().map(|case| case.text.as_str()).collect();
    let found = embedder.embed(&texts, InputKind::Plain, LongText::Refuse).unwrap();
    let mut worst = 1.0_f32;
    for (case, found) in expected.iter().zip(found) {
        assert_eq!(found.tokens, case.tokens, "{}", case.text);
        worst = worst.min(cosine(&found.vector, &case.vector));
    }
    worst
}

#[test]
fn embeddings_equal_onnxruntime() {
    let onnx = dequantized::in_floats(&real(MODEL_FILE));
    let floats = Embedder::load(&spec(), &onnx, &real(TOKENIZER_FILE)).unwrap();
    assert_eq!(floats.weight_form(), Some(WeightForm::Floats));
    let worst = worst_cosine(&floats);
    println!("in floats: worst cosine {worst:.7}");
    assert!(worst >= 0.9999, "the same arithmetic: {worst}");
}

#[test]
fn quantized_activations_cost_less_than_a_thousandth() {
    assert!(matches!(embedder().weight_form(), Some(WeightForm::Blocks { bits: 8, .. })));
    // The peer multiplies by the dequantized weights in f32; here activations are quantized too, in blocks.
    let worst = worst_cosine(embedder());
    println!("in blocks: worst cosine {worst:.7}");
    assert!(worst >= 0.999, "{worst}");
}

#[test]
fn a_batch_gives_what_its_texts_give_alone() {
    let texts = ["Bonjour", "How do I install a printer?", "Bonjour"];
    let together = embedder().embed(&texts, InputKind::Plain, LongText::Cut).unwrap();
    for (text, embedding) in texts.iter().zip(&together) {
        assert_eq!(*embedding, embedder().embed_one(text, InputKind::Plain).unwrap(), "{text}");
    }
}

#[test]
fn texts_that_cannot_be_embedded_are_named() {
    let embed =
        |text: &str| match embedder().embed(&["fine", text], InputKind::Plain, LongText::Refuse) {
            Err(reason) => {
                format!(
                    "{reason} / {}",
                    reason.source().map(ToString::to_string).unwrap_or_default()
                )
            }
            Ok(_) => "accepted".to_owned(),
        };
    let megabyte = "mot ".repeat(256 * 1024);
    let cases = [
        ("", "text 1 of the request is refused / text is empty: send at least one word"),
        (" \n\t", "text 1 of the request is refused / text is empty: send at least one word"),
        (
            "\u{200b}\u{0}",
            "text 1 of the request is refused / text has no token that the model knows: send at least one word",
        ),
        (
            &megabyte,
            "text 1 of the request is refused / text of 1048576 bytes is longer than the 65536 accepted: shorten it or send it in parts",
        ),
        (
            &"mot ".repeat(400),
            "text 1 of the request has more tokens than the model takes: shorten it, or allow it to be cut / ",
        ),
        ("été 漢字 🙂 ok", "accepted"),
    ];
    for (text, expected) in cases {
        assert_eq!(embed(text), expected);
    }
    let none: [&str; 0] = [];
    assert!(matches!(
        embedder().embed(&none, InputKind::Plain, LongText::Cut),
        Err(EmbedError::NoTexts)
    ));
    assert!(matches!(
        embedder().embed(&vec!["a"; 257], InputKind::Plain, LongText::Cut),
        Err(EmbedError::TooManyTexts { texts: 257, max: 256 })
    ));
    assert!(matches!(
        embedder().embed_one("", InputKind::Plain),
        Err(EmbedError::Text { at: 0, source: TextError::Empty })
    ));
}

#[test]
fn a_long_text_is_cut_at_the_models_length() {
    let long = "mot ".repeat(400);
    assert_eq!(embedder().embed_one(&long, InputKind::Plain).unwrap().tokens, 256);
}

#[test]
fn a_question_is_computed_within_an_interactive_budget() {
    let question = "How do I connect to the VPN from home today?";
    embedder().embed_one(question, InputKind::Plain).unwrap();
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let before = computed();
        embedder().embed_one(question, InputKind::Plain).unwrap();
        best = best.min(computed() - before);
    }
    println!("one question: best of 20 {best:?} of processor time");
    // Dequantizing the embedding table at every call would by itself take longer.
    assert!(best < Duration::from_millis(18), "best of 20 took {best:?} of processor time");
}

/// Time this thread has spent on a processor: what others do on the machine counts little.
fn computed() -> Duration {
    let line = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(line.split_whitespace().next().unwrap().parse().unwrap())
}
