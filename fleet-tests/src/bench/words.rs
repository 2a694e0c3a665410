//! Texts of a wished number of tokens: real words that are one token each.

use anyhow::ensure;
use engine::text_tokenizer::TextTokenizer;
use fastrand::Rng;

/// Fewer words than this would make all texts alike.
const WORDS_MIN: usize = 40;

/// Words that a model's tokenizer keeps whole.
#[derive(Debug)]
pub struct Words {
    words: Vec<String>,
    /// Tokens of the empty sequence: what is put around a text.
    around: usize,
}

/// A text and what the model's tokenizer makes of it.
#[derive(Clone, Debug)]
pub struct Text {
    /// The words.
    pub text: String,
    /// The tokens, special ones included.
    pub ids: Vec<u32>,
}

impl Words {
    /// The words of `corpus` that are one token each.
    ///
    /// # Errors
    /// There are too few.
    pub fn of(corpus: &str, tokenizer: &TextTokenizer) -> anyhow::Result<Self> {
        let mut words: Vec<String> = corpus
            .split(|letter: char| !letter.is_ascii_alphabetic())
            .filter(|word| word.len() >= 3)
            .map(str::to_lowercase)
            .collect();
        words.sort_unstable();
        words.dedup();
        let tokens =
            |text: &str| tokenizer.tokens("", text).map_or(0, |sequence| sequence.ids.len());
        let shortest = words.iter().map(|word| tokens(word)).filter(|count| *count > 0).min();
        let around = shortest.unwrap_or_default().saturating_sub(1);
        words.retain(|word| tokens(word) == around + 1);
        ensure!(words.len() >= WORDS_MIN, "only {} words are one token each", words.len());
        Ok(Self { words, around })
    }

    /// A text of `tokens` tokens; of the fewest there can be, where that is more.
    ///
    /// # Errors
    /// The words together make another number of tokens than one by one.
    pub fn text(
        &self,
        tokens: usize,
        tokenizer: &TextTokenizer,
        random: &mut Rng,
    ) -> anyhow::Result<Text> {
        let count = tokens.saturating_sub(self.around).max(1);
        let drawn: Vec<&str> =
            (0..count).filter_map(|_| random.choice(&self.words).map(String::as_str)).collect();
        let text = drawn.join(" ");
        let ids = tokenizer.tokens("", &text)?.ids;
        ensure!(ids.len() == count + self.around, "`{text}` is {} tokens", ids.len());
        Ok(Text { text, ids })
    }
}
