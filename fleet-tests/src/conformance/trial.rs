//! One test: its model on its inputs, beside its expected outputs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use engine::{
    cause,
    tensor_model::{Given, TensorModel, TensorModelError},
};
use tract_onnx::prelude::{Datum as _, Tensor};

use crate::conformance::{outcome::Outcome, tensors};

/// Most nodes: as many as a package may have without asking for more.
const NODES_MAX: usize = 20_000;
/// Largest model of a test.
const MODEL_BYTES_MAX: u64 = 64 << 20;

/// Tries the test in the folder `test`: what came of it, and why.
pub fn run(test: &Path) -> (Outcome, String) {
    match every_set(test, |_, _| Known::Shape) {
        Ok(()) => (Outcome::Pass, String::new()),
        Err((Outcome::Type, why)) => (Outcome::Type, one_line(&why)),
        Err((outcome, why)) => {
            let known = [of_whole_numbers, behind_the_first];
            let known = known.into_iter().any(|known| every_set(test, known).is_ok());
            (if known { Outcome::Known } else { outcome }, one_line(&why))
        }
    }
}

type Failed = (Outcome, String);

/// What the engine is told of an input beforehand.
#[derive(Clone, Copy)]
enum Known {
    Shape,
    Value,
}

/// Which inputs are known: by their place and what they are.
type Knows = fn(usize, &Tensor) -> Known;

fn of_whole_numbers(_: usize, input: &Tensor) -> Known {
    let kind = input.datum_type();
    if kind.is_integer() || kind == bool::datum_type() { Known::Value } else { Known::Shape }
}

fn behind_the_first(at: usize, _: &Tensor) -> Known {
    if at == 0 { Known::Shape } else { Known::Value }
}

fn one_line(why: &str) -> String {
    why.lines().collect::<Vec<_>>().join(" ")
}

fn every_set(test: &Path, known: Knows) -> Result<(), Failed> {
    let unreadable = |error: std::io::Error| (Outcome::Type, error.to_string());
    let path = test.join("model.onnx");
    if fs::metadata(&path).map_err(unreadable)?.len() > MODEL_BYTES_MAX {
        return Err((Outcome::Type, "the test's model is too large".into()));
    }
    let onnx = fs::read(&path).map_err(unreadable)?;
    for set in sets(test) {
        let inputs = all(&set, "input")?;
        let expected = all(&set, "output")?;
        let outputs = outputs(&onnx, inputs, known)?;
        compare(&outputs, &expected)?;
    }
    Ok(())
}

fn outputs(onnx: &[u8], inputs: Vec<Tensor>, known: Knows) -> Result<Vec<Tensor>, Failed> {
    let given = |(at, input)| match known(at, input) {
        Known::Shape => Given::Shape(input),
        Known::Value => Given::Value(input),
    };
    let given: Vec<Given<'_>> = inputs.iter().enumerate().map(given).collect();
    let model = TensorModel::load(onnx, NODES_MAX, &given);
    model.and_then(|model| model.run(inputs)).map_err(|error| {
        let outcome = match error {
            TensorModelError::Graph(_) => Outcome::Refused,
            TensorModelError::Prepare(_) => Outcome::Prepare,
            TensorModelError::Inputs { .. } => Outcome::Type,
            TensorModelError::Run(_) => Outcome::Run,
            TensorModelError::Panic { .. } => Outcome::Panic,
        };
        (outcome, cause::chain(&error))
    })
}

fn compare(outputs: &[Tensor], expected: &[Tensor]) -> Result<(), Failed> {
    let differs = |why: String| (Outcome::Differs, why);
    if outputs.len() != expected.len() {
        return Err(differs(format!("{} outputs, expected {}", outputs.len(), expected.len())));
    }
    for (at, (output, expected)) in outputs.iter().zip(expected).enumerate() {
        let same = tensors::same(output, expected);
        same.map_err(|why| differs(format!("output {at}: {why:#}")))?;
    }
    Ok(())
}

/// `test_data_set_0` and so on.
fn sets(test: &Path) -> impl Iterator<Item = PathBuf> {
    let test = test.to_owned();
    (0..).map(move |at| test.join(format!("test_data_set_{at}"))).take_while(|set| set.is_dir())
}

/// `input_0.pb` and so on.
fn all(set: &Path, what: &str) -> Result<Vec<Tensor>, Failed> {
    (0..)
        .map(|at| set.join(format!("{what}_{at}.pb")))
        .take_while(|path| path.is_file())
        .map(|path| {
            // A file of a sequence may also panic where it is read as a tensor.
            let read = cause::caught(|| tensors::read(&path));
            let read = read.unwrap_or_else(|panicked| Err(anyhow!(panicked)));
            read.map_err(|why| (Outcome::Type, format!("{what}: {why:#}")))
        })
        .collect()
}
