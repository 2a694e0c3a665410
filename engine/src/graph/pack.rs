//! Packs what a fused node computes for this machine, and runs it.

use std::sync::Arc;

use tract_onnx::{
    prelude::{TValue, Tensor, TractResult},
    tract_core::internal::bail,
};

use crate::{
    graph::{
        file::GraphError,
        fused::{self, Activation, After, Fused, Integer, Positions, Weight},
        numbers::Bytes,
        step::{Pool, Step, StepOp, ids, numbers, segments},
    },
    kernels::{
        attention::{Attention, Qkv},
        embedding::BlockTable,
        gelu,
        isa::Isa,
        layer_norm::{Norm, add, layer_norm},
        linear::{
            affine::{AffineLinear, AffineWeights, Codes, InputScale},
            block::{BlockLinear, BlockWeights},
            epilogue::Epilogue,
            float::FloatLinear,
            packed::{Bits, WeightsError},
            panels::Strided,
        },
        pooling::{self, Row},
        quantize::Affine,
        threads::Threads,
    },
};

/// The operator that computes `fused`, the content of node `name`.
pub(super) fn step(
    name: &str,
    fused: Fused,
    threads: &Arc<Threads>,
    pool: &Arc<Pool>,
) -> Result<StepOp, GraphError> {
    let isa = Isa::best();
    let (kind, rule) = (fused.name(), fused.rule());
    let wrong =
        |source| GraphError::Weights { node: name.trim_start_matches("socle:").to_owned(), source };
    let step: Arc<dyn Step> = match fused {
        Fused::Linear(linear) => Arc::new(linear_step(isa, linear, threads).map_err(wrong)?),
        Fused::Table(table) => {
            let fused::Table { rows, width, blocks } = table;
            let fused::Blocks { bits, block: _, codes, scales } = blocks;
            Arc::new(
                BlockTable::new(isa, bits.kernel(), rows, width, codes, scales).map_err(wrong)?,
            )
        }
        Fused::Norm(norm) => Arc::new(NormStep { isa, norm }),
        Fused::Gelu => Arc::new(GeluStep { isa }),
        Fused::Sum => Arc::new(SumStep { isa }),
        Fused::Attention(attention) => {
            let fused::Attention { heads, head_dim, scale, products } = attention;
            let attention = Attention { isa, heads, head_dim, scale, products };
            Arc::new(AttentionStep { attention, threads: Arc::clone(threads) })
        }
        Fused::Positions(positions) => Arc::new(positions),
        Fused::FirstTokens => Arc::new(FirstTokens),
    };
    Ok(StepOp { name: kind, rule, step, pool: Arc::clone(pool) })
}

impl fused::Bits {
    const fn kernel(self) -> Bits {
        match self {
            Self::Eight => Bits::Eight,
            Self::Four => Bits::Four,
        }
    }
}

/// A packed matrix.
#[derive(Debug)]
enum Packed {
    Block(BlockLinear),
    Float(FloatLinear),
    Affine(AffineLinear, InputScale),
}

#[derive(Debug)]
struct LinearStep {
    packed: Packed,
    n: usize,
    k: usize,
    after: After,
    by_segment: bool,
    threads: Arc<Threads>,
}

fn linear_step(
    isa: Isa,
    linear: fused::Linear,
    threads: &Arc<Threads>,
) -> Result<LinearStep, WeightsError> {
    let by_segment = linear.needs_segments();
    let fused::Linear { n, k, weight, bias, after } = linear;
    let bias = bias.as_deref();
    let packed = match weight {
        Weight::Blocks(fused::Blocks { bits, block, codes, scales }) => {
            let (codes, scales) = (codes.as_slice(), scales.as_slice());
            let weights = BlockWeights { bits: bits.kernel(), block, n, k, codes, scales, bias };
            Packed::Block(BlockLinear::new(isa, weights)?)
        }
        Weight::Float(weights) => Packed::Float(FloatLinear::new(isa, k, n, &weights, bias)?),
        Weight::Integer(Integer { q, zeros, scales, activation }) => {
            let codes = match &q {
                Bytes::Signed(q) => Codes::Signed(q),
                Bytes::Unsigned(q) => Codes::Unsigned(q),
            };
            let (zero_points, scales) = (zeros.as_slice(), scales.as_slice());
            let weights = AffineWeights { k, n, codes, zero_points, scales, bias };
            Packed::Affine(AffineLinear::new(isa, weights)?, input_scale(activation))
        }
    };
    Ok(LinearStep { packed, n, k, after, by_segment, threads: Arc::clone(threads) })
}

