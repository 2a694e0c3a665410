//! Calls to the worker of one slot. Each has a time limit; as many as fit are under way at once, more are refused.
//!
//! The connection is opened by the first call and again after it was lost, which with socket activation also starts a
//! worker that died. Inference changes nothing, so a call that was under way when the connection was lost is made once
//! more; a second loss is the caller's to know, since the request itself may kill workers. A model that the worker cannot
//! load is not asked for by everybody: see [`crate::worker::barred`].

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    golden::GoldenReport,
    text_tokenizer::{Special, Tokens},
    worker::{
        failure::{Failure, FailureKind},
        message::{
            AnswerInfo, BytesInput, Call, Embeddings, LoadedInfo, Reply, Scores, Scoring, Terms,
            TextInput, WorkerInfo, WorkerStatistics,
        },
        older,
        spoken::Spoken,
    },
};
use protocol::digest::Digest;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{self, Instant},
};

use crate::worker::{barred::Barred, call_error::CallError, connection::Connection};

/// Most calls under way at once: more than the worker's own queue may hold, so that it is the worker that says when to
/// come back.
pub const IN_FLIGHT_MAX: usize = 1_536;
/// Pause before connecting again to a worker that is ending.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for a new connection's greeting: a started worker has to verify its slot first.
const GREETING_MAX: Duration = Duration::from_secs(20);

/// The worker of one slot.
#[derive(Debug)]
pub struct WorkerClient {
    socket: PathBuf,
    /// What a new connection must greet with.
    release: Expected,
    connection: Mutex<Option<Greeted>>,
    permits: Semaphore,
    barred: StdMutex<Barred>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Any,
    Only(Option<Digest>),
}

/// A connection and who is at its other end.
#[derive(Clone, Debug)]
struct Greeted {
    connection: Arc<Connection>,
    info: Arc<WorkerInfo>,
}

