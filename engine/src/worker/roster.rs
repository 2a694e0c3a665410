//! The models of one slot: found on disk, loaded at first use, asked by name.

use std::{
    collections::BTreeMap,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    assistant::Decision,
    cause::chain,
    embedder::{EmbedError, LongText},
    encoder::EncodeError,
    encoder_spec::InputKind,
    golden::GoldenReport,
    model::{AskError, Model},
    package::{Package, SignedFiles},
    pulse,
    text_tokenizer::TextError,
    worker::{
        limits::resident_bytes,
        message::{
            AnswerInfo, AnswerText, BrokenPackage, Embeddings, Failure, FailureKind, LoadedInfo,
            ModelInfo, ModelState,
        },
    },
};

/// What a release signs of the packages in a slot: their files, by the name of their folder.
pub type SignedPackages = BTreeMap<String, SignedFiles>;

/// Most packages in a slot.
pub const PACKAGES_MAX: usize = 64;

/// The models of a slot.
#[derive(Debug)]
pub struct Roster {
    seats: BTreeMap<String, Seat>,
    broken: Vec<BrokenPackage>,
    now_us: fn() -> u64,
}

#[derive(Debug)]
struct Seat {
    package: Package,
    model: Mutex<Option<Arc<Model>>>,
}

/// Why a slot has no roster.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// Its models cannot be listed.
    #[error("listing the models in `{}`", dir.display())]
    List {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More packages than a slot may have.
    #[error("`{}` holds more than {PACKAGES_MAX} model packages", dir.display())]
    TooMany {
        /// The directory.
        dir: PathBuf,
    },
}

impl Roster {
    /// Opens every package in `<slot_dir>/models/`. One that cannot be opened is listed as broken, and so is one that is
    /// not as `signed` says: the files of each package by its folder's name, where a release signs them. `now_us` is a
    /// clock that never goes back, in microseconds.
    ///
    /// # Errors
    /// The directory cannot be listed or holds too many packages.
    pub fn open(
        slot_dir: &Path,
        signed: Option<&SignedPackages>,
        now_us: fn() -> u64,
    ) -> Result<Self, RosterError> {
        let dir = slot_dir.join("models");
        let failed = |source| RosterError::List { dir: dir.clone(), source };
        let mut dirs = Vec::new();
        for item in fs::read_dir(&dir).map_err(failed)? {
            let path = item.map_err(failed)?.path();
            if path.is_dir() {
                dirs.push(path);
            }
            if dirs.len() > PACKAGES_MAX {
                return Err(RosterError::TooMany { dir });
            }
        }
        dirs.sort();
        let mut roster = Self { seats: BTreeMap::new(), broken: Vec::new(), now_us };
        for path in dirs {
            roster.seat(&path, signed);
        }
        Ok(roster)
    }

    /// The models, by name.
    pub fn infos(&self) -> Vec<ModelInfo> {
        self.seats.values().map(Seat::info).collect()
    }

    /// The directories that are no usable package.
    pub fn broken(&self) -> &[BrokenPackage] {
        &self.broken
    }

    /// What all models together may take of memory.
    pub fn memory_bytes(&self) -> u64 {
        self.seats.values().map(|seat| seat.package.spec.limits.memory_bytes).sum()
    }

    /// Loads the model `name`, unless it is loaded.
    ///
    /// # Errors
    /// There is no such model, or it cannot be loaded.
    pub fn load(&self, name: &str) -> Result<LoadedInfo, Failure> {
        let before = (self.now_us)();
        let seat = self.named(name)?;
        let was_loaded = seat.info().state == ModelState::Loaded;
        seat.loaded()?;
        let load_us = if was_loaded { 0 } else { (self.now_us)().saturating_sub(before) };
        Ok(LoadedInfo { load_us, resident_bytes: resident_bytes() })
    }

    /// Tries the golden set of the model `name`.
    ///
    /// # Errors
    /// There is no such model, or it cannot be loaded or tried.
    pub fn golden(&self, name: &str) -> Result<GoldenReport, Failure> {
        let model = self.named(name)?.loaded()?;
        model.check_golden(self.now_us).map_err(|reason| failure(FailureKind::CannotLoad, &reason))
    }

    /// Embeddings by the model `name`.
    ///
    /// # Errors
    /// There is no such model, it cannot be loaded, or a text is refused.
    pub fn embed(
        &self,
        name: &str,
        texts: &[String],
        long: LongText,
    ) -> Result<Embeddings, Failure> {
        let seat = self.named(name)?;
        let model = seat.loaded()?;
        let before = (self.now_us)();
        let embeddings = model
            .embedder()
            .embed(texts, InputKind::Plain, long)
            .map_err(|reason| failure(embed_kind(&reason), &reason))?;
        let compute_us = (self.now_us)().saturating_sub(before);
        let rows: Vec<u8> = embeddings
            .iter()
            .flat_map(|embedding| &embedding.vector)
            .flat_map(|number| number.to_le_bytes())
            .collect();
        Ok(Embeddings {
            package: seat.package.digest,
            dim: seat.package.spec.encoder.dim,
            rows: rows.into(),
            tokens: embeddings.iter().map(|embedding| embedding.tokens).collect(),
            compute_us,
        })
    }

