//! From a call to what is computed, and from what was computed to the reply.

use crate::{
    assistant::{Asked, Decision},
    cause::chain,
    embedder::{EmbedError, Embedder},
    encoder_spec::InputKind,
    head::BytesSpec,
    model::{Input, Model, WrongTask},
    package::{Package, Task},
    text_tokenizer::{Special, TextError, TokenSequence},
    worker::{
        failure::{Failure, FailureKind},
        message::{
            AnswerInfo, AnswerText, BytesInput, Call, Embeddings, FileEnds, Reply, Scores, Scoring,
            Terms, TextInput,
        },
        order::Computed,
    },
};

/// A call whose texts are tokens.
#[derive(Debug)]
pub struct Prepared {
    /// What to compute.
    pub inputs: Vec<Input>,
    /// How soon.
    pub terms: Terms,
    /// What becomes of the outputs.
    pub shape: Shape,
}

/// What becomes of outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// They are embeddings.
    Embeddings,
    /// They are logits, from which these numbers are made.
    Scores(Scoring),
    /// The one there is asks the assistant.
    Answer {
        /// The question.
        text: String,
        /// Among entries of this language.
        lang: Option<String>,
    },
}

/// The terms of a call that is computed; none of one that is not.
pub const fn terms(call: &Call) -> Option<Terms> {
    match call {
        Call::Embed { terms, .. }
        | Call::Ask { terms, .. }
        | Call::Classify { terms, .. }
        | Call::Rerank { terms, .. }
        | Call::Bytes { terms, .. } => Some(*terms),
        Call::Hello { .. }
        | Call::Load { .. }
        | Call::Golden { .. }
        | Call::Ping
        | Call::Shutdown
        | Call::Tokenize { .. }
        | Call::Decode { .. }
        | Call::Statistics
        | Call::Unload { .. } => None,
    }
}

/// Reads the texts of `call`. None when it is no call that is computed.
///
/// # Errors
/// A text is refused, or the model does something else.
pub fn prepare(model: &Model, call: Call) -> Option<Result<Prepared, Failure>> {
    let terms = terms(&call)?;
    let (inputs, shape) = match call {
        Call::Embed { texts, long, kind, .. } => {
            let inputs = embedding(model, "embeddings").and_then(|embedder| {
                let text = |(at, text): (usize, &String)| embedder.tokens(at, text, kind, long);
                gather(embedder, texts.len(), texts.iter().enumerate().map(text))
            });
            (inputs, Shape::Embeddings)
        }
        Call::Ask { text, lang, .. } => (question(model, &text), Shape::Answer { text, lang }),
        Call::Classify { inputs, long, scoring, .. } => {
            let inputs = of_task(model, Task::Classification, "labels").and_then(|embedder| {
                let read = |(at, input): (usize, &TextInput)| match &input.pair {
                    None => embedder.tokens(at, &input.text, InputKind::Plain, long),
                    Some(pair) => embedder.pair(at, (&input.text, pair), long),
                };
                gather(embedder, inputs.len(), inputs.iter().enumerate().map(read))
            });
            (inputs, Shape::Scores(scoring))
        }
        Call::Rerank { query, documents, long, scoring, .. } => {
            let inputs = of_task(model, Task::Rerank, "relevance").and_then(|embedder| {
                let pair = |(at, text): (usize, &String)| embedder.pair(at, (&query, text), long);
                gather(embedder, documents.len(), documents.iter().enumerate().map(pair))
            });
            (inputs, Shape::Scores(scoring))
        }
        Call::Bytes { input, .. } => (windows(model, &input), Shape::Scores(Scoring::Scores)),
        Call::Hello { .. }
        | Call::Load { .. }
        | Call::Golden { .. }
        | Call::Ping
        | Call::Shutdown
        | Call::Tokenize { .. }
        | Call::Decode { .. }
        | Call::Statistics
        | Call::Unload { .. } => return None,
    };
    Some(inputs.map(|inputs| Prepared { inputs, terms, shape }))
}

