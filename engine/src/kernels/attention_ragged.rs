//! Attention within each of several sequences that follow each other without padding.

use crate::kernels::{
    attention::{Attention, Products, Qkv},
    attention_words,
    linear::panels,
    scratch,
    threads::Threads,
};

impl Attention {
    /// `out[i] = Σⱼ softmaxⱼ(scale · q[i]·k[j]) · v[j]` for each head, over the `j` of the sequence of `i`.
    ///
    /// Sequence `s` is the rows `segments[s]..segments[s + 1]`. Scores of a tile of rows against a whole sequence are
    /// held at once; there is no approximation beyond that of [`crate::kernels::softmax`]. A number that is not finite
    /// makes what depends on it NaN.
    ///
    /// # Panics
    /// `segments` does not start at 0, ascend and end at the rows of `out`, or a matrix has fewer rows.
    pub fn ragged(self, qkv: Qkv<'_>, segments: &[u32], threads: &Threads, out: &mut [f32]) {
        let width = self.heads * self.head_dim;
        assert!(width > 0 && self.scale > 0.0, "a head needs a width, and scores a scale above 0");
        let rows = out.len() / width;
        assert!(out.len() == rows * width, "result of {} is not rows of {width}", out.len());
        assert!(segments.first().is_none_or(|first| *first == 0) && segments.is_sorted());
        assert!(segments.last().map_or(0, |last| *last as usize) == rows, "segments end elsewhere");
        for part in [qkv.queries, qkv.keys, qkv.values] {
            let enough = rows == 0 || part.data.len() >= (rows - 1) * part.stride + width;
            assert!(
                enough && part.stride >= width,
                "a matrix has fewer than {rows} rows of {width}"
            );
        }
        let longest = segments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as usize;
        let products = out.len() * longest * 2;
        threads.split(
            out,
            width,
            panels::tile_rows(self.isa),
            products,
            &|range, out: &mut [f32]| {
                scratch::with(|scratch| {
                    for pair in segments.windows(2) {
                        let sequence = pair[0] as usize..pair[1] as usize;
                        let first = sequence.start.max(range.start);
                        let end = sequence.end.min(range.end);
                        if first < end {
                            let out = &mut out
                                [(first - range.start) * width..(end - range.start) * width];
                            let narrow = self.head_dim <= attention_words::HEAD_MAX;
                            if narrow && self.products == Products::Words {
                                attention_words::sequence(self, scratch, qkv, sequence, first, out);
                            } else {
                                self.sequence(scratch, qkv, sequence, first, out);
                            }
                        }
                    }
                });
            },
        );
    }
}
