//! Cut vocabularies read what they were cut for as the whole ones did.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use serde_json::{Value, json};
use tokenizers::Tokenizer;
use workbench::import::{
    cut::{self, Cut},
    languages::Language,
};

use crate::files;

fn languages() -> Vec<Language> {
    ["fr", "en"].map(|code| code.parse().unwrap()).to_vec()
}

/// SentencePiece's kind: pieces with scores, `<mask>` last.
fn unigram() -> Value {
    let mut pieces = vec![("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)];
    pieces.extend([
        ("▁bonjour", -5.0),
        ("▁hello", -5.5),
        ("▁bon", -4.0),
        ("jour", -4.5),
        ("▁привет", -6.0),
    ]);
    pieces.extend([
        ("▁", -3.0),
        ("a", -7.0),
        ("b", -7.1),
        ("c", -7.2),
        ("中", -9.0),
        ("<mask>", 0.0),
    ]);
    let special = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<s>"), special(1, "<pad>"), special(2, "</s>"), special(3, "<unk>"), special(14, "<mask>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true },
        "post_processor": { "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": true },
        "decoder": null,
        "model": { "type": "Unigram", "unk_id": 3, "vocab": pieces, "byte_fallback": false },
    })
}

fn cut(file: &Value, line: &str) -> Cut {
    let text = vec![line; 120].join("\n");
    cut::cut(file.to_string().as_bytes(), &languages(), &text, |_, _| ()).unwrap()
}

/// Tokens and ids of `text`.
fn read(json: &[u8], text: &str) -> (Vec<String>, Vec<u32>) {
    let mut tokenizer = Tokenizer::from_bytes(json).unwrap();
    tokenizer.with_padding(None);
    let encoding = tokenizer.encode(text, true).unwrap();
    (encoding.get_tokens().to_vec(), encoding.get_ids().to_vec())
}

#[test]
fn a_cut_vocabulary_reads_as_the_whole_one_and_every_token_keeps_its_row() {
    for (file, line) in
        [(unigram(), "bonjour hello abc"), (files::tokenizer(), "bonjour hellos mots")]
    {
        let cut = cut(&file, line);
        assert!(cut.kept.len() < cut.report.tokens_before, "{:?}", cut.report);
        let (before, old) = read(file.to_string().as_bytes(), line);
        let (after, new) = read(&cut.tokenizer, line);
        assert_eq!(after, before);
        let rows: Vec<u32> = new.iter().map(|id| cut.kept[*id as usize]).collect();
        assert_eq!(rows, old, "each new id leads to the row of the old one");
        assert_eq!(cut.report.held_out.lines_unchanged, cut.report.held_out.lines);
    }
}

#[test]
fn what_other_languages_write_goes_and_what_spells_stays() {
    let cut = cut(&unigram(), "hello");
    let tokens = Tokenizer::from_bytes(&cut.tokenizer).unwrap();
    for kept in ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "▁", "a", "c", "▁hello"] {
        assert!(tokens.token_to_id(kept).is_some(), "{kept}");
    }
    for gone in ["▁привет", "中", "▁bonjour"] {
        assert!(tokens.token_to_id(gone).is_none(), "{gone}");
    }
    assert_eq!(tokens.token_to_id("<mask>"), Some(cut.kept.len() as u32 - 1), "the order stays");
    // A word that the text did not have is spelt in smaller pieces, not lost.
    let (spelt, _) = read(&cut.tokenizer, "bac");
    assert_eq!(spelt, ["<s>", "▁", "b", "a", "c", "</s>"]);
}

#[test]
fn a_text_too_short_to_show_a_language_is_refused() {
    let refusal = cut::cut(unigram().to_string().as_bytes(), &languages(), "hello\n\n", |_, _| ());
    assert_eq!(
        refusal.unwrap_err().to_string(),
        "text has 1 lines with words; give at least 100, so that the languages show"
    );
}