impl LinearStep {
    fn rows(&self, x: &[f32], residual: Option<&[f32]>, out: &mut [f32]) {
        let epilogue = match (self.after, residual) {
            (After::Gelu, _) => Epilogue::Gelu,
            (After::Residual, Some(residual)) => Epilogue::Residual(residual),
            (After::Residual | After::Nothing, _) => Epilogue::None,
        };
        match &self.packed {
            Packed::Block(linear) => linear.run(x, epilogue, &self.threads, out),
            Packed::Float(linear) => linear.run(x, epilogue, &self.threads, out),
            Packed::Affine(linear, scale) => linear.run(x, *scale, epilogue, &self.threads, out),
        }
    }
}

impl Step for LinearStep {
    fn run(&self, inputs: &[TValue], pool: &Pool) -> TractResult<TValue> {
        let Some(x) = inputs.first() else { bail!("a linear has no input") };
        let mut shape = x.shape().to_vec();
        let x = numbers(x)?;
        let rows = x.len() / self.k;
        let Some(last) = shape.last_mut().filter(|last| **last == self.k) else {
            bail!("a linear of {} inputs was given {shape:?}", self.k);
        };
        *last = self.n;
        let residual = match (self.after, inputs.get(1)) {
            (After::Residual, Some(residual)) => {
                if residual.shape() != shape.as_slice() {
                    bail!("a residual of {:?} is added to {shape:?}", residual.shape());
                }
                Some(numbers(residual)?)
            }
            (After::Residual, None) => bail!("a linear lacks its residual"),
            (After::Nothing | After::Gelu, _) => None,
        };
        let starts = if self.by_segment { segments(inputs.last(), rows)? } else { Vec::new() };
        pool.floats(&shape, |out| {
            if !self.by_segment {
                self.rows(x, residual, out);
                return Ok(());
            }
            for pair in starts.windows(2) {
                let [from, to] = [pair[0] as usize, pair[1] as usize];
                let wide = from * self.n..to * self.n;
                let residual = residual.map(|residual| &residual[wide.clone()]);
                self.rows(&x[from * self.k..to * self.k], residual, &mut out[wide]);
            }
            Ok(())
        })
    }
}

fn input_scale(activation: Activation) -> InputScale {
    match activation {
        Activation::Dynamic => InputScale::Dynamic,
        Activation::Static { scale, zero, signed } => {
            // Signed codes are unsigned ones that are 128 less, and so is their zero.
            let zero = if signed { zero + 128 } else { zero };
            InputScale::Static(Affine { scale, zero_point: u8::try_from(zero).unwrap_or(0) })
        }
    }
}

impl Step for BlockTable {
    fn run(&self, inputs: &[TValue], pool: &Pool) -> TractResult<TValue> {
        let Some(given) = inputs.first() else { bail!("a table has no ids") };
        let mut shape = given.shape().to_vec();
        shape.push(self.width());
        let rows = i64::try_from(self.rows())?;
        // ONNX counts negative ids from the end.
        let id = |id: &i64| u32::try_from(if *id < 0 { *id + rows } else { *id });
        let ids = ids(given)?.iter().map(id).collect::<Result<Vec<_>, _>>()?;
        pool.floats(&shape, |out| Ok(self.gather(&ids, out)?))
    }
}

#[derive(Debug)]
struct NormStep {
    isa: Isa,
    norm: fused::Norm,
}

