//! Prints how fast the CPU kernels are on this machine, beside the f32 products that it does at most.
//!
//! `cargo run --release -p engine --example kernels [FORM]`: billions of products a second of each form, or of FORM
//! alone, on one thread; the fastest of several rounds in which all kernels take turns, so that what else the machine
//! does falls on all of them alike. `%` is the share of the f32 peak of the same form; int8 may pass 100.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures time and prints it"
)]

use std::{hint::black_box, time::Instant};

use anyhow::Context as _;
use engine::kernels::{
    attention::{Attention, Products, Qkv},
    gelu,
    isa::Isa,
    layer_norm::{Norm, layer_norm},
    linear::{
        affine::{AffineLinear, AffineWeights, Codes, InputScale},
        block::{BlockLinear, BlockWeights},
        epilogue::Epilogue,
        float::FloatLinear,
        packed::Bits,
        panels::Strided,
    },
    peak,
    quantize::{BlockCodes, Width},
    softmax::softmax,
    threads::Threads,
};

const ROUNDS: usize = 15;
/// Each kernel runs for about so long a round.
const ROUND_S: f64 = 0.004;
const PEAK_ROUNDS: usize = 4096;
const BOTH: [Products; 2] = [Products::Floats, Products::Words];
const SHAPES: [(usize, usize); 4] = [(384, 384), (384, 1152), (384, 1536), (1536, 384)];

/// A product of an input into a result.
type Run = Box<dyn FnMut(&[f32], &mut [f32])>;

/// Something to time.
struct Case<'a> {
    name: String,
    /// Products, or elements, of one call.
    work: f64,
    unit: &'static str,
    call: Box<dyn FnMut() + 'a>,
    best_s: f64,
}

impl<'a> Case<'a> {
    fn new(name: String, work: usize, unit: &'static str, call: impl FnMut() + 'a) -> Self {
        Self { name, work: work as f64, unit, call: Box::new(call), best_s: f64::INFINITY }
    }

    fn round(&mut self) {
        let once = Instant::now();
        (self.call)();
        let calls = (ROUND_S / once.elapsed().as_secs_f64().max(1e-9)).clamp(1.0, 1e6) as usize;
        let start = Instant::now();
        for _ in 0..calls {
            (self.call)();
        }
        self.best_s = self.best_s.min(start.elapsed().as_secs_f64() / calls as f64);
    }
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 2_654_435_761) % 4093) as f32 / 2046.5 - 1.0).collect()
}

fn main() -> anyhow::Result<()> {
    let forms = match std::env::args().nth(1) {
        Some(name) => vec![Isa::named(&name).context("this machine has no such form")?],
        None => Isa::available().into_iter().filter(|isa| *isa != Isa::portable()).collect(),
    };
    for isa in forms {
        form(isa)?;
    }
    Ok(())
}

