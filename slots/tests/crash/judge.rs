//! What must hold whenever a machine wakes up, found by the real recovery: the boot record, `arm`, the launcher's choice.

use std::path::Path;

use protocol::{digest::Digest, id::Slot, manifest::Manifest, tuf::chain::pinned_root};
use slots::{
    arm,
    crash_disk::CrashDisk,
    disk::{self, Disk as _},
    install,
    launch::{self, Asked, Factory, Launch, Place, Role},
    layout::StateDir,
    record::{self, Loaded, Source},
    state::{StartId, State},
    store::Store,
    trust, verify,
};

use crate::{
    crash::machine::{Machine, Promised},
    support::NOW,
};

/// Where the package's own agent lies.
const FACTORY: &str = "/f";

/// Whether faults were met on the way: then a stamp that should be gone may come back, beside a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    PowerCut,
    Fault,
}

/// Puts the package's own agent on the disk, as the package manager does: durably, before anything else.
pub(crate) fn factory(disk: &CrashDisk) {
    let (folder, agent) = (Path::new(FACTORY), b"factory agent".as_slice());
    let bin = folder.join("bin");
    for made in [folder, &bin] {
        disk.create_dir(made).unwrap();
        disk.sync_dir(made.parent().unwrap()).unwrap();
    }
    let described = Factory { version: "0.1.0".into(), sha256: Digest::of(agent) };
    disk::replace(disk, &bin.join("socle-agent"), agent).unwrap();
    disk.set_mode(&bin.join("socle-agent"), 0o555).unwrap();
    disk.sync_file(&bin.join("socle-agent")).unwrap();
    let described = serde_json::to_vec(&described).unwrap();
    disk::replace(disk, &folder.join("factory.json"), &described).unwrap();
}

/// Old or new, never neither; every acknowledged commit is there. The machine is looked at after its power came back.
pub(crate) fn wakes(machine: &Machine<'_>, after: After) -> Result<(), String> {
    let (disk, dir, promised) = (&machine.disk, &machine.dir, &machine.promised);
    trusts(disk, dir, promised)?;
    let loaded = record::load(disk, dir, NOW);
    remembers(&loaded, promised)?;
    // The start after the power came back, as it is.
    let started = disk.copy();
    let start = StartId::named("after");
    dir.prepare(&started).map_err(|error| text(&error))?;
    let armed = arm::arm(&started, dir, start, NOW).map_err(|error| text(&error))?;
    let state = &armed.record.state;
    let opened = open(&started, dir, Role::Gateway, state, start)?;
    runs(&started, dir, promised, state, &opened)?;
    let mut opened_slots = vec![opened.place];
    if let State::Probation { .. } = loaded.record.state {
        // The same without a try that could be written: the committed release. The updater too runs from that.
        for role in [Role::Gateway, Role::Updater] {
            let opened = open(disk, dir, role, &loaded.record.state, start)?;
            if opened.release != loaded.record.state.active().map(|held| held.release) {
                return Err(format!("without a try, {:?} starts", opened.release));
            }
            opened_slots.push(opened.place);
        }
    }
    let slots = opened_slots.iter().filter_map(|place| match place {
        Place::Slot(slot, _) => Some(*slot),
        Place::Factory => None,
    });
    stamps(disk, dir, after, &slots.collect::<Vec<_>>())?;
    without_record(disk, dir, promised)
}

/// With both copies of the boot record lost, a machine goes on with its last stamped release.
fn without_record(disk: &CrashDisk, dir: &StateDir, promised: &Promised) -> Result<(), String> {
    let lost = disk.copy();
    lost.destroy(&dir.record());
    let state = record::load(&lost, dir, NOW).record.state;
    let opened = open(&lost, dir, Role::Gateway, &state, StartId::UNKNOWN)
        .map_err(|why| format!("without its record: {why}"))?;
    let known = [promised.stamped, promised.committed, promised.committing];
    let known = opened.release.is_some() && known.contains(&opened.release);
    if promised.stamped.is_some() && !known {
        return Err(format!("without its record, {:?} starts", opened.release));
    }
    Ok(())
}

/// What must hold on a disk that is failing right now: something genuine starts, and not an older release.
pub(crate) fn works(machine: &Machine<'_>) -> Result<(), String> {
    let (disk, dir, promised) = (&machine.disk, &machine.dir, &machine.promised);
    let start = StartId::named("failing");
    // Whether a try can be written or not.
    let armed = arm::arm(disk, dir, start, NOW).map(|armed| armed.record.state);
    let state = record::load(disk, dir, NOW).record.state;
    let opened = open(disk, dir, Role::Gateway, &state, start)?;
    runs(disk, dir, promised, &state, &opened)?;
    let active = state.active().map(|held| held.release);
    if armed.is_err() && opened.release != active {
        return Err(format!("no try was written, and {:?} starts", opened.release));
    }
    Ok(())
}

