//! Where machines are put together: the root file system, the programs, and the states that were saved.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::machine::Machine;
use crate::nspawn::container::Parts;
use crate::nspawn::fleet::Fleet;
use crate::nspawn::ground::Ground;
use crate::nspawn::network::Network;
use crate::nspawn::origin::From;
use crate::nspawn::station::{Left, Station};
use crate::package::{self, Package, Squeeze};
use crate::{say, shell};

/// Added to the agent, it makes another build of it, which does the same.
const REBUILT: &[u8] = b"\nanother build\n";
/// The faults of `socle-crash-agent`, told by the end of its file.
const FAULTS: [(&str, &[u8]); 2] = [
    ("socle-hang-agent", b"\nsocle-crash-agent: hang\n"),
    ("socle-mute-agent", b"\nsocle-crash-agent: mute\n"),
];

/// A state of machine and fleet that others start from.
#[derive(Clone, Debug)]
struct Saved {
    at: From,
    lower: String,
    varlib: PathBuf,
    fleet: Option<PathBuf>,
}

/// What a stand is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'p> {
    /// The root file system.
    pub(crate) base: &'p Path,
    /// A folder that is deleted in the end.
    pub(crate) work: &'p Path,
    /// The programs.
    pub(crate) bin_dir: &'p Path,
    /// A launcher for the package; it is built if there is none.
    pub(crate) launch: Option<&'p Path>,
    /// The model.
    pub(crate) model: &'p Path,
}

/// The stand.
#[derive(Debug)]
pub(crate) struct Stand<'a> {
    ground: Ground<'a>,
    saved: RefCell<Vec<Saved>>,
}

impl<'a> Stand<'a> {
    /// Lays out programs and packages below `work`.
    pub(crate) fn new(
        machine: &'a Machine,
        network: &'a Network,
        places: &Places<'_>,
    ) -> Result<Self, Failure> {
        let Places { base, work, bin_dir, launch, model } = *places;
        let rig = work.join("rig");
        let laying = |error| Failure::new(format!("laying out `{}`", rig.display())).because(error);
        std::fs::create_dir_all(&rig).map_err(laying)?;
        for name in
            ["socle", "socle-agent", "socle-launch", "socle-controller", "socle-crash-agent"]
        {
            std::fs::copy(bin_dir.join(name), rig.join(name)).map_err(laying)?;
        }
        let variant = |of: &str, name: &str, tail: &[u8]| {
            let mut bytes = std::fs::read(rig.join(of))?;
            bytes.extend_from_slice(tail);
            std::fs::copy(rig.join(of), rig.join(name))?;
            std::fs::File::create(rig.join(name))?.write_all(&bytes)
        };
        variant("socle-agent", "socle-agent-next", REBUILT).map_err(laying)?;
        for (name, tail) in FAULTS {
            variant("socle-crash-agent", name, tail).map_err(laying)?;
        }
        copy(machine, model, &rig.join("model"), "-rL")?;
        copy(machine, &machine.root.join("workbench/data/faq"), &rig.join("faq"), "-rL")?;
        let packing = Package {
            bin_dir: Some(&rig),
            launch,
            out: Some(&rig),
            version: None,
            squeeze: Squeeze::Quick,
        };
        let first = package::make(machine, &packing)?;
        let newer = format!("{}+1", package::version(machine)?);
        let second = package::make(machine, &Package { version: Some(&newer), ..packing })?;
        std::fs::create_dir(rig.join("newer"))
            .and_then(|()| rename(&first, &rig.join("socle-agent.deb")))
            .and_then(|()| rename(&second, &rig.join("newer/socle-agent.deb")))
            .map_err(laying)?;
        let varlib = work.join("saved-bare");
        copy(machine, &base.join("var/lib"), &varlib, "-a")?;
        let bare = Saved {
            at: From::Bare,
            lower: base.to_string_lossy().into_owned(),
            varlib,
            fleet: None,
        };
        let saved = RefCell::new(vec![bare]);
        let ground = Ground { machine, network, rig, work: work.to_owned() };
        Ok(Self { ground, saved })
    }

