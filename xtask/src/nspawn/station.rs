//! A machine that runs, with what scenarios do to it and look at.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::Failure;
use crate::nspawn::container::{Container, Parts};
use crate::nspawn::fleet::Fleet;
use crate::nspawn::ground::Ground;
use crate::nspawn::load::Load;
use crate::nspawn::wait::{self, now};
use crate::shell;

/// How long a thing that should become so is waited for.
const SOON: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);
/// Pause between two looks at the boot record: shorter than a release is armed before it starts.
const RECORD_LOOK: Duration = Duration::from_millis(10);

/// Words of the shell that every script begins with.
const PRELUDE: &str = r#"
set -o pipefail
api() { curl -sS --fail-with-body -m 20 --unix-socket /run/socle/api.sock "http://localhost$1" "${@:2}"; }
ask() { api /v1/ask -H 'content-type: application/json' -d '{"question":"How do I reset my password?"}' | grep -q password-reset; }
status() { /usr/lib/socle/socle-launch status; }
pid() { systemctl show -P MainPID "$1"; }
not() { ! "$@"; }
"#;

/// The machine.
#[derive(Debug)]
pub(crate) struct Station<'a> {
    ground: &'a Ground<'a>,
    parts: Parts,
    container: Option<Container>,
    fleet: Option<Fleet<'a>>,
}

/// What a machine that was shut down left, for others to start from.
#[derive(Debug)]
pub(crate) struct Left {
    /// Its files.
    pub(crate) parts: Parts,
    /// Whether there is a fleet.
    pub(crate) fleet: bool,
}

impl<'a> Station<'a> {
    /// Boots one.
    pub(crate) fn boot(
        ground: &'a Ground<'a>,
        parts: Parts,
        fleet: Option<Fleet<'a>>,
    ) -> Result<Self, Failure> {
        let container = Some(Container::boot(ground.machine, &parts, ground.network)?);
        Ok(Self { ground, parts, container, fleet })
    }

    /// Runs words of the shell in the machine; what they print, or a failure with that.
    pub(crate) fn holds(&self, what: &str, script: &str) -> Result<String, Failure> {
        let printed = self.container()?.sh(self.ground.machine, &format!("{PRELUDE}\n{script}"))?;
        if printed.status.success() {
            return Ok(printed.out);
        }
        let said = format!("{}{}", printed.out, printed.err);
        Err(Failure::new(format!("does not hold: {what}\n{}", said.trim())))
    }

    /// The same, tried again until it holds, for three minutes.
    pub(crate) fn soon(&self, what: &str, script: &str) -> Result<String, Failure> {
        let mut last = None;
        let held = wait::until(SOON, LOOK, || match self.holds(what, script) {
            Ok(out) => Some(out),
            Err(failure) => {
                last = Some(failure);
                None
            }
        });
        held.ok_or_else(|| last.unwrap_or_else(|| Failure::new(what.to_owned())))
    }

    /// Waits until something on our side of the network is so.
    pub(crate) fn soon_on_our_side(
        &self,
        what: &str,
        look: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        let held = wait::until(SOON, LOOK, || look().then_some(()));
        held.ok_or_else(|| Failure::new(format!("does not hold: {what}")))
    }

    /// The boot record, as `socle-launch status --json` tells it.
    pub(crate) fn record(&self) -> Result<Value, Failure> {
        let mut command = self.ground.machine.command(&self.ground.rig.join("socle-launch"));
        command.args(["status", "--json", "--state"]);
        command.arg(self.container()?.files().join("var/lib/socle"));
        let printed = shell::read(command.stdout(std::process::Stdio::piped()))?;
        serde_json::from_str(&printed.out).map_err(|error| {
            Failure::new(format!("reading the boot record: {}", printed.err.trim())).because(error)
        })
    }

