//! What says that work is not done: no such word in code.

use crate::rust;
use crate::tree::{self, Tree};

/// Put together here, so that this file does not hold them.
const IN_CODE: [&str; 4] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("#[ig", "nore"),
    concat!("db", "g!"),
];

const ANYWHERE: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X:")];

const KINDS: [&str; 7] = ["rs", "wgsl", "toml", "py", "sh", "service", "html"];

fn violations(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for file in tree.of_kind("rs") {
        let code = rust::code(&file.text);
        for word in IN_CODE {
            let places = code.match_indices(word).map(|(at, _)| file.at(at));
            found.extend(places.map(|place| format!("{place}: `{word}` in code")));
        }
    }
    for file in KINDS.iter().flat_map(|kind| tree.of_kind(kind)) {
        for word in ANYWHERE {
            let places = rust::words(&file.text, word).map(|at| file.at(at));
            found.extend(places.map(|place| format!("{place}: `{word}`")));
        }
    }
    found
}

#[test]
fn nothing_is_left_over() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn every_word_is_caught_in_code_and_left_alone_in_words() {
    for word in IN_CODE {
        assert_eq!(violations(&Tree::of(&[("x/src/a.rs", word)])).len(), 1, "{word}");
        let comment = format!("// never {word}");
        assert_eq!(violations(&Tree::of(&[("x/src/a.rs", &comment)])).len(), 0, "{word}");
    }
    for word in ANYWHERE {
        let comment = format!("# {word} later");
        assert_eq!(violations(&Tree::of(&[("x.toml", &comment)])).len(), 1, "{word}");
    }
}