    /// An answer by the assistant `name`.
    ///
    /// # Errors
    /// There is no such model, it is no assistant or cannot be loaded, or the question is refused.
    pub fn ask(&self, name: &str, text: &str, lang: Option<&str>) -> Result<AnswerInfo, Failure> {
        let seat = self.named(name)?;
        let model = seat.loaded()?;
        let before = (self.now_us)();
        let answer = model.ask(text, lang).map_err(|reason| match &reason {
            AskError::NotAnAssistant { .. } => failure(FailureKind::WrongTask, &reason),
            AskError::Embed(source) => failure(embed_kind(source), source),
        })?;
        let compute_us = (self.now_us)().saturating_sub(before);
        let given = answer.nearest.filter(|_| answer.decision == Decision::Answered);
        Ok(AnswerInfo {
            package: seat.package.digest,
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
        })
    }

    fn seat(&mut self, path: &Path, signed: Option<&SignedPackages>) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unsigned = SignedFiles::new();
        let opened = match signed {
            None => Package::open(path),
            Some(signed) => Package::open_signed(path, signed.get(&name).unwrap_or(&unsigned)),
        };
        match opened {
            Ok(package) if !self.seats.contains_key(&package.spec.name) => {
                self.seats
                    .insert(package.spec.name.clone(), Seat { package, model: Mutex::new(None) });
            }
            Ok(package) => {
                let message = format!("slot has a second model named `{}`", package.spec.name);
                self.broken.push(BrokenPackage { dir: name, message });
            }
            Err(reason) => self.broken.push(BrokenPackage { dir: name, message: chain(&reason) }),
        }
    }

    fn named(&self, name: &str) -> Result<&Seat, Failure> {
        self.seats.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.seats.keys().map(String::as_str).collect();
            let broken = self.broken.iter().find(|broken| broken.dir == name);
            let message = match broken {
                Some(broken) => format!("model package `{name}` is broken: {}", broken.message),
                None => format!(
                    "no model is named `{}`; this slot has: {}",
                    name.chars().take(64).collect::<String>().escape_debug(),
                    known.join(", ")
                ),
            };
            let kind =
                if broken.is_some() { FailureKind::CannotLoad } else { FailureKind::UnknownModel };
            Failure { kind, message }
        })
    }
}

impl Seat {
    fn info(&self) -> ModelInfo {
        let spec = &self.package.spec;
        // A seat whose lock is held is being loaded: it is not ready, and asking must not wait for it.
        let loaded = match self.model.try_lock() {
            Ok(model) => model.is_some(),
            Err(std::sync::TryLockError::Poisoned(model)) => model.into_inner().is_some(),
            Err(std::sync::TryLockError::WouldBlock) => false,
        };
        ModelInfo {
            name: spec.name.clone(),
            version: spec.version.clone(),
            task: spec.task,
            dim: spec.encoder.dim,
            digest: self.package.digest,
            text_bytes_max: spec.limits.text_bytes_max,
            batch_max: spec.limits.batch_max,
            state: if loaded { ModelState::Loaded } else { ModelState::OnDisk },
        }
    }

    fn loaded(&self) -> Result<Arc<Model>, Failure> {
        // Who waits for another thread to load waits as long as that takes.
        let _loading = pulse::unbounded();
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = &*model {
            return Ok(Arc::clone(model));
        }
        let loaded = Model::load(&self.package)
            .map_err(|reason| failure(FailureKind::CannotLoad, &reason))?;
        let loaded = Arc::new(loaded);
        *model = Some(Arc::clone(&loaded));
        Ok(loaded)
    }
}

fn embed_kind(reason: &EmbedError) -> FailureKind {
    match reason {
        EmbedError::NoTexts | EmbedError::TooManyTexts { .. } => FailureKind::TextCount,
        EmbedError::Text { source, .. } => match source {
            TextError::Empty | TextError::NoToken => FailureKind::EmptyText,
            TextError::TooLong { .. } => FailureKind::TextTooLong,
            TextError::Tokenize(_) | TextError::Decode(_) => FailureKind::ModelFailed,
        },
        EmbedError::TooManyTokens { .. } => FailureKind::TooManyTokens,
        EmbedError::Encode { source, .. } => match source {
            EncodeError::Run(_)
            | EncodeError::Panic { .. }
            | EncodeError::Shape { .. }
            | EncodeError::NotFinite => FailureKind::ModelFailed,
        },
    }
}

fn failure(kind: FailureKind, reason: &dyn Error) -> Failure {
    Failure { kind, message: chain(reason) }
}
