//! Other versions of the package on a machine that has one.

use crate::failure::Failure;
use crate::nspawn::station::Station;
use crate::nspawn::updates::none_failed;

/// A repository with the newer package, and apt told of it alone.
const UPGRADE: &str = r#"
mkdir -p /srv/apt && cp /rig/newer/socle-agent.deb /srv/apt/ && cd /srv/apt
{ echo "Filename: ./socle-agent.deb"
  echo "Size: $(stat -c %s socle-agent.deb)"
  echo "SHA256: $(sha256sum <socle-agent.deb | cut -d' ' -f1)"
  dpkg-deb -f socle-agent.deb; } >Packages
echo 'deb [trusted=yes] file:/srv/apt ./' >/srv/apt.list
only='-o Dir::Etc::SourceList=/srv/apt.list -o Dir::Etc::SourceParts=/dev/null'
apt-get $only update -q && apt-get $only upgrade -y -q
"#;

/// The digests of everything that an upgrade has no business with.
const SLOTS: &str =
    "cd /var/lib/socle && find slots store trust -type f -print0 | sort -z | xargs -0 sha256sum";

/// `apt upgrade` while a release is on trial.
pub(crate) fn apt_upgrade(on: &mut Station<'_>) -> Result<String, Failure> {
    on.soon("the agent answers", "ask")?;
    on.fleet()?.start_rollout("slower")?;
    on.until_phase("probation")?;
    on.soon("the gateway on trial answers", "ask")?;
    let before = on.holds("slots are read", SLOTS)?;
    let load = on.load()?;
    on.holds("apt upgrades the package", UPGRADE)?;
    on.holds("the newer package is there", "dpkg-query -W socle-agent | grep -F +1")?;
    let after = on.holds("slots are read", SLOTS)?;
    if before != after {
        return Err(Failure::new(format!("does not hold: slots are as before\n{before}\n{after}")));
    }
    on.until_committed("slower")?;
    let tally = load.stop()?;
    none_failed(&tally)?;
    on.holds("no unit failed", "test \"$(systemctl is-system-running)\" = running")?;
    Ok(format!("{} files of the slots untouched; {}", before.lines().count(), tally.line()))
}

/// An older package over a newer one is refused, and nothing of the newer one is gone.
pub(crate) fn package_downgrade(on: &mut Station<'_>) -> Result<String, Failure> {
    on.holds("the newer package installs", "apt-get install -y -q /rig/newer/socle-agent.deb")?;
    on.soon("and answers", "ask")?;
    on.holds("dpkg refuses the older one", "not dpkg -i /rig/socle-agent.deb")?;
    on.holds("apt does", "not apt-get install -y -q --allow-downgrades /rig/socle-agent.deb")?;
    on.holds("the newer one is whole", "dpkg-query -W -f '${Version} ${Status}' socle-agent | grep -F '+1 install ok installed' && dpkg -V socle-agent")?;
    on.holds("and answers", "ask")?;
    on.holds(
        "removing first is the way back",
        "apt-get remove -y -q socle-agent && apt-get install -y -q /rig/socle-agent.deb",
    )?;
    on.until_committed("first")?;
    Ok("refused by dpkg and apt; removed first, the older one finds the state".to_owned())
}
