//! Processes that hang: each is ended by somebody, and what it did is done again.

use std::time::Duration;

use crate::failure::Failure;
use crate::nspawn::station::Station;
use crate::nspawn::updates::none_failed;
use crate::nspawn::wait::now;

/// The gateway is stopped in its tracks; the watchdog ends it, and the next one answers.
pub(crate) fn gateway(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    let before = on.holds("the gateway runs", "pid socle-gateway")?;
    let start = now();
    on.holds("it is stopped", "kill -STOP $(pid socle-gateway)")?;
    let again =
        format!("new=$(pid socle-gateway); [ $new != 0 ] && [ $new != {} ] && ask", before.trim());
    on.soon("another gateway answers", &again)?;
    let seconds = start.elapsed().as_secs_f64();
    on.holds(
        "it was the watchdog",
        "journalctl --no-pager -o cat -u socle-gateway | grep 'Watchdog timeout' >/dev/null",
    )?;
    on.holds("no try was spent and nothing rolled back", "status | grep '^committed   first '")?;
    Ok(format!("answers again {seconds:.1} s after it hung"))
}

/// Releases whose gateway hangs, before it says that it is ready and after: both are rolled back.
pub(crate) fn release(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    let mut told = Vec::new();
    for name in ["hanging", "mute"] {
        let load = on.load()?;
        let start = now();
        let taken = on.roll_out(name)?;
        on.until_committed("first")?;
        let tally = load.stop()?;
        if taken {
            return Err(Failure::new(format!("the release `{name}` was taken")));
        }
        // A mute gateway that takes connections and never answers fails those requests by itself.
        if name == "hanging" {
            none_failed(&tally)?;
        }
        told.push(format!(
            "{name}: back after {:.0} s, {}",
            start.elapsed().as_secs_f64(),
            tally.line()
        ));
    }
    Ok(told.join("; "))
}

/// A worker is stopped in its tracks: the gateway says so, and another takes its place.
pub(crate) fn worker(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    let before = on.holds("the worker runs", "pid socle-worker@a")?;
    let gateway = on.holds("the gateway runs", "pid socle-gateway")?;
    let start = now();
    on.holds("it is stopped", "kill -STOP $(pid socle-worker@a)")?;
    on.soon("the gateway says that it is not ready", "not api /readyz")?;
    let unready = start.elapsed().as_secs_f64();
    on.holds("and still answers for itself", "api /livez")?;
    let again =
        format!("new=$(pid socle-worker@a); [ $new != 0 ] && [ $new != {} ] && ask", before.trim());
    on.soon("another worker answers", &again)?;
    let seconds = start.elapsed().as_secs_f64();
    on.holds(
        "the gateway was not replaced for it",
        &format!("test \"$(pid socle-gateway)\" = {}", gateway.trim()),
    )?;
    Ok(format!("not ready after {unready:.1} s, answers again after {seconds:.1} s"))
}

/// The updater is stopped in its tracks while it installs: requests are answered, it is ended at its
/// time limit (here made shorter), and the update goes on to its end.
pub(crate) fn updater(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    on.holds(
        "its time limit is made shorter",
        "mkdir -p /run/systemd/system/socle-updater.service.d && printf '[Service]\\nTimeoutStartSec=8s\\n' \
         >/run/systemd/system/socle-updater.service.d/limit.conf && systemctl daemon-reload",
    )?;
    let load = on.load()?;
    let fleet = on.fleet()?;
    let number = fleet.start_rollout("next")?;
    on.holds(
        "the updater is caught at work",
        "for i in $(seq 3000); do
             p=$(pid socle-updater)
             if [ \"$p\" != 0 ] && [ -e /var/lib/socle/staging/request.cbor ] && kill -STOP $p 2>/dev/null; then exit 0; fi
             sleep 0.01
         done; exit 1",
    )?;
    let start = now();
    on.holds("the machine answers meanwhile", "ask")?;
    let taken = fleet.watch_rollout(number)?;
    on.until_committed("next")?;
    let tally = load.stop()?;
    none_failed(&tally)?;
    if !taken {
        return Err(Failure::new("the rollout was halted"));
    }
    on.holds(
        "it was ended at its limit",
        "journalctl --no-pager -o cat -u socle-updater | grep 'timed out' >/dev/null",
    )?;
    Ok(format!(
        "updated {:.0} s after the updater hung; {}",
        start.elapsed().as_secs_f64(),
        tally.line()
    ))
}

/// Longer than the gateway's loops may be silent and the watchdog's patience together.
const OFFLINE: Duration = Duration::from_secs(100);

/// Controller and broker are gone for longer than the watchdog waits: the gateway is left in peace.
pub(crate) fn offline(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    let before = on.holds("the gateway runs", "pid socle-gateway")?;
    on.lose_fleet();
    let load = on.load()?;
    std::thread::sleep(OFFLINE);
    let tally = load.stop()?;
    none_failed(&tally)?;
    on.holds(
        "the same gateway runs",
        &format!("test \"$(pid socle-gateway)\" = {} && test \"$(systemctl show -P NRestarts socle-gateway)\" = 0", before.trim()),
    )?;
    Ok(format!("{} s alone; {}", OFFLINE.as_secs(), tally.line()))
}
