//! Memory that starts at a cache line, so that no vector load touches two of them.

use bytemuck::{Pod, Zeroable};

/// Bytes of a cache line, and of the widest vector register.
const LINE: usize = 64;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Plain numbers whose first one is aligned to 64 bytes.
#[derive(Clone, Default)]
pub struct Aligned {
    lines: Vec<Line>,
}

impl std::fmt::Debug for Aligned {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Aligned({} bytes)", self.lines.len() * LINE)
    }
}

impl Aligned {
    /// Room for `count` numbers of type `T`, all zero; rounded up to whole lines.
    pub fn zeros<T: Pod>(count: usize) -> Self {
        let mut aligned = Self::default();
        aligned.grow::<T>(count);
        aligned
    }

    /// Makes room for at least `count` numbers; what is new is zero.
    pub fn grow<T: Pod>(&mut self, count: usize) {
        let lines = (count * size_of::<T>()).div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line::zeroed());
        }
    }

    /// All of it. `T` is a number of at most 64 bytes whose size is a power of two.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.lines)
    }

    /// All of it, to write.
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }

    /// Bytes that it holds.
    pub const fn bytes(&self) -> usize {
        self.lines.len() * LINE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_at_a_line_and_grows_without_forgetting() {
        let mut memory = Aligned::zeros::<f32>(3);
        assert_eq!(memory.as_slice::<f32>().len(), 16);
        memory.as_mut_slice::<f32>()[2] = 5.0;
        memory.grow::<i8>(1000);
        assert_eq!(memory.as_slice::<f32>()[2], 5.0);
        assert_eq!(memory.as_slice::<u8>().as_ptr().addr() % LINE, 0);
        assert_eq!(memory.bytes(), 1024);
    }
}