impl Step for NormStep {
    fn run(&self, inputs: &[TValue], pool: &Pool) -> TractResult<TValue> {
        let Some(x) = inputs.first() else { bail!("a norm has no input") };
        let fused::Norm { gamma, beta, epsilon } = &self.norm;
        let numbers = numbers(x)?;
        if x.shape().last() != Some(&gamma.len()) {
            bail!("a norm of {} columns was given {:?}", gamma.len(), x.shape());
        }
        pool.floats(x.shape(), |out| {
            let norm = Norm { gamma, beta, epsilon: *epsilon };
            layer_norm(self.isa, numbers, None, norm, out);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct GeluStep {
    isa: Isa,
}

impl Step for GeluStep {
    fn run(&self, inputs: &[TValue], pool: &Pool) -> TractResult<TValue> {
        let Some(x) = inputs.first() else { bail!("a GELU has no input") };
        let numbers = numbers(x)?;
        pool.floats(x.shape(), |out| {
            out.copy_from_slice(numbers);
            gelu::gelu(self.isa, out);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct SumStep {
    isa: Isa,
}

impl Step for SumStep {
    fn run(&self, inputs: &[TValue], pool: &Pool) -> TractResult<TValue> {
        let [left, right] = inputs else { bail!("a sum has {} inputs", inputs.len()) };
        if left.shape() != right.shape() {
            bail!("a sum of {:?} and {:?}", left.shape(), right.shape());
        }
        let (one, other) = (numbers(left)?, numbers(right)?);
        pool.floats(left.shape(), |out| {
            out.copy_from_slice(one);
            add(self.isa, out, other);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct AttentionStep {
    attention: Attention,
    threads: Arc<Threads>,
}

impl Step for AttentionStep {
    fn run(&self, inputs: &[TValue], pool: &Pool) -> TractResult<TValue> {
        let Some((last, states)) = inputs.split_last() else { bail!("attention has no input") };
        let width = self.attention.heads * self.attention.head_dim;
        let Some(mut shape) = states.first().map(|states| states.shape().to_vec()) else {
            bail!("attention has no states");
        };
        let row = shape.last().copied().unwrap_or(0);
        let tokens = shape.iter().rev().skip(1).product::<usize>();
        let segments = segments(Some(last), tokens)?;
        let part = |at: usize| -> TractResult<Strided<'_>> {
            let found = match states {
                [all] if row == 3 * width => numbers(all)?.get(at * width..),
                [_, _, _] if row == width => states.get(at).map(numbers).transpose()?,
                _ => None,
            };
            match found {
                Some(data) if states.iter().all(|other| other.shape() == states[0].shape()) => {
                    Ok(Strided { data, stride: row })
                }
                _ => bail!("attention {width} wide was given rows of {row}"),
            }
        };
        let qkv = Qkv { queries: part(0)?, keys: part(1)?, values: part(2)? };
        if let Some(last) = shape.last_mut() {
            *last = width;
        }
        pool.floats(&shape, |out| {
            self.attention.ragged(qkv, &segments, &self.threads, out);
            Ok(())
        })
    }
}

impl Step for Positions {
    fn run(&self, inputs: &[TValue], _: &Pool) -> TractResult<TValue> {
        let Some(given) = inputs.first() else { bail!("positions have no ids") };
        let ids = ids(given)?;
        let mut positions = Vec::with_capacity(ids.len());
        for pair in segments(inputs.get(1), ids.len())?.windows(2) {
            positions.extend(self.of(&ids[pair[0] as usize..pair[1] as usize]));
        }
        let shape: &[usize] = if self.batched { &[1, ids.len()] } else { &[ids.len()] };
        Ok(Tensor::from_shape(shape, &positions)?.into())
    }
}

#[derive(Debug)]
struct FirstTokens;

impl Step for FirstTokens {
    fn run(&self, inputs: &[TValue], pool: &Pool) -> TractResult<TValue> {
        let Some(states) = inputs.first() else { bail!("first tokens have no states") };
        let [1, tokens, width] = *states.shape() else {
            bail!("first tokens of states of shape {:?}", states.shape());
        };
        let segments = segments(inputs.get(1), tokens)?;
        let sequences = segments.len() - 1;
        let numbers = numbers(states)?;
        pool.floats(&[sequences, width], |out| {
            pooling::pick(numbers, width, Row::First, &segments, out);
            Ok(())
        })
    }
}
