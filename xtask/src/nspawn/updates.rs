//! The agent is updated by itself, to what works and to what does not.

use crate::failure::Failure;
use crate::nspawn::load::Tally;
use crate::nspawn::station::Station;

/// The agent takes a newer build of itself under steady requests.
pub(crate) fn self_update(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    let before = on.holds("the gateway runs", "pid socle-gateway")?;
    let executable = on.holds("its file is known", RUNNING)?;
    let load = on.load()?;
    let taken = on.roll_out("next")?;
    on.until_committed("next")?;
    let tally = load.stop()?;
    none_failed(&tally)?;
    if !taken {
        return Err(Failure::new("the rollout was halted"));
    }
    let after = on.holds("the gateway runs", "pid socle-gateway")?;
    let replaced = on.holds("its file is known", RUNNING)?;
    if before == after || executable == replaced {
        return Err(Failure::new("the gateway was not replaced"));
    }
    on.holds("no unit failed", "test \"$(systemctl is-system-running)\" = running")?;
    Ok(tally.line())
}

const RUNNING: &str = "sha256sum </proc/$(pid socle-gateway)/exe";

/// A release whose agent crashes at each of ten starts: none is refused by systemd, and the machine is
/// back with the release before.
pub(crate) fn crash_loop(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    let load = on.load()?;
    let taken = on.roll_out("crashing")?;
    on.until_committed("first")?;
    let tally = load.stop()?;
    none_failed(&tally)?;
    if taken {
        return Err(Failure::new("a release that crashes was taken"));
    }
    on.holds("it is quarantined", "status | grep '^quarantined '")?;
    let crashes = on.holds(
        "every try was spent, and systemd never gave up",
        "n=$(journalctl --no-pager -o cat | grep -c 'this gateway crashes at every start'); test \"$n\" -ge 10 && \
         ! journalctl --no-pager -o cat | grep 'Start request repeated too quickly' >/dev/null && echo $n",
    )?;
    let killed = on.holds(
        "killed twenty times in a row, the gateway comes back",
        "for i in $(seq 20); do
             old=$(pid socle-gateway)
             kill -KILL $old
             for j in $(seq 300); do new=$(pid socle-gateway); [ $new = 0 ] || [ $new = $old ] || break; sleep 0.05; done
         done; ask && echo 20",
    )?;
    Ok(format!("{} crashes, then {} kills; {}", crashes.trim(), killed.trim(), tally.line()))
}

/// An older release is refused, by the controller or by the machine.
pub(crate) fn release_downgrade(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    if !on.roll_out("next")? {
        return Err(Failure::new("the newer release was not taken"));
    }
    on.until_committed("next")?;
    let refused = match on.roll_out("first") {
        Ok(true) => return Err(Failure::new("an older release was taken")),
        Ok(false) => "the machine refused it, the rollout was halted".to_owned(),
        Err(failure) => failure.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    on.until_committed("next")?;
    Ok(refused)
}

/// Fails with what the requests met, if any of them failed.
pub(crate) fn none_failed(tally: &Tally) -> Result<(), Failure> {
    if tally.failed == 0 && tally.answered > 0 {
        return Ok(());
    }
    Err(Failure::new(format!("does not hold: no request fails; {}", tally.line())))
}
