//! Model packages: made from weights and an FAQ, looked into before they are signed.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use engine::{
    calibrate::Calibration,
    magika::{self, MagikaError},
    pack::{self, FaqRecipe, GoldenRecipe, PackError, Packed, Recipe},
    package::{FAQ_FILE, MODEL_FILE, Package, PackageError, SPEC_FILE, Spec, TOKENIZER_FILE, Task},
};
use serde_json::json;

use crate::{
    files::{self, Access, FileError},
    golden_inputs::{GOLDEN_FILES, GOLDEN_TEXTS},
    import::command::{self as import, ImportArgs, ImportError},
    terminal::{Terminal, Unit},
};

/// Width of the embeddings of the one family that is packed without a description.
const MINILM_DIM: u32 = 384;
/// What lies beside the model of Magika.
const MAGIKA_CONFIG: &str = "config.min.json";

/// `socle model …`
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Make a package from an encoder and, for an assistant, an FAQ
    #[command(
        after_help = "Example:\n  socle model pack --from ./minilm --name it-faq --version 1 --licence Apache-2.0 \\\n    --source 'all-MiniLM-L6-v2, int8' --faq faq.jsonl --calibration calibration.jsonl --out ./packages/it-faq\n  socle model pack --from ./magika --name magika --version 1 --out ./packages/magika"
    )]
    Pack(PackArgs),
    /// Make a package from a published model: safetensors, ONNX, GGUF
    #[command(
        after_help = "Examples:\n  socle model import --from ./all-MiniLM-L6-v2 --name minilm --version 1 --out ./packages/minilm\n  socle model import --from e5-small-q4.bin --tokenizer tokenizer.json --name e5 --version 1 --licence MIT \\\n    --languages fr,en --text fr.txt --text en.txt --out ./packages/e5\n\nWeights become blocks at 8 bits, or stay at 4 bits if they were. What each step cost in accuracy, size and\ntime is printed and kept as import.json."
    )]
    Import(ImportArgs),
    /// Show what a package holds
    #[command(after_help = "Example:\n  socle model inspect ./packages/it-faq")]
    Inspect {
        /// The package's folder
        package: PathBuf,
    },
}