    /// A machine in a state that was saved, booted, with its fleet.
    pub(crate) fn open(&self, from: From) -> Result<Station<'_>, Failure> {
        let wanted = match from {
            From::Bare | From::Installed | From::Enrolled => from,
            From::OnDisk(_) => From::Enrolled,
        };
        let saved = self.saved.borrow().iter().find(|saved| saved.at == wanted).cloned();
        let saved =
            saved.ok_or_else(|| Failure::new(format!("the state {wanted:?} was not saved")))?;
        let now = self.ground.work.join("now");
        self.clear(&now)?;
        let at = |name: &str| now.join(name);
        for name in ["upper/etc", "scratch", "root", "upper/var/log/journal"] {
            std::fs::create_dir_all(at(name))
                .map_err(|error| Failure::new(format!("making `{name}`")).because(error))?;
        }
        std::fs::File::create(at("upper/etc/hosts"))
            .and_then(|mut hosts| hosts.write_all(b"127.0.0.1 localhost\n"))
            .map_err(|error| Failure::new("naming localhost").because(error))?;
        copy(self.ground.machine, &saved.varlib, &at("varlib"), "-a")?;
        let disk = match from {
            From::OnDisk(room) => Some(self.disk(&at("varlib/socle"), &at("disk"), room)?),
            From::Bare | From::Installed | From::Enrolled => None,
        };
        let fleet = match &saved.fleet {
            Some(fleet) => {
                self.clear(&self.ground.fleet_folder())?;
                copy(self.ground.machine, fleet, &self.ground.fleet_folder(), "-a")?;
                Some(Fleet::resume(self.ground.side(), &self.ground.fleet_folder())?)
            }
            None => None,
        };
        let parts = Parts {
            lower: saved.lower,
            upper: at("upper"),
            scratch: at("scratch"),
            root: at("root"),
            varlib: at("varlib"),
            disk,
            rig: self.ground.rig.clone(),
        };
        Station::boot(&self.ground, parts, fleet)
    }

    /// Keeps what a machine that was shut down left, for others to start from.
    pub(crate) fn save(&self, at: From, left: &Left) -> Result<(), Failure> {
        let Left { parts, fleet } = left;
        let folder = self.ground.work.join(format!("saved-{at:?}"));
        let moving = |error| Failure::new(format!("saving the state {at:?}")).because(error);
        std::fs::create_dir(&folder).map_err(moving)?;
        rename(&parts.upper, &folder.join("upper")).map_err(moving)?;
        rename(&parts.varlib, &folder.join("varlib")).map_err(moving)?;
        let lower = format!("{}:{}", folder.join("upper").display(), parts.lower);
        let kept = folder.join("fleet");
        if *fleet {
            rename(&self.ground.fleet_folder(), &kept).map_err(moving)?;
        }
        let varlib = folder.join("varlib");
        let fleet = fleet.then_some(kept);
        self.saved.borrow_mut().push(Saved { at, lower, varlib, fleet });
        Ok(())
    }

    /// An ext4 image that holds what is in `folder`, with `room` bytes left for more.
    fn disk(&self, folder: &Path, image: &Path, room: u64) -> Result<PathBuf, Failure> {
        let mut used = self.ground.machine.command(Path::new("du"));
        used.args(["-s", "-B1"]).arg(folder).stdout(std::process::Stdio::piped());
        let used = shell::read(&mut used)?.out;
        let used: u64 = used.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        // A journal of 4 MiB, and tables.
        let bytes = used + room + (8 << 20);
        std::fs::File::create(image)
            .and_then(|file| file.set_len(bytes))
            .map_err(|error| Failure::new("making a disk image").because(error))?;
        let mut make = self.ground.machine.command(Path::new("mkfs.ext4"));
        make.args(["-q", "-F", "-m", "0", "-J", "size=4", "-d"]).arg(folder).arg(image);
        say::line(&format!("$ {}", shell::line(&make)));
        shell::run(make.stdout(std::io::stderr()))?;
        Ok(image.to_owned())
    }

    fn clear(&self, folder: &Path) -> Result<(), Failure> {
        shell::run(self.ground.machine.command(Path::new("rm")).arg("-rf").arg(folder))
    }
}

/// Copies by `cp`, which keeps owners, links and holes, and shares blocks where the disk can.
fn copy(machine: &Machine, from: &Path, to: &Path, how: &str) -> Result<(), Failure> {
    shell::run(machine.command(Path::new("cp")).args([how, "--reflink=auto"]).arg(from).arg(to))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a temporary folder: nothing of it outlives this run"
)]
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)
}
