//! From the states of all tokens of several sequences to one vector a sequence.

use crate::kernels::isa::for_each_isa;

for_each_isa! {
    /// `out[s]` is the mean of the rows `segments[s]..segments[s+1]` of `states`; zero for an empty sequence.
    ///
    /// # Panics
    /// `segments` does not ascend, or does not fit `states` and `out`.
    pub fn mean(isa: Isa, states: &[f32], width: usize, segments: &[u32], out: &mut [f32]) {
        for (pair, out) in segments.windows(2).zip(out.chunks_exact_mut(width)) {
            let rows = &states[pair[0] as usize * width..pair[1] as usize * width];
            out.fill(0.0);
            for row in rows.chunks_exact(width) {
                for (sum, value) in out.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            let count = (pair[1] - pair[0]).max(1) as f32;
            for sum in out {
                *sum /= count;
            }
        }
    }
}

/// Which row of a sequence stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// The first: the classification token of BERT.
    First,
    /// The last: the end token of decoders.
    Last,
}

/// `out[s]` is the first or last row of `segments[s]..segments[s+1]`; zero for an empty sequence.
///
/// # Panics
/// `segments` does not ascend, or does not fit `states` and `out`.
pub fn pick(states: &[f32], width: usize, row: Row, segments: &[u32], out: &mut [f32]) {
    for (pair, out) in segments.windows(2).zip(out.chunks_exact_mut(width)) {
        let rows = &states[pair[0] as usize * width..pair[1] as usize * width];
        let mut rows = rows.chunks_exact(width);
        let picked = match row {
            Row::First => rows.next(),
            Row::Last => rows.next_back(),
        };
        match picked {
            Some(picked) => out.copy_from_slice(picked),
            None => out.fill(0.0),
        }
    }
}

for_each_isa! {
    /// Scales each row of `width` to length 1; a row of zeros stays. The length is summed in f64.
    pub fn normalize(isa: Isa, rows: &mut [f32], width: usize) {
        for row in rows.chunks_exact_mut(width) {
            let square: f64 = row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
            let length = square.sqrt() as f32;
            if length != 0.0 {
                for value in row {
                    *value /= length;
                }
            }
        }
    }
}