fn form(isa: Isa) -> anyhow::Result<()> {
    let products = peak::fused(isa, PEAK_ROUNDS, 0.5, &mut 0.0);
    let mut cases = vec![Case::new("f32 peak".to_owned(), products, "GMAC/s", move || {
        let mut out = 0.0;
        peak::fused(isa, black_box(PEAK_ROUNDS), black_box(0.999), &mut out);
        black_box(out);
    })];
    for (k, n) in SHAPES {
        linears(isa, k, n, &mut cases)?;
    }
    for (length, products) in
        [16, 64, 128, 256].into_iter().flat_map(|length| BOTH.map(|products| (length, products)))
    {
        let attention = Attention { isa, heads: 12, head_dim: 32, scale: 0.18, products };
        let rows = numbers(length * 1152);
        let mut out = vec![0.0; length * 384];
        cases.push(Case::new(
            format!("attention {length} {products:?}"),
            length * length * 768,
            "GMAC/s",
            move || {
                let part = |at: usize| Strided { data: &rows[at * 384..], stride: 1152 };
                let qkv = Qkv { queries: part(0), keys: part(1), values: part(2) };
                attention.ragged(qkv, &[0, length as u32], &Threads::one(), &mut out);
            },
        ));
    }
    for block in [32, 64, 128] {
        let (rows, mut codes) = (numbers(128 * 384), BlockCodes::default());
        let name = format!("quantize 128×384 /{block}");
        cases.push(Case::new(name, rows.len(), "G/s", move || {
            codes.fill(isa, Width::Byte, block, 128, black_box(&rows));
        }));
    }
    let start = numbers(3072);
    let mut values = start.clone();
    cases.push(Case::new("gelu 3072".to_owned(), values.len(), "G/s", move || {
        values.copy_from_slice(&start);
        gelu::gelu(isa, &mut values);
    }));
    let start = numbers(128 * 128);
    let mut values = start.clone();
    cases.push(Case::new("softmax 128×128".to_owned(), values.len(), "G/s", move || {
        values.copy_from_slice(&start);
        softmax(isa, &mut values, 128);
    }));
    let (rows, gamma) = (numbers(128 * 384), numbers(384));
    let mut out = vec![0.0; rows.len()];
    cases.push(Case::new("layer norm 128×384".to_owned(), rows.len(), "G/s", move || {
        let norm = Norm { gamma: &gamma, beta: &gamma, epsilon: 1e-12 };
        layer_norm(isa, &rows, Some(&rows), norm, &mut out);
    }));
    for _ in 0..ROUNDS {
        cases.iter_mut().for_each(Case::round);
    }
    let peak = cases[0].work / cases[0].best_s;
    println!("{}", isa.name());
    for case in &cases {
        let rate = case.work / case.best_s;
        let share = if case.unit == "GMAC/s" {
            format!("{:5.0} %", 100.0 * rate / peak)
        } else {
            String::new()
        };
        let (name, unit) = (&case.name, case.unit);
        println!("  {name:28} {:8.1} {unit:7} {share:8} {:9.1} µs", rate / 1e9, case.best_s * 1e6);
    }
    Ok(())
}

fn linears(isa: Isa, k: usize, n: usize, cases: &mut Vec<Case<'_>>) -> anyhow::Result<()> {
    let scales = vec![0.01; n * k / 32];
    let codes: Vec<u8> = (0..n * k).map(|at| ((at * 40_503) >> 7) as u8).collect();
    let packed = |bits: Bits, block: usize| {
        let (codes, scales) = (&codes[..bits.bytes(n * k)], &scales[..n * k / block]);
        BlockLinear::new(isa, BlockWeights { bits, block, n, k, codes, scales, bias: None })
    };
    let bytes = Codes::Unsigned(&codes);
    let weights =
        AffineWeights { k, n, codes: bytes, zero_points: &[128], scales: &[0.01], bias: None };
    let blocks = [
        ("8 bit/32", packed(Bits::Eight, 32)?),
        ("8 bit/64", packed(Bits::Eight, 64)?),
        ("8 bit/128", packed(Bits::Eight, 128)?),
        ("4 bit/32", packed(Bits::Four, 32)?),
    ];
    let (affine, float) =
        (AffineLinear::new(isa, weights)?, FloatLinear::new(isa, k, n, &numbers(n * k), None)?);
    for m in [1, 16, 128] {
        let mut add = |name: &str, mut run: Run| {
            let (x, mut out) = (numbers(m * k), vec![0.0; m * n]);
            let call = move || run(&x, black_box(&mut out));
            cases.push(Case::new(format!("{name} {m}×{k}×{n}"), m * k * n, "GMAC/s", call));
        };
        let one = Threads::one;
        for (name, linear) in &blocks {
            let linear = linear.clone();
            add(name, Box::new(move |x, out| linear.run(x, Epilogue::None, &one(), out)));
        }
        let (affine, float, gelu) = (affine.clone(), float.clone(), blocks[1].1.clone());
        add("8 bit/64 gelu", Box::new(move |x, out| gelu.run(x, Epilogue::Gelu, &one(), out)));
        add(
            "onnx int8",
            Box::new(move |x, out| affine.run(x, InputScale::Dynamic, Epilogue::None, &one(), out)),
        );
        add("f32", Box::new(move |x, out| float.run(x, Epilogue::None, &one(), out)));
    }
    Ok(())
}
