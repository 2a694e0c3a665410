//! Tokens as an encoder takes them.

/// One text, or a pair of texts, as token ids with their special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence<'a> {
    /// Ids of the vocabulary, at least one.
    pub ids: &'a [u32],
    /// Where the second text of a pair begins: tokens from here on have the type 1, those before it 0. The number of ids
    /// for a single text.
    pub second_at: usize,
}

impl<'a> Sequence<'a> {
    /// One text.
    pub const fn single(ids: &'a [u32]) -> Self {
        Self { ids, second_at: ids.len() }
    }

    /// The type of the token at each position.
    pub fn types(&self) -> impl Iterator<Item = i64> + use<> {
        let second_at = self.second_at;
        (0..self.ids.len()).map(move |at| i64::from(at >= second_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_text_of_a_pair_has_another_type() {
        let ids = [101, 7, 102, 9, 102];
        let pair = Sequence { ids: &ids, second_at: 3 };
        assert_eq!(pair.types().collect::<Vec<_>>(), [0, 0, 0, 1, 1]);
        assert_eq!(Sequence::single(&ids).types().collect::<Vec<_>>(), [0; 5]);
    }
}
