//! Which characters languages are written with, so that a cut vocabulary still spells every word of them.

use std::{fmt, str::FromStr};

/// A language that a vocabulary can be cut to, by its ISO 639-1 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language {
    code: &'static str,
    script: Script,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Hebrew,
    Arabic,
}

/// A code that is not known.
#[derive(Debug, thiserror::Error)]
#[error("vocabularies cannot be cut to `{0}`; known are {all}", all = codes())]
pub struct UnknownLanguage(String);

const LANGUAGES: [(&str, Script); 28] = [
    ("ar", Script::Arabic),
    ("bg", Script::Cyrillic),
    ("ca", Script::Latin),
    ("cs", Script::Latin),
    ("da", Script::Latin),
    ("de", Script::Latin),
    ("el", Script::Greek),
    ("en", Script::Latin),
    ("es", Script::Latin),
    ("et", Script::Latin),
    ("fi", Script::Latin),
    ("fr", Script::Latin),
    ("he", Script::Hebrew),
    ("hr", Script::Latin),
    ("hu", Script::Latin),
    ("it", Script::Latin),
    ("lt", Script::Latin),
    ("lv", Script::Latin),
    ("nl", Script::Latin),
    ("no", Script::Latin),
    ("pl", Script::Latin),
    ("pt", Script::Latin),
    ("ro", Script::Latin),
    ("ru", Script::Cyrillic),
    ("sk", Script::Latin),
    ("sl", Script::Latin),
    ("sv", Script::Latin),
    ("uk", Script::Cyrillic),
];

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(code: &str) -> Result<Self, UnknownLanguage> {
        let found = LANGUAGES.iter().find(|(known, _)| *known == code);
        let (code, script) =
            found.ok_or_else(|| UnknownLanguage(code.chars().take(16).collect()))?;
        Ok(Self { code, script: *script })
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

/// Whether `character` can stand in a text of one of `languages`: a letter of its script, or Latin (names and loans
/// are written so everywhere), or a digit, a sign, a punctuation mark of no script.
pub fn writes(languages: &[Language], character: char) -> bool {
    let latin = matches!(character, '\0'..='\u{24f}' | '\u{1e00}'..='\u{1eff}');
    let signs = matches!(character, '\u{300}'..='\u{36f}' | '\u{2000}'..='\u{2bff}');
    latin || signs || languages.iter().any(|language| language.script.has(character))
}

impl Script {
    const fn has(self, character: char) -> bool {
        match self {
            Self::Latin => false,
            Self::Greek => matches!(character, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}'),
            Self::Cyrillic => matches!(character, '\u{400}'..='\u{52f}'),
            Self::Hebrew => matches!(character, '\u{590}'..='\u{5ff}'),
            Self::Arabic => matches!(character, '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}'),
        }
    }
}

fn codes() -> String {
    LANGUAGES.map(|(code, _)| code).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_written_with_its_script_latin_and_signs() {
        let languages = |codes: &[&str]| -> Vec<Language> {
            codes.iter().map(|code| code.parse().unwrap()).collect()
        };
        for character in ['e', 'é', 'œ', 'Ÿ', '7', '€', '’', '«', '→'] {
            assert!(writes(&languages(&["fr", "en"]), character), "{character}");
        }
        for character in ['ж', 'λ', '中', 'ع'] {
            assert!(!writes(&languages(&["fr", "en"]), character), "{character}");
        }
        assert!(writes(&languages(&["en", "ru"]), 'ж'));
        let refusal = "tlh".parse::<Language>().unwrap_err().to_string();
        assert!(
            refusal.starts_with("vocabularies cannot be cut to `tlh`; known are ar, bg"),
            "{refusal}"
        );
    }
}