/// Arguments of `socle model pack`.
#[derive(Clone, Debug, Args)]
pub struct PackArgs {
    /// Folder made by `socle model import`; one with model.onnx and tokenizer.json (BERT family, hidden states as
    /// `last_hidden_state`); or one with model.onnx and config.min.json (Magika)
    #[arg(long)]
    pub from: PathBuf,
    /// Name by which applications call the model
    #[arg(long)]
    pub name: String,
    /// Version, for people
    #[arg(long)]
    pub version: String,
    /// SPDX expression of the weights' licence; default: what the import said
    #[arg(long)]
    pub licence: Option<String>,
    /// Where the weights came from; default: what the import said
    #[arg(long)]
    pub source: Option<String>,
    /// Entries of the assistant: JSON lines of id, lang, question, paraphrases, answer, source
    #[arg(long, requires = "calibration")]
    pub faq: Option<PathBuf>,
    /// Labelled questions that set the thresholds: JSON lines of text, lang, expect, split
    #[arg(long, requires = "faq")]
    pub calibration: Option<PathBuf>,
    /// Wrong answers allowed, per thousand questions that have no answer
    #[arg(long, default_value_t = 50)]
    pub false_answers_per_mille: u32,
    /// Golden set of the version before, which the new one must agree with; without it, today's answers are recorded
    #[arg(long)]
    pub golden: Option<PathBuf>,
    /// Folder to make
    #[arg(long)]
    pub out: PathBuf,
}

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file.
    #[error("handling the package's files")]
    File(#[from] FileError),
    /// The ingredients.
    #[error("packing the model")]
    Pack(#[from] PackError),
    /// Magika's description.
    #[error("reading {MAGIKA_CONFIG}")]
    Magika(#[from] MagikaError),
    /// A model that does not come in.
    #[error("importing the model")]
    Import(#[source] Box<ImportError>),
    /// A package that cannot be opened.
    #[error("opening the package")]
    Open(#[from] PackageError),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle model …`.
pub fn run(command: &ModelCommand, terminal: &Terminal) -> Result<(), ModelError> {
    match command {
        ModelCommand::Pack(args) => {
            let packed = pack(args, terminal)?;
            show(&packed.spec, &args.out, terminal)
        }
        ModelCommand::Import(args) => {
            import::run(args, terminal).map_err(|error| ModelError::Import(Box::new(error)))
        }
        ModelCommand::Inspect { package } => {
            let package_files = Package::open(package)?;
            show(&package_files.spec, package, terminal)
        }
    }
}

/// Makes the package `args.out`.
pub fn pack(args: &PackArgs, terminal: &Terminal) -> Result<Packed, ModelError> {
    files::make_new_folder(&args.out)?;
    let onnx = files::read(&args.from.join(MODEL_FILE), files::OBJECT_BYTES_MAX)?;
    let spec = spec(args)?;
    let tokenizer = match spec.task {
        Task::Bytes => None,
        Task::Embedding | Task::Assistant | Task::Classification | Task::Rerank => {
            Some(files::read(&args.from.join(TOKENIZER_FILE), files::TEXT_BYTES_MAX)?)
        }
    };
    let read = |path: &Option<PathBuf>| {
        path.as_deref().map(|path| files::read(path, files::TEXT_BYTES_MAX)).transpose()
    };
    let (entries, questions, kept) =
        (read(&args.faq)?, read(&args.calibration)?, read(&args.golden)?);
    let faq = entries.as_deref().zip(questions.as_deref()).map(|(entries, questions)| FaqRecipe {
        entries,
        questions,
        false_answers_allowed_per_mille: args.false_answers_per_mille,
    });
    let golden = match (&kept, spec.task) {
        (Some(json), _) => GoldenRecipe::Keep(json),
        (None, Task::Bytes) => GoldenRecipe::Files(&GOLDEN_FILES),
        (None, Task::Embedding | Task::Assistant | Task::Classification | Task::Rerank) => {
            GoldenRecipe::Record(&GOLDEN_TEXTS)
        }
    };
    let given = tokenizer.as_deref().unwrap_or_default();
    let recipe = Recipe { spec: &spec, onnx: &onnx, tokenizer: given, faq, golden };
    let bar = terminal.progress(0, Unit::Steps, "embedding the FAQ");
    let packed = pack::pack(&recipe, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();

    files::write(&args.out.join(MODEL_FILE), &onnx, Access::All)?;
    if let Some(tokenizer) = tokenizer {
        files::write(&args.out.join(TOKENIZER_FILE), &tokenizer, Access::All)?;
    }
    if let Some(entries) = entries {
        files::write(&args.out.join(FAQ_FILE), &entries, Access::All)?;
    }
    for (name, content) in &packed.files {
        files::write(&args.out.join(name), content, Access::All)?;
    }
    Ok(packed)
}

/// What an import or Magika's makers said of the model, or the description of the one family that comes without.
fn spec(args: &PackArgs) -> Result<Spec, ModelError> {
    let (described, magika) = (args.from.join(SPEC_FILE), args.from.join(MAGIKA_CONFIG));
    let mut spec = if described.exists() {
        let bytes = files::read(&described, files::TEXT_BYTES_MAX)?;
        let imported = Spec::parse(&described, &bytes)?;
        let (name, version) = (args.name.clone(), args.version.clone());
        Spec { name, version, ..imported }
    } else if magika.exists() {
        let config = files::read(&magika, files::TEXT_BYTES_MAX)?;
        magika::describe(&args.name, &args.version, &config)?
    } else {
        Spec::sentence_encoder(&args.name, &args.version, MINILM_DIM)
    };
    for (given, field) in [(&args.licence, &mut spec.licence), (&args.source, &mut spec.source)] {
        if let Some(given) = given {
            given.clone_into(field);
        }
    }
    Ok(spec)
}

fn show(spec: &Spec, folder: &Path, terminal: &Terminal) -> Result<(), ModelError> {
    let mut text = format!(
        "{} {} in {}\n  task {:?}, {} dimensions, licence {}, from {}",
        spec.name,
        spec.version,
        folder.display(),
        spec.task,
        spec.encoder.dim,
        spec.licence,
        spec.source,
    );
    if let Some(assistant) = &spec.assistant {
        text.push_str(&format!(
            "\n  a score is {:.0} % the nearest question and {:.0} % the answer, and words weigh {} beside it",
            100.0 * (1.0 - assistant.blend.answer),
            100.0 * assistant.blend.answer,
            assistant.blend.words,
        ));
        text.push_str(&measured(&assistant.calibration));
    }
    Ok(terminal.result(&text, &json!({ "package": folder, "model": spec }))?)
}

fn measured(calibration: &Calibration) -> String {
    let lines = calibration.measured_on.iter().map(|(lang, counts)| {
        format!(
            "\n  {lang}, on questions kept apart: the nearest entry is right for {} of {}, answered {} rightly and {} wrongly; answered {} of {} that have no answer",
            counts.nearest_right,
            counts.answerable,
            counts.answered_right,
            counts.answered_wrong,
            counts.answered_falsely,
            counts.unanswerable,
        )
    });
    lines.collect()
}
