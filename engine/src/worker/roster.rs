//! The models of one slot: found on disk, named, loaded within a budget of memory.

use std::{
    collections::BTreeMap,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    cause::chain,
    golden::GoldenReport,
    model::Model,
    package::{Package, SignedFiles},
    pulse,
    worker::{
        failure::{Failure, FailureKind},
        limits::resident_bytes,
        memory::{Held, Pinned, make_room},
        message::{BrokenPackage, LoadedInfo, ModelInfo, ModelState},
        policy::Policy,
        seat::{NewSeat, Seat},
        version,
    },
};

/// What a release signs of the packages in a slot: their files, by the name of their folder.
pub type SignedPackages = BTreeMap<String, SignedFiles>;

/// Most packages in a slot.
pub const PACKAGES_MAX: usize = 64;

/// The models of a slot.
#[derive(Debug)]
pub struct Roster {
    /// By name, oldest version first.
    seats: Vec<Arc<Seat>>,
    broken: Vec<BrokenPackage>,
    memory_bytes: u64,
    load_ms_max: u64,
    /// Held by whoever loads or unloads.
    loading: Mutex<()>,
    now_us: fn() -> u64,
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
        policy: &Policy,
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
        let (mut packages, mut broken) = (Vec::<Package>::new(), Vec::new());
        for path in dirs {
            match opened(&path, signed, &packages) {
                Ok(package) => packages.push(package),
                Err(reason) => broken.push(reason),
            }
        }
        packages.sort_by(|a, b| {
            let names = a.spec.name.cmp(&b.spec.name);
            names.then_with(|| version::compare(&a.spec.version, &b.spec.version))
        });
        let declared: u64 = packages.iter().map(|package| package.spec.limits.memory_bytes).sum();
        let memory_bytes = policy.memory_bytes.unwrap_or(declared);
        let names: Vec<String> = packages.iter().map(|package| package.spec.name.clone()).collect();
        let seats = packages.into_iter().zip(0..).map(|(package, key)| {
            let at = usize::try_from(key).unwrap_or(usize::MAX);
            let newest = names.get(at.saturating_add(1)) != Some(&package.spec.name);
            let full = format!("{}@{}", package.spec.name, package.spec.version);
            let pinned = policy.pinned.iter().any(|pin| *pin == package.spec.name || *pin == full);
            let pinned = if pinned { Pinned::Yes } else { Pinned::No };
            NewSeat { key, package, newest, pinned, preload: false }
        });
        let mut seats: Vec<NewSeat> = seats.collect();
        mark_preloaded(&mut seats, memory_bytes);
        let seats = seats.into_iter().map(|seat| Arc::new(Seat::new(seat, policy.batch_us)));
        let seats = seats.collect();
        let load_ms_max = policy.load_ms_max;
        Ok(Self { seats, broken, memory_bytes, load_ms_max, loading: Mutex::new(()), now_us })
    }

    /// The models, by name, oldest version first.
    pub fn infos(&self) -> Vec<ModelInfo> {
        self.seats.iter().map(|seat| seat.info()).collect()
    }

    /// Their seats, in the same order.
    pub fn seats(&self) -> &[Arc<Seat>] {
        &self.seats
    }

    /// The directories that are no usable package.
    pub fn broken(&self) -> &[BrokenPackage] {
        &self.broken
    }

    /// What all loaded models together may take of memory.
    pub const fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// What the loaded models may take, by what their packages say.
    pub fn loaded_bytes(&self) -> u64 {
        let loaded = self.seats.iter().filter(|seat| seat.used_us().is_some());
        loaded.map(|seat| seat.package.spec.limits.memory_bytes).sum()
    }

    /// The seat of the model called `name`, which is its name, its folder's, or `name@version`.
    ///
    /// # Errors
    /// There is none.
    pub fn named(&self, name: &str) -> Result<&Arc<Seat>, Failure> {
        let (model, version) =
            name.split_once('@').map_or((name, None), |(model, version)| (model, Some(version)));
        let meant = |seat: &&Arc<Seat>| {
            let spec = &seat.package.spec;
            spec.name == model && version.map_or(seat.newest, |version| spec.version == version)
        };
        let folder =
            |seat: &&Arc<Seat>| seat.package.dir.file_name().is_some_and(|dir| dir == name);
        let seat = self.seats.iter().find(meant).or_else(|| self.seats.iter().find(folder));
        seat.ok_or_else(|| {
            if let Some(broken) = self.broken.iter().find(|broken| broken.dir == name) {
                let message = format!("model package `{name}` is broken: {}", broken.message);
                return Failure::new(FailureKind::CannotLoad, message);
            }
            let known = self.seats.iter().map(|seat| match seat.newest {
                true => seat.package.spec.name.clone(),
                false => format!("{}@{}", seat.package.spec.name, seat.package.spec.version),
            });
            let message = format!(
                "no model is named `{}`; this slot has: {}",
                name.chars().take(80).collect::<String>().escape_debug(),
                known.collect::<Vec<_>>().join(", ")
            );
            Failure::new(FailureKind::UnknownModel, message)
        })
    }

    /// Loads the model of `seat`, unless it is loaded; others go where that takes room.
    ///
    /// # Errors
    /// It cannot be loaded, or does not fit into memory.
    pub fn load(&self, seat: &Arc<Seat>) -> Result<(Arc<Model>, LoadedInfo), Failure> {
        // Who waits for another thread to load waits as long as that takes.
        let waiting = pulse::unbounded();
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        drop(waiting);
        let before_us = (self.now_us)();
        if let Some(model) = seat.model(before_us) {
            return Ok((model, LoadedInfo { load_us: 0, resident_bytes: resident_bytes() }));
        }
        self.make_room(seat)?;
        seat.begin_loading();
        let limit_ms = u64::from(seat.package.spec.limits.load_seconds_max) * 1_000;
        let limit_ms = limit_ms.min(self.load_ms_max);
        let loaded = {
            let _bounded = pulse::at_most(limit_ms);
            let model = Model::load(&seat.package);
            model.map_err(|reason| failure(FailureKind::CannotLoad, &reason)).and_then(|model| {
                let warmed = model.warm_up();
                warmed.map_err(|reason| failure(FailureKind::CannotLoad, &reason))?;
                Ok(Arc::new(model))
            })
        };
        let now_us = (self.now_us)();
        let load_us = now_us.saturating_sub(before_us);
        seat.end_loading(loaded.as_ref().ok().map(Arc::clone), now_us, load_us);
        let model = loaded?;
        Ok((model, LoadedInfo { load_us, resident_bytes: resident_bytes() }))
    }

    /// Tries the golden set of the model of `seat`, loading it first when needed.
    ///
    /// # Errors
    /// It cannot be loaded or tried.
    pub fn golden(&self, seat: &Arc<Seat>) -> Result<GoldenReport, Failure> {
        let (model, _) = self.load(seat)?;
        model.check_golden(self.now_us).map_err(|reason| failure(FailureKind::CannotLoad, &reason))
    }

    /// Forgets the model of `seat`.
    ///
    /// # Errors
    /// It is pinned, or being loaded.
    pub fn unload(&self, seat: &Arc<Seat>) -> Result<(), Failure> {
        if seat.pinned == Pinned::Yes {
            let message = format!("model `{}` is pinned and stays loaded", seat.package.spec.name);
            return Err(Failure::new(FailureKind::BadInput, message));
        }
        if seat.info().state == ModelState::Loading {
            let message = format!(
                "model `{}` is being loaded: try again when it is ready",
                seat.package.spec.name
            );
            return Err(Failure::new(FailureKind::BadInput, message));
        }
        seat.unload();
        Ok(())
    }

    fn make_room(&self, seat: &Seat) -> Result<(), Failure> {
        let held = |seat: &Arc<Seat>| {
            Some(Held {
                key: seat.key,
                bytes: seat.package.spec.limits.memory_bytes,
                used_us: seat.used_us()?,
                pinned: seat.pinned,
            })
        };
        let held: Vec<Held> = self.seats.iter().filter_map(held).collect();
        let wanted = seat.package.spec.limits.memory_bytes;
        let gone = make_room(&held, wanted, self.memory_bytes).map_err(|reason| {
            let message = format!("model `{}` is not loaded: {reason}", seat.package.spec.name);
            Failure::new(FailureKind::NoMemory, message)
        })?;
        for other in self.seats.iter().filter(|other| gone.contains(&other.key)) {
            tracing::info!(
                model = %other.package.spec.name, version = %other.package.spec.version,
                "model unloaded: another one needs its memory"
            );
            other.unload();
        }
        Ok(())
    }
}

