//! Numbers to compute with, from a seed that a failing property prints.

use engine::kernels::{
    isa::Isa,
    linear::{
        block::{BlockLinear, BlockWeights},
        packed::{BLOCK, Bits},
    },
};

/// SplitMix64.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Between -1 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| self.unit() * size).collect()
    }

    /// Sizes from the smallest to the largest that a model could hold, zeros among them, in runs of 32.
    pub(crate) fn wild_floats(&mut self, count: usize) -> Vec<f32> {
        let sizes = [0.0, 1e-38, 1e-30, 1e-6, 1.0, 1.0, 1.0, 300.0, 1e6, 1e12];
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            let size = sizes[self.below(sizes.len() as u64) as usize];
            values.extend(self.floats(32, size));
        }
        values.truncate(count);
        values
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Weights in blocks as a file holds them.
pub(crate) struct Stored {
    pub(crate) bits: Bits,
    pub(crate) block: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Stored {
    pub(crate) fn of(numbers: &mut Numbers, bits: Bits, n: usize, k: usize) -> Self {
        Self::in_blocks(numbers, bits, BLOCK, (n, k))
    }

    pub(crate) fn in_blocks(
        numbers: &mut Numbers,
        bits: Bits,
        block: usize,
        (n, k): (usize, usize),
    ) -> Self {
        let codes = numbers.bytes(bits.bytes(n * k));
        let scales = numbers.floats(n * k / block, 0.02);
        let bias = numbers.floats(n, 1.0);
        Self { bits, block, n, k, codes, scales, bias }
    }

    pub(crate) fn weights(&self) -> BlockWeights<'_> {
        let Self { bits, block, n, k, codes, scales, bias } = self;
        let (bits, block, n, k) = (*bits, *block, *n, *k);
        BlockWeights { bits, block, n, k, codes, scales, bias: Some(bias) }
    }

    pub(crate) fn packed(&self, isa: Isa) -> BlockLinear {
        BlockLinear::new(isa, self.weights()).unwrap()
    }

    /// The code of a weight, without its zero point.
    pub(crate) fn code(&self, column: usize, at: usize) -> i32 {
        let index = column * self.k + at;
        match self.bits {
            Bits::Eight => i32::from(self.codes[index]) - 128,
            Bits::Four => i32::from(self.codes[index / 2] >> (index % 2 * 4) & 15) - 8,
        }
    }

    pub(crate) fn scale(&self, column: usize, at: usize) -> f32 {
        self.scales[column * (self.k / self.block) + at / self.block]
    }
}

/// The bits of each number, so that NaN equals itself and 0 is not -0.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
