//! Rust source with what is not code blanked out, byte for byte, so that offsets stay true.

/// The source with comments and the insides of strings and characters turned into spaces.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match blank_end(bytes, at) {
            Some(end) => {
                blank(&mut out, at, end);
                end
            }
            None => at + 1,
        };
        at = end;
    }
    String::from_utf8(out).unwrap_or_default()
}

fn blank(out: &mut [u8], from: usize, to: usize) {
    for byte in out.iter_mut().take(to).skip(from) {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// Where the comment, string or character that starts here ends; `None` if none starts here.
fn blank_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    if rest.starts_with(b"//") {
        let line = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        return Some(at + line);
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment(rest));
    }
    let part_of_a_name = at > 0 && bytes.get(at - 1).is_some_and(|byte| is_name(*byte));
    if !part_of_a_name && let Some(length) = raw_string(rest) {
        return Some(at + length);
    }
    match rest.first()? {
        b'"' => Some(at + quoted(rest, b'"')),
        b'\'' if is_character(rest) => Some(at + quoted(rest, b'\'')),
        _ => None,
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(two) = rest.get(at..at + 2) {
        match two {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" => {
                (at, depth) = (at + 2, depth - 1);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` or `cr"…"` at the start.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = match rest {
        [b'b' | b'c', b'r', ..] => 2,
        [b'r', ..] => 1,
        _ => return None,
    };
    let hashes = rest.get(prefix..)?.iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let body = rest.get(open + 1..)?;
    let inside = body.windows(close.len()).position(|window| window == close);
    Some(inside.map_or(rest.len(), |inside| open + 1 + inside + close.len()))
}

/// A character, not a lifetime: `'\…`, or one character and a quote.
fn is_character(rest: &[u8]) -> bool {
    match rest {
        [_, b'\\', ..] => true,
        [_, first, ..] => {
            let width = match first {
                0x00..=0x7f => 1,
                0x80..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xff => 4,
            };
            rest.get(1 + width) == Some(&b'\'')
        }
        _ => false,
    }
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if *byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Blanked code without the items behind `#[cfg(test)]`.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(start) = code.get(from..).and_then(|rest| rest.find(MARK)).map(|at| from + at) {
        let end = item_end(code.as_bytes(), start + MARK.len());
        blank(&mut out, start, end);
        from = end;
    }
    String::from_utf8(out).unwrap_or_default()
}

/// After the item's closing brace, or after its `;` if that comes first.
fn item_end(bytes: &[u8], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

/// Byte offsets at which `word` stands as a whole word.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        let after = bytes.get(at + word.len());
        !before.is_some_and(|byte| is_name(*byte)) && !after.is_some_and(|byte| is_name(*byte))
    })
}

#[test]
fn comments_strings_and_characters_are_blanked_and_lifetimes_are_not() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("f(\"x\\\"y\") g", "f(      ) g"),
        ("f(r#\"a\"b\"#) g", "f(        ) g"),
        ("'x' 'a 'a' \"'\" z", "    'a         z"),
        ("for\"x\"", "for   "),
        ("'\\'' z", "     z"),
        ("\"é\" 'é' z", "          z"),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
}

#[test]
fn test_modules_are_blanked_and_what_follows_is_not() {
    let text = "a\n#[cfg(test)]\nmod tests { fn b() { c } }\nd #[cfg(test)] use e; f";
    let left = without_tests(text);
    for gone in ["b()", "tests", "use e"] {
        assert!(!left.contains(gone), "{left}");
    }
    assert!(left.starts_with("a\n") && left.contains("\nd ") && left.ends_with(" f"), "{left}");
}

#[test]
fn a_word_is_not_found_inside_another() {
    assert_eq!(words("unsafe_code unsafe {", "unsafe").collect::<Vec<_>>(), [12]);
}