/// What must hold once everything was done: nothing is left over, neither in a slot nor in the store.
pub(crate) fn settled(machine: &Machine<'_>) -> Result<(), String> {
    let (disk, dir, promised) = (&machine.disk, &machine.dir, &machine.promised);
    let state = record::load(disk, dir, NOW).record.state;
    let active = state.active().map(|held| held.release);
    if active != promised.committed {
        return Err(format!("{active:?} is committed at the end"));
    }
    let stamped = install::stamped(disk, dir).map(|stamped| stamped.held.release);
    if stamped != active {
        return Err(format!("committed, and the stamp names {stamped:?}"));
    }
    if !matches!(state, State::Steady { .. }) {
        return Ok(());
    }
    for slot in Slot::BOTH {
        let place = dir.slot(slot);
        let stamped = matches!(disk.length(&place.stamp()), Ok(Some(_)));
        if disk.list(place.path()).is_ok() && !stamped {
            return Err(format!("slot {slot} holds what an ended trial left"));
        }
    }
    match Store::new(disk, dir).prune(&Default::default()) {
        Ok(0) => Ok(()),
        Ok(left) => Err(format!("{left} files of the store are used by nothing")),
        Err(error) => Err(text(&error)),
    }
}

fn trusts(disk: &CrashDisk, dir: &StateDir, promised: &Promised) -> Result<(), String> {
    if promised.enrolled {
        trust::load(disk, dir).map_err(|error| text(&error))?;
        trust::authority(disk, dir).map_err(|error| text(&error))?;
    }
    Ok(())
}

fn remembers(loaded: &Loaded, promised: &Promised) -> Result<(), String> {
    let lost = match loaded.source {
        Source::Whole | Source::OneCopy | Source::Fresh => false,
        Source::Recovered | Source::Unreadable | Source::Newer(_) => true,
    };
    if lost && !promised.record_lost {
        return Err("the boot record was lost".into());
    }
    let record = &loaded.record;
    let active = record.state.active().map(|held| held.release);
    if active != promised.committed && (active.is_none() || active != promised.committing) {
        return Err(format!("{active:?} is committed, promised is {:?}", promised.committed));
    }
    if promised.record_lost {
        return Ok(());
    }
    match promised.quarantined.iter().find(|release| record.quarantined(release).is_none()) {
        Some(release) => Err(format!("release {} is pardoned", release.short())),
        None => Ok(()),
    }
}

/// The gateway that starts is the committed release's or, on probation, the trial's; whole.
fn runs(
    disk: &CrashDisk,
    dir: &StateDir,
    promised: &Promised,
    state: &State,
    opened: &Launch<()>,
) -> Result<(), String> {
    let Place::Slot(slot, _) = opened.place else {
        return match promised.committed {
            Some(_) => Err(format!("the factory starts: {:?}", opened.alarms)),
            None => Ok(()),
        };
    };
    let allowed = [state.active(), state.running()].map(|held| held.map(|held| held.release));
    if !allowed.contains(&opened.release) {
        return Err(format!("neither old nor new starts: {:?}", opened.release));
    }
    whole(disk, dir, slot)
}

/// Every file of the release is as its manifest says. That the manifest is genuine was seen when the slot was opened.
fn whole(disk: &CrashDisk, dir: &StateDir, slot: Slot) -> Result<(), String> {
    let place = dir.slot(slot);
    let bytes = disk.read(&place.manifest(), 1 << 20).map_err(|error| text(&error))?;
    let manifest = Manifest::parse(&bytes).map_err(|error| text(&error))?;
    verify::complete(disk, &place, &manifest.files).map_err(|(_, error)| text(&error))?;
    let documents = disk.list(&place.release()).map_err(|error| text(&error))?;
    for name in documents.iter().filter(|name| name.ends_with(".root.json")) {
        let path = place.release().join(name);
        let bytes = disk.read(&path, 1 << 20).map_err(|error| text(&error))?;
        pinned_root(&bytes).map_err(|error| format!("{name}: {}", text(&error)))?;
    }
    Ok(())
}

/// What is stamped is whole, and genuine: that was seen already of the slots that were `opened`.
fn stamps(disk: &CrashDisk, dir: &StateDir, after: After, opened: &[Slot]) -> Result<(), String> {
    let best = install::stamped(disk, dir).map(|stamped| stamped.held.slot);
    for slot in Slot::BOTH {
        let stamped = matches!(disk.length(&dir.slot(slot).stamp()), Ok(Some(_)));
        let counts = after == After::PowerCut || best == Some(slot);
        if stamped && counts {
            let damaged = |why| format!("a stamped slot is damaged: {why}");
            whole(disk, dir, slot).map_err(damaged)?;
            if !opened.contains(&slot) {
                verify::installed(disk, dir, slot, None).map_err(|e| damaged(text(&e)))?;
            }
        }
    }
    Ok(())
}

fn open(
    disk: &CrashDisk,
    dir: &StateDir,
    role: Role,
    state: &State,
    start: StartId,
) -> Result<Launch<()>, String> {
    let asked = Asked { role, state, start, now: NOW };
    launch::open(disk, dir, Path::new(FACTORY), &asked).map_err(|error| text(&error))
}

fn text(error: &dyn std::error::Error) -> String {
    launch::chain_text(error)
}
