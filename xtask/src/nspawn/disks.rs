//! Faults of a real disk under /var/lib/socle.

use crate::failure::Failure;
use crate::nspawn::station::Station;
use crate::nspawn::updates::none_failed;

/// Room on the disk: enough for a release, so that it is not refused beforehand.
pub(crate) const ROOM: u64 = 160 << 20;

/// The disk fills while a release is staged: the machine answers, starts its gateway on the full disk, and
/// takes the release once there is room. Where it refused the release meanwhile, which halts it, another is
/// rolled out.
pub(crate) fn full(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    let number = on.fleet()?.start_rollout("next")?;
    on.holds(
        "the disk fills while the release comes",
        "for i in $(seq 3000); do
             ls /var/lib/socle/staging/objects | grep -q . && break
             sleep 0.01
         done
         full() { test \"$(df --output=avail /var/lib/socle | tail -1)\" -lt 1024; }
         # What the updater clears away when it fails is filled too.
         for i in $(seq 100); do
             cat /dev/zero >>/var/lib/socle/filler 2>/dev/null
             full && break
             sleep 0.01
         done
         full",
    )?;
    on.holds("the machine answers", "ask")?;
    on.holds("its gateway is killed", "kill -KILL $(pid socle-gateway)")?;
    on.soon("and starts on the full disk", "ask")?;
    // From here on: what a killed gateway was answering is lost, which no restart in order may do.
    let load = on.load()?;
    on.holds("it is restarted in order", "systemctl restart socle-gateway")?;
    on.soon("and starts on the full disk again", "ask")?;
    let phase = on.record()?;
    let phase = phase.get("phase").map(ToString::to_string).unwrap_or_default();
    on.holds("there is room again", "rm /var/lib/socle/filler")?;
    let first = on.fleet()?.watch_rollout(number)?;
    if !first && !on.roll_out("again")? {
        return Err(Failure::new("the release was not taken though there was room"));
    }
    on.until_committed(if first { "next" } else { "again" })?;
    let tally = load.stop()?;
    none_failed(&tally)?;
    let how = if first { "took the release" } else { "refused the release, took the next one" };
    Ok(format!("answered on the full disk (update then {phase}), {how}; {}", tally.line()))
}

/// The disk turns read-only in probation: the machine answers, again after its gateway was killed, and
/// the update ends in order once the disk can be written to.
pub(crate) fn read_only(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    on.fleet()?.start_rollout("slow")?;
    on.until_phase("probation")?;
    on.soon("the gateway on trial answers", "ask")?;
    on.holds(
        "the disk turns read-only",
        "mount -o remount,ro /var/lib/socle && not touch /var/lib/socle/x",
    )?;
    on.holds("the machine answers", "ask")?;
    on.holds("its gateway is killed", "kill -KILL $(pid socle-gateway)")?;
    on.soon("and starts with nothing to write to", "ask")?;
    on.holds(
        "the disk is mended",
        "mount -o remount,rw /var/lib/socle && touch /var/lib/socle/x && rm /var/lib/socle/x",
    )?;
    // The start that could not be written down was of the release before; the next is of the one on trial.
    on.holds("the gateway is started again", "systemctl restart socle-gateway")?;
    let load = on.load()?;
    on.until_committed("slow")?;
    let tally = load.stop()?;
    none_failed(&tally)?;
    Ok(format!("answered throughout, committed after; {}", tally.line()))
}