/// As many as fit are loaded at the start: pinned ones first, then the newest versions.
fn mark_preloaded(seats: &mut [NewSeat], memory_bytes: u64) {
    let mut order: Vec<&mut NewSeat> = seats.iter_mut().collect();
    order.sort_by_key(|seat| (seat.pinned != Pinned::Yes, !seat.newest, seat.key));
    let mut taken = 0_u64;
    for seat in order {
        let with = taken.saturating_add(seat.package.spec.limits.memory_bytes);
        if with <= memory_bytes {
            (taken, seat.preload) = (with, true);
        }
    }
}

fn opened(
    path: &Path,
    signed: Option<&SignedPackages>,
    others: &[Package],
) -> Result<Package, BrokenPackage> {
    let dir = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unsigned = SignedFiles::new();
    let package = match signed {
        None => Package::open(path),
        Some(signed) => Package::open_signed(path, signed.get(&dir).unwrap_or(&unsigned)),
    };
    let package = match package {
        Ok(package) => package,
        Err(reason) => return Err(BrokenPackage { dir, message: chain(&reason) }),
    };
    let (name, version) = (&package.spec.name, &package.spec.version);
    if others.iter().any(|other| other.spec.name == *name && other.spec.version == *version) {
        let message = format!("slot has a second model named `{name}` of version `{version}`");
        return Err(BrokenPackage { dir, message });
    }
    Ok(package)
}

fn failure(kind: FailureKind, reason: &dyn Error) -> Failure {
    Failure::new(kind, chain(reason))
}