/// The reply to a call that only reads.
///
/// # Errors
/// A text is refused, or the model does not read texts.
pub fn tokenize(model: &Model, texts: &[String], special: Special) -> Result<Reply, Failure> {
    let embedder = model.embedder("tokens").map_err(|reason| wrong_task(&reason))?;
    embedder.check_count(texts.len()).map_err(|reason| refused(&reason))?;
    let read = |(at, text): (usize, &String)| {
        let tokens = embedder.tokenizer().read(text, special);
        tokens.map_err(|source| refused(&EmbedError::Text { at, source }))
    };
    texts.iter().enumerate().map(read).collect::<Result<_, _>>().map(Reply::Tokens)
}

/// The same for ids.
///
/// # Errors
/// They are no text.
pub fn decode(model: &Model, ids: &[Vec<u32>], special: Special) -> Result<Reply, Failure> {
    let embedder = model.embedder("texts").map_err(|reason| wrong_task(&reason))?;
    embedder.check_count(ids.len()).map_err(|reason| refused(&reason))?;
    let most = model.spec().limits.text_bytes_max as usize;
    let write = |(at, ids): (usize, &Vec<u32>)| {
        let text = match ids.len() {
            0 => Err(TextError::Empty),
            ids if ids > most => Err(TextError::TooLong { bytes: ids, max: most }),
            _ => embedder.tokenizer().decode(ids, special),
        };
        text.map_err(|source| refused(&EmbedError::Text { at, source }))
    };
    ids.iter().enumerate().map(write).collect::<Result<_, _>>().map(Reply::Texts)
}

/// The reply to a call that was computed.
///
/// # Errors
/// The model does something else.
pub fn reply(
    (package, model): (&Package, &Model),
    shape: &Shape,
    computed: Computed,
) -> Result<Reply, Failure> {
    let Computed { mut outputs, tokens, queue_us, compute_us } = computed;
    let package = package.digest;
    let dim = model.spec().encoder.dim;
    Ok(match shape {
        Shape::Embeddings => {
            let rows = bytes(&outputs).into();
            Reply::Embeddings(Embeddings { package, dim, rows, tokens, compute_us, queue_us })
        }
        Shape::Scores(scoring) => {
            let mut labels = Vec::new();
            for output in &mut outputs {
                let logits = (*scoring == Scoring::Logits).then(|| output.clone());
                labels.push(model.score(output).map(str::to_owned));
                if let Some(logits) = logits {
                    *output = logits;
                }
            }
            if model.spec().task == Task::Rerank {
                labels.clear();
            }
            let rows = bytes(&outputs).into();
            Reply::Scores(Scores {
                package,
                columns: dim,
                rows,
                labels,
                tokens,
                compute_us,
                queue_us,
            })
        }
        Shape::Answer { text, lang } => {
            let vector = outputs.first().map(Vec::as_slice).unwrap_or_default();
            let answer = model.answer(Asked { text, vector }, lang.as_deref());
            let answer = answer.map_err(|reason| wrong_task(&reason))?;
            let given = answer.nearest.filter(|_| answer.decision == Decision::Answered);
            Reply::Answer(AnswerInfo {
                package,
                decision: answer.decision,
                answer: given.map(|(entry, _)| AnswerText {
                    id: entry.id.clone(),
                    lang: entry.lang.clone(),
                    question: entry.question.clone(),
                    text: entry.answer.clone(),
                    source: entry.source.clone(),
                }),
                nearest: answer.nearest.map(|(entry, _)| entry.id.clone()),
                score: answer.nearest.map_or(-1.0, |(_, score)| score),
                threshold: answer.threshold,
                compute_us,
                queue_us,
            })
        }
    })
}

fn bytes(outputs: &[Vec<f32>]) -> Vec<u8> {
    outputs.iter().flatten().flat_map(|number| number.to_le_bytes()).collect()
}

fn embedding<'m>(model: &'m Model, wanted: &'static str) -> Result<&'m Embedder, Failure> {
    match model.spec().task {
        Task::Embedding | Task::Assistant => {
            model.embedder(wanted).map_err(|reason| wrong_task(&reason))
        }
        Task::Classification | Task::Rerank | Task::Bytes => {
            Err(wrong_task(&model.wrong_task(wanted)))
        }
    }
}

fn of_task<'m>(
    model: &'m Model,
    task: Task,
    wanted: &'static str,
) -> Result<&'m Embedder, Failure> {
    if model.spec().task != task {
        return Err(wrong_task(&model.wrong_task(wanted)));
    }
    model.embedder(wanted).map_err(|reason| wrong_task(&reason))
}