    /// Waits for the boot record to be in a phase.
    pub(crate) fn until_phase(&self, wanted: &str) -> Result<Value, Failure> {
        let mut seen = Vec::new();
        let found = wait::until(SOON, RECORD_LOOK, || {
            let record = self.record().ok()?;
            let phase = record.get("phase").and_then(Value::as_str).unwrap_or_default().to_owned();
            if seen.last() != Some(&phase) {
                seen.push(phase.clone());
            }
            phase.eq_ignore_ascii_case(wanted).then_some(record)
        });
        found.ok_or_else(|| {
            Failure::new(format!("the update was never {wanted}, but: {}", seen.join(", ")))
        })
    }

    /// Waits until `release` is committed and answers.
    pub(crate) fn until_committed(&self, release: &str) -> Result<(), Failure> {
        self.soon(
            &format!("release {release} is committed"),
            &format!("status | grep '^committed   {release} '"),
        )?;
        self.soon("and answers", "ask").map(|_| ())
    }

    /// Makes the fleet that the machine is to join.
    pub(crate) fn found_fleet(&mut self) -> Result<(), Failure> {
        let folder = self.ground.fleet_folder();
        std::fs::create_dir(&folder)
            .map_err(|error| Failure::new("making the fleet's folder").because(error))?;
        self.fleet = Some(Fleet::make(self.ground.side(), &folder)?);
        Ok(())
    }

    /// Its fleet.
    pub(crate) fn fleet(&self) -> Result<&Fleet<'a>, Failure> {
        self.fleet.as_ref().ok_or_else(|| Failure::new("this machine has no fleet"))
    }

    /// Ends broker and controller.
    pub(crate) fn lose_fleet(&mut self) {
        if let Some(fleet) = self.fleet.as_mut() {
            fleet.stop();
        }
    }

    /// Rolls a release out and waits for the end of that; whether it was taken.
    pub(crate) fn roll_out(&self, release: &str) -> Result<bool, Failure> {
        let fleet = self.fleet()?;
        let number = fleet.start_rollout(release)?;
        fleet.watch_rollout(number)
    }

    /// Starts steady requests.
    pub(crate) fn load(&self) -> Result<Load, Failure> {
        let token = self.container()?.files().join("var/lib/socle/identity/api-token");
        Load::start(self.ground.machine, self.ground.network, &token)
    }

    /// The power fails, and comes back.
    pub(crate) fn cut_power(&mut self) -> Result<Duration, Failure> {
        let start = now();
        self.container.take().map_or_else(missing, Container::cut_power)?;
        self.boot_again(start)
    }

    /// The machine is rebooted in order.
    pub(crate) fn reboot(&mut self) -> Result<Duration, Failure> {
        let start = now();
        let machine = self.ground.machine;
        let shut_down = |container: Container| container.shut_down(machine, "reboot");
        self.container.take().map_or_else(missing, shut_down)?;
        self.boot_again(start)
    }

    /// The machine is shut down for good.
    pub(crate) fn power_off(mut self) -> Result<Left, Failure> {
        let machine = self.ground.machine;
        let shut_down = |container: Container| container.shut_down(machine, "poweroff");
        self.container.take().map_or_else(missing, shut_down)?;
        let fleet = self.fleet.take().is_some();
        Ok(Left { parts: self.parts, fleet })
    }

    fn boot_again(&mut self, start: Instant) -> Result<Duration, Failure> {
        self.container =
            Some(Container::boot(self.ground.machine, &self.parts, self.ground.network)?);
        Ok(start.elapsed())
    }

    /// What journal and controller last said, for a failure.
    pub(crate) fn last_words(&self) -> String {
        let journal = "journalctl --no-pager -o short-precise -u 'socle*' -n 60; systemctl list-units --failed --no-pager";
        let journal = self.holds("", journal).unwrap_or_else(|failure| failure.to_string());
        let controller = self.fleet.as_ref().map(Fleet::log).unwrap_or_default();
        format!("journal:\n{journal}\ncontroller:\n{controller}")
    }

    fn container(&self) -> Result<&Container, Failure> {
        self.container.as_ref().ok_or_else(|| Failure::new("the machine does not run"))
    }
}

fn missing() -> Result<(), Failure> {
    Err(Failure::new("the machine does not run"))
}