impl WorkerClient {
    /// A client of whatever worker listens at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self::expecting(socket, Expected::Any)
    }

    /// A client of the worker at `socket` that serves `release`. One that still serves what lay in the slot before is told
    /// to end, and the connection is tried again.
    pub fn for_release(socket: PathBuf, release: Option<Digest>) -> Self {
        Self::expecting(socket, Expected::Only(release))
    }

    fn expecting(socket: PathBuf, release: Expected) -> Self {
        let permits = Semaphore::new(IN_FLIGHT_MAX);
        Self { socket, release, connection: Mutex::new(None), permits, barred: StdMutex::default() }
    }

    /// Why `model`, as `name@version`, is not asked for just now: it could not be loaded.
    pub fn refusal(&self, model: &str) -> Option<Failure> {
        self.barred().refusal(model, Instant::now())
    }

    /// The worker, as it greeted the current connection; opens one when there is none.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn greeting(&self, within: Duration) -> Result<WorkerInfo, CallError> {
        limited(within, async { Ok(self.connected().await?.info.as_ref().clone()) }).await
    }

    /// Who the worker is now.
    ///
    /// # Errors
    /// See [`CallError`]; so for all calls below.
    pub async fn hello(&self, within: Duration) -> Result<WorkerInfo, CallError> {
        let Reply::Hello(info) = self.ask(Call::hello(), within).await? else {
            return Err(CallError::Mismatch { what: "hello" });
        };
        Ok(info)
    }

    /// Loads a model and runs it once.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn load(&self, model: &str, within: Duration) -> Result<LoadedInfo, CallError> {
        let Reply::Loaded(info) = self.ask(Call::Load { model: model.into() }, within).await?
        else {
            return Err(CallError::Mismatch { what: "load" });
        };
        Ok(info)
    }

    /// Tries a model's golden set.
    ///
    /// # Errors
    /// See [`CallError`]; a golden set that does not hold is no error but says so in the report.
    pub async fn golden(&self, model: &str, within: Duration) -> Result<GoldenReport, CallError> {
        let Reply::Golden(report) = self.ask(Call::Golden { model: model.into() }, within).await?
        else {
            return Err(CallError::Mismatch { what: "golden" });
        };
        Ok(report)
    }

    /// Embeddings of `texts`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn embed(
        &self,
        model: &str,
        texts: Vec<String>,
        long: LongText,
        kind: InputKind,
        terms: Terms,
        within: Duration,
    ) -> Result<Embeddings, CallError> {
        let call = Call::Embed { model: model.into(), texts, long, kind, terms };
        let Reply::Embeddings(embeddings) = self.ask(call, within).await? else {
            return Err(CallError::Mismatch { what: "embed" });
        };
        Ok(embeddings)
    }

    /// An answer from an assistant.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn answer(
        &self,
        model: &str,
        text: String,
        lang: Option<String>,
        terms: Terms,
        within: Duration,
    ) -> Result<AnswerInfo, CallError> {
        let call = Call::Ask { model: model.into(), text, lang, terms };
        let Reply::Answer(answer) = self.ask(call, within).await? else {
            return Err(CallError::Mismatch { what: "ask" });
        };
        Ok(answer)
    }

    /// A score for each label of a classifier, for each of `inputs`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn classify(
        &self,
        model: &str,
        inputs: Vec<TextInput>,
        (long, scoring): (LongText, Scoring),
        terms: Terms,
        within: Duration,
    ) -> Result<Scores, CallError> {
        let model = model.into();
        self.scores(Call::Classify { model, inputs, long, scoring, terms }, within).await
    }

    /// How relevant each of the documents is to the query.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn rerank(
        &self,
        model: &str,
        (query, documents): (String, Vec<String>),
        (long, scoring): (LongText, Scoring),
        terms: Terms,
        within: Duration,
    ) -> Result<Scores, CallError> {
        let model = model.into();
        self.scores(Call::Rerank { model, query, documents, long, scoring, terms }, within).await
    }

    /// A score for each label of a model of bytes, for each file of `input`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn bytes(
        &self,
        model: &str,
        input: BytesInput,
        terms: Terms,
        within: Duration,
    ) -> Result<Scores, CallError> {
        self.scores(Call::Bytes { model: model.into(), input, terms }, within).await
    }

    /// How `texts` are read by a model.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn tokenize(
        &self,
        model: &str,
        texts: Vec<String>,
        special: Special,
        within: Duration,
    ) -> Result<Vec<Tokens>, CallError> {
        let call = Call::Tokenize { model: model.into(), texts, special };
        let Reply::Tokens(tokens) = self.ask(call, within).await? else {
            return Err(CallError::Mismatch { what: "tokenize" });
        };
        Ok(tokens)
    }

    /// The texts that `ids` stand for.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn decode(
        &self,
        model: &str,
        ids: Vec<Vec<u32>>,
        special: Special,
        within: Duration,
    ) -> Result<Vec<String>, CallError> {
        let call = Call::Decode { model: model.into(), ids, special };
        let Reply::Texts(texts) = self.ask(call, within).await? else {
            return Err(CallError::Mismatch { what: "decode" });
        };
        Ok(texts)
    }

    /// What the worker did so far.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn statistics(&self, within: Duration) -> Result<WorkerStatistics, CallError> {
        let Reply::Statistics(statistics) = self.ask(Call::Statistics, within).await? else {
            return Err(CallError::Mismatch { what: "statistics" });
        };
        Ok(statistics)
    }

    /// Has the worker forget a model until its next use.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn unload(&self, model: &str, within: Duration) -> Result<(), CallError> {
        if self.ask(Call::Unload { model: model.into() }, within).await? == Reply::Unloaded {
            Ok(())
        } else {
            Err(CallError::Mismatch { what: "unload" })
        }
    }

    /// Whether the worker is there.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn ping(&self, within: Duration) -> Result<(), CallError> {
        if self.ask(Call::Ping, within).await? == Reply::Pong {
            Ok(())
        } else {
            Err(CallError::Mismatch { what: "ping" })
        }
    }

    /// Returns when the current connection is lost, which is when the worker has ended; waits for ever when there is none.
    pub async fn gone(&self) {
        let current =
            self.connection.lock().await.as_ref().map(|greeted| Arc::clone(&greeted.connection));
        match current {
            Some(connection) => connection.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Tells the worker to finish and end.
    ///
    /// # Errors
    /// See [`CallError`]; that the connection is lost is what was wanted, and no error.
    pub async fn shutdown(&self, within: Duration) -> Result<(), CallError> {
        let connection = limited(within, async { Ok(self.connected().await?.connection) }).await?;
        match limited(within, connection.call(Call::Shutdown)).await {
            Ok(Reply::Bye) | Err(CallError::Lost) => Ok(()),
            Ok(_) => Err(CallError::Mismatch { what: "shutdown" }),
            Err(error) => Err(error),
        }
    }

    /// Any call, within its time limit. Inference is counted against the calls under way; what is asked to see whether
    /// the worker lives is not, so that a full worker does not look like a dead one.
    ///
    /// # Errors
    /// See [`CallError`]; a reply [`Reply::Failed`] is [`CallError::Failed`].
    pub async fn ask(&self, call: Call, within: Duration) -> Result<Reply, CallError> {
        let subject = Subject::of(&call);
        if let Some(failure) = subject.model().and_then(|model| self.refusal(model)) {
            return Err(CallError::Failed(failure));
        }
        let permit = match subject {
            Subject::Inference(_) => {
                Some(self.permits.try_acquire().map_err(|_| CallError::Busy(IN_FLIGHT_MAX))?)
            }
            Subject::Loading(_) | Subject::Model(_) | Subject::Worker => None,
        };
        let answered = limited(within, self.ask_twice(call)).await.and_then(done);
        drop(permit);
        self.learn(&subject, answered)
    }

    /// Keeps in mind whether the model could be loaded.
    fn learn(
        &self,
        subject: &Subject,
        answered: Result<Reply, CallError>,
    ) -> Result<Reply, CallError> {
        let Some(model) = subject.model() else { return answered };
        let answered = match (subject, answered) {
            (Subject::Loading(_), Err(CallError::Lost)) => {
                let message = format!(
                    "the worker ended twice over loading model `{model}`; its log says whether memory, stack or an \
                     operator was the reason"
                );
                Err(CallError::Failed(Failure::new(FailureKind::CannotLoad, message)))
            }
            (_, answered) => answered,
        };
        match &answered {
            Ok(_) => self.barred().loaded(model),
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::CannotLoad => {
                self.barred().failed(model, &failure.message, Instant::now());
            }
            Err(_) => {}
        }
        answered
    }

    fn barred(&self) -> MutexGuard<'_, Barred> {
        self.barred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn scores(&self, call: Call, within: Duration) -> Result<Scores, CallError> {
        let Reply::Scores(scores) = self.ask(call, within).await? else {
            return Err(CallError::Mismatch { what: "scores" });
        };
        Ok(scores)
    }

    async fn ask_twice(&self, call: Call) -> Result<Reply, CallError> {
        match self.ask_once(call.clone()).await {
            Err(CallError::Lost) => {
                tracing::info!(worker = %self.socket.display(), "connection lost; asking once more");
                self.ask_once(call).await
            }
            Ok(Reply::Failed(Failure { kind: FailureKind::Stopping, .. })) => {
                time::sleep(RECONNECT_PAUSE).await;
                self.forget().await;
                self.ask_once(call).await
            }
            other => other,
        }
    }

    async fn ask_once(&self, call: Call) -> Result<Reply, CallError> {
        let Greeted { connection, info } = self.connected().await?;
        let theirs = info.speaks;
        let call = older::call(call, info.protocol).ok_or(CallError::Version { theirs })?;
        connection.call(call).await
    }

    async fn forget(&self) {
        *self.connection.lock().await = None;
    }

    /// The current connection, or a new one that greeted as expected.
    async fn connected(&self) -> Result<Greeted, CallError> {
        let mut current = self.connection.lock().await;
        if let Some(greeted) = current.as_ref().filter(|greeted| !greeted.connection.is_lost()) {
            return Ok(greeted.clone());
        }
        *current = None;
        let greeted = limited(GREETING_MAX, self.connect()).await?;
        *current = Some(greeted.clone());
        Ok(greeted)
    }

    async fn connect(&self) -> Result<Greeted, CallError> {
        loop {
            let connection = Connection::open(&self.socket)
                .await
                .map_err(|source| CallError::Connect { socket: self.socket.clone(), source })?;
            let info = greet(&connection).await?;
            match self.release {
                Expected::Only(wanted) if wanted != info.release => {
                    tracing::info!(
                        pid = info.pid,
                        "worker serves an older content of its slot; ending it"
                    );
                    match connection.call(Call::Shutdown).await {
                        Ok(_) | Err(CallError::Lost) => {}
                        Err(error) => return Err(error),
                    }
                    time::sleep(RECONNECT_PAUSE).await;
                }
                Expected::Only(_) | Expected::Any => {
                    return Ok(Greeted { connection: Arc::new(connection), info: Arc::new(info) });
                }
            }
        }
    }
}

/// What a call is about.
#[derive(Debug)]
enum Subject {
    /// The worker as a whole.
    Worker,
    /// That this model is loaded.
    Loading(String),
    /// Something else of this model that is not counted.
    Model(String),
    /// What this model computes.
    Inference(String),
}

impl Subject {
    fn of(call: &Call) -> Self {
        match call {
            Call::Embed { model, .. }
            | Call::Ask { model, .. }
            | Call::Classify { model, .. }
            | Call::Rerank { model, .. }
            | Call::Bytes { model, .. }
            | Call::Tokenize { model, .. }
            | Call::Decode { model, .. } => Self::Inference(model.clone()),
            Call::Load { model } => Self::Loading(model.clone()),
            Call::Golden { model } | Call::Unload { model } => Self::Model(model.clone()),
            Call::Hello { .. } | Call::Statistics | Call::Ping | Call::Shutdown => Self::Worker,
        }
    }

    fn model(&self) -> Option<&str> {
        match self {
            Self::Worker => None,
            Self::Loading(model) | Self::Model(model) | Self::Inference(model) => Some(model),
        }
    }
}

async fn greet(connection: &Connection) -> Result<WorkerInfo, CallError> {
    let Reply::Hello(info) = done(connection.call(Call::hello()).await?)? else {
        return Err(CallError::Mismatch { what: "hello" });
    };
    let said = Spoken { oldest: info.protocol, newest: info.protocol };
    if Spoken::OURS.common(said).is_none() {
        return Err(CallError::Version { theirs: said });
    }
    Ok(info)
}

/// A reply that is no failure.
fn done(reply: Reply) -> Result<Reply, CallError> {
    if let Reply::Failed(failure) = reply { Err(CallError::Failed(failure)) } else { Ok(reply) }
}

async fn limited<T>(
    within: Duration,
    work: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    time::timeout(within, work).await.unwrap_or(Err(CallError::TimedOut(within)))
}