fn gather(
    embedder: &Embedder,
    count: usize,
    sequences: impl Iterator<Item = Result<TokenSequence, EmbedError>>,
) -> Result<Vec<Input>, Failure> {
    embedder.check_count(count).map_err(|reason| refused(&reason))?;
    let inputs = sequences.map(|sequence| sequence.map(Input::Tokens));
    inputs.collect::<Result<_, _>>().map_err(|reason| refused(&reason))
}

fn question(model: &Model, text: &str) -> Result<Vec<Input>, Failure> {
    model.assistant().map_err(|reason| wrong_task(&reason))?;
    let embedder = model.embedder("answers").map_err(|reason| wrong_task(&reason))?;
    let sequence = embedder.question(text).map_err(|reason| refused(&reason))?;
    Ok(vec![Input::Tokens(sequence)])
}

fn windows(model: &Model, input: &BytesInput) -> Result<Vec<Input>, Failure> {
    let spec = model.spec();
    let bytes =
        spec.bytes.as_ref().ok_or_else(|| wrong_task(&model.wrong_task("kinds of files")))?;
    let window = spec.tokenizer.max_tokens as usize;
    let windows: Vec<Vec<i32>> = match input {
        BytesInput::Rows(rows) => {
            let (numbers, rest) = rows.as_slice().as_chunks::<4>();
            if !rest.is_empty() || !numbers.len().is_multiple_of(window) {
                let message = format!(
                    "rows of {} bytes are not rows of {window} numbers of 4 bytes each",
                    rows.as_slice().len()
                );
                return Err(Failure::new(FailureKind::BadInput, message));
            }
            let numbers: Vec<i32> =
                numbers.iter().map(|number| i32::from_le_bytes(*number)).collect();
            if let Some(number) =
                numbers.iter().find(|number| !(0..=bytes.padding).contains(*number))
            {
                let message = format!(
                    "rows hold the number {number}; allowed are bytes, 0 to 255, and {} for none",
                    bytes.padding
                );
                return Err(Failure::new(FailureKind::BadInput, message));
            }
            numbers.chunks_exact(window).map(<[i32]>::to_vec).collect()
        }
        BytesInput::Files(files) => files
            .iter()
            .enumerate()
            .map(|(at, file)| file_window(bytes, at, file))
            .collect::<Result<_, _>>()?,
    };
    let most = spec.limits.batch_max as usize;
    if windows.is_empty() || windows.len() > most {
        let message = format!("request has {} files; allowed are 1 to {most}", windows.len());
        return Err(Failure::new(FailureKind::TextCount, message));
    }
    Ok(windows.into_iter().map(Input::Window).collect())
}

fn file_window(spec: &BytesSpec, at: usize, file: &FileEnds) -> Result<Vec<i32>, Failure> {
    let head = file.head.as_slice();
    let window = spec.window(head, file.tail.as_ref().map_or(head, |tail| tail.as_slice()));
    // The last one that has to be there, counted from the beginning.
    let least = (spec.least_bytes as usize).min(spec.beginning as usize);
    let last = least.checked_sub(1).and_then(|last| window.get(last));
    if last == Some(&spec.padding) {
        let message = format!(
            "file {at} of the request has fewer than {least} bytes besides white space: too little to tell its kind"
        );
        return Err(Failure::new(FailureKind::EmptyText, message));
    }
    Ok(window)
}

/// Why the model does not do it.
pub fn wrong_task(reason: &WrongTask) -> Failure {
    Failure::new(FailureKind::WrongTask, chain(reason))
}

fn refused(reason: &EmbedError) -> Failure {
    let kind = match reason {
        EmbedError::NoTexts | EmbedError::TooManyTexts { .. } => FailureKind::TextCount,
        EmbedError::Text { source, .. } => match source {
            TextError::Empty | TextError::NoToken => FailureKind::EmptyText,
            TextError::TooLong { .. } => FailureKind::TextTooLong,
            TextError::Tokenize(_) => FailureKind::ModelFailed,
            TextError::Decode(_) => FailureKind::BadInput,
        },
        EmbedError::TooManyTokens { .. } => FailureKind::TooManyTokens,
        EmbedError::Encode { .. } => FailureKind::ModelFailed,
    };
    Failure::new(kind, chain(reason))
}
