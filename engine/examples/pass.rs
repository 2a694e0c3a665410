//! Where the time of one pass goes: `pass MODEL.onnx [TOKENS] [SEQUENCES] [THREADS]` prints the operators by time.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a tool that measures and prints"
)]

use std::{
    collections::BTreeMap,
    error::Error,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use engine::{encoder::Encoder, package::Spec, sequence::Sequence};

/// Passes measured.
const PASSES: usize = 50;

/// What the system says this process holds, and held at most.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map_or_else(String::new, |rest| rest.trim().to_owned())
    };
    format!("{} (at most {})", line("VmRSS:"), line("VmHWM:"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let path = words.next().ok_or("say which model.onnx")?;
    let mut number = |default: usize| words.next().map_or(Ok(default), |word| word.parse());
    let (tokens, sequences, threads) = (number(128)?, number(1)?, number(1)?);
    let onnx = std::fs::read(path)?;
    let spec = Spec::sentence_encoder("pass", "1", 384);
    let threads = NonZeroUsize::new(threads).ok_or("at least one thread")?;
    let began = Instant::now();
    let encoder = Encoder::load(&onnx, 20_000, &spec.encoder, threads)?;
    drop(onnx);
    println!(
        "loaded in {:.0} ms, {} resident, ragged: {}",
        began.elapsed().as_secs_f64() * 1e3,
        resident(),
        encoder.is_ragged()
    );
    let ids: Vec<u32> = (0..tokens as u32).map(|at| 1000 + at * 37 % 20_000).collect();
    let batch = vec![Sequence::single(&ids); sequences];
    let mut whole = Vec::new();
    for _ in 0..PASSES {
        let before = Instant::now();
        std::hint::black_box(encoder.encode_batch(&batch)?);
        whole.push(before.elapsed());
    }
    whole.sort_unstable();
    println!("{sequences} × {tokens} tokens: median {:?}, least {:?}", whole[PASSES / 2], whole[0]);
    let begin = Instant::now();
    let now = || begin.elapsed();
    let mut kinds: BTreeMap<String, (usize, Vec<Duration>)> = BTreeMap::new();
    let mut overhead = Vec::new();
    for pass in 0..PASSES {
        let before = Instant::now();
        let timings = encoder.profile(&batch, &now)?;
        let whole = before.elapsed();
        overhead.push(whole.saturating_sub(timings.iter().map(|timing| timing.took).sum()));
        for timing in timings {
            let (count, passes) = kinds.entry(timing.op).or_default();
            *count += usize::from(pass == 0);
            passes.resize(pass + 1, Duration::ZERO);
            if let Some(took) = passes.last_mut() {
                *took += timing.took;
            }
        }
    }
    let least = |took: &[Duration]| took.iter().min().map_or(0.0, |took| took.as_secs_f64() * 1e3);
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by(|one, other| least(&other.1.1).total_cmp(&least(&one.1.1)));
    println!("least over {PASSES} passes of the operators of one kind:");
    for (kind, (count, took)) in kinds {
        println!("{:8.3} ms  {count:4} × {kind}", least(&took));
    }
    println!("{:8.3} ms        between them", least(&overhead));
    Ok(())
}
