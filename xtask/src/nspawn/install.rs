//! The package comes, the machine joins its fleet, and the package goes.

use crate::failure::Failure;
use crate::nspawn::station::Station;

/// Installs the package with apt.
pub(crate) fn install(on: &mut Station<'_>) -> Result<String, Failure> {
    on.holds("the package installs", "apt-get install -y -q /rig/socle-agent.deb")?;
    on.soon("no unit fails", "test \"$(systemctl is-system-running)\" = running")?;
    on.holds(
        "gateway, sockets, path and timer are started at boot",
        "systemctl is-enabled socle-gateway.service socle-gateway.socket socle-gateway-tcp.socket \
         socle-updater.path socle-updater.timer",
    )?;
    on.soon("the factory agent is alive", "api /livez")?;
    on.holds("and not ready, having no model", "not api /readyz")?;
    on.holds(
        "a stranger cannot use the Unix socket",
        "not runuser -u nobody -- curl -sS --unix-socket /run/socle/api.sock http://localhost/v1/status",
    )?;
    on.holds(
        "nor TCP without a token",
        "test \"$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:7411/v1/status)\" = 401",
    )?;
    on.holds(
        "the state is its users' own",
        "test \"$(stat -c '%U:%G %a' /var/lib/socle/boot)\" = 'socle-update:socle-slots 2750' && \
         test \"$(stat -c '%U %a' /var/lib/socle/outbox)\" = 'socle 700'",
    )?;
    Ok("factory agent alive, no unit failed".to_owned())
}

/// Enrols the machine and gives it its first release.
pub(crate) fn enrol(on: &mut Station<'_>) -> Result<String, Failure> {
    on.found_fleet()?;
    let fleet = on.fleet()?;
    let token = fleet.token()?;
    // By a file, so that the process list does not show it.
    let enrol = format!(
        "umask 077; echo '{token}' >/run/token; socle-enrol --controller https://localhost:8443 --token @/run/token"
    );
    on.holds("the machine enrols", &enrol)?;
    let online = || fleet.socle(&["device", "list"]).is_ok_and(|devices| devices.contains("yes"));
    on.soon_on_our_side("it is seen online", online)?;
    if !on.roll_out("first")? {
        return Err(Failure::new("the first release was not taken"));
    }
    on.until_committed("first")?;
    on.holds(
        "the used token is in no log",
        &format!("! journalctl --no-pager -o cat | grep -F '{token}' >/dev/null"),
    )?;
    Ok("online, first release committed, answers".to_owned())
}

/// Logs are in the journal, with fields to search by.
pub(crate) fn journal(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    for role in ["gateway", "worker"] {
        on.holds(
            &format!("the {role} logs under its own name, with priority, target and fields"),
            &format!(
                "journalctl --no-pager -o json -t socle-{role} | grep '\"TARGET\"' | \
                 grep '\"PRIORITY\"' | grep '\"F_' >/dev/null"
            ),
        )?;
    }
    on.holds(
        "lines are found by a field",
        "journalctl --no-pager -o cat F_SLOT=a | grep 'local API serves' >/dev/null",
    )?;
    on.holds(
        "no log holds the API token",
        "! journalctl --no-pager -o export | \
         grep -F \"$(cat /var/lib/socle/identity/api-token)\" >/dev/null",
    )?;
    let lines =
        on.holds("lines are counted", "journalctl --no-pager -o cat -t socle-gateway | wc -l")?;
    Ok(format!("{} lines of the gateway, found by name and field", lines.trim()))
}

/// Removing keeps the state, installing finds it again, purging asks.
pub(crate) fn purge(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    on.holds(
        "removing stops everything",
        "apt-get remove -y -q socle-agent && not pgrep -u socle,socle-worker,socle-update",
    )?;
    on.holds(
        "and leaves the state",
        "test -e /var/lib/socle/identity/fleet.json && test -e /var/lib/socle/slots",
    )?;
    on.holds("installing again finds it", "apt-get install -y -q /rig/socle-agent.deb")?;
    on.until_committed("first")?;
    on.holds(
        "purging with nobody there leaves the state",
        "apt-get purge -y -q socle-agent | grep 'rm -rf /var/lib/socle' >/dev/null && \
         test -e /var/lib/socle/identity/fleet.json",
    )?;
    on.holds(
        "installing once more goes on where it was",
        "apt-get install -y -q /rig/socle-agent.deb",
    )?;
    on.until_committed("first")?;
    on.holds(
        "purging after a yes deletes it",
        "echo 'socle-agent socle-agent/purge-state boolean true' | debconf-set-selections && \
         apt-get purge -y -q socle-agent && not test -e /var/lib/socle && not test -e /var/cache/socle-worker",
    )?;
    on.holds(
        "nothing of the package stays",
        "not dpkg -s socle-agent && not ls /usr/lib/socle && not ls /etc/systemd/system/*/socle*",
    )?;
    Ok("removed, found again, purged only after a yes".to_owned())
}
