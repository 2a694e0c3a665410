#!/bin/sh
# Verifies the units and prints their exposure: `systemd/verify.sh`, from anywhere, as any user.
# Fails when systemd finds a fault, or a unit is more exposed than its limit. Needs systemd-analyze
# (Debian: apt-get install systemd); no running systemd.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
command -v systemd-analyze >/dev/null || {
    echo "systemd/verify.sh: systemd-analyze is missing; install it: apt-get install -y systemd" >&2
    exit 2
}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
units=$root/usr/lib/systemd/system
mkdir -p "$units" "$root/usr/lib/socle" "$root/usr/bin"
# The targets that ours refer to, from this machine; the commands need only be there.
for unit in /usr/lib/systemd/system/*.target /lib/systemd/system/*.target; do
    test ! -e "$unit" || cp -P "$unit" "$units/" 2>/dev/null || true
done
ln -s usr/bin "$root/bin"
for command in usr/lib/socle/socle-launch usr/bin/setpriv usr/bin/sh; do
    printf '#!/bin/sh\n' >"$root/$command"
    chmod 755 "$root/$command"
done
cp "$here"/socle-* "$units/"
for slot in a b; do
    ln -s socle-worker@.service "$units/socle-worker@$slot.service"
    ln -s socle-worker@.socket "$units/socle-worker@$slot.socket"
done

bad=0
for unit in socle-gateway.service socle-gateway.socket socle-gateway-tcp.socket \
    socle-worker@a.service socle-worker@a.socket socle-worker@b.service \
    socle-updater.service socle-updater.path socle-updater.timer; do
    # --man=no: the pages are not on a build machine. Faults of others' units are not ours.
    said=$(systemd-analyze verify --root="$root" --man=no --recursive-errors=no "$unit" 2>&1) && code=0 || code=$?
    said=$(printf '%s\n' "$said" | grep -F socle || true)
    if [ "$code" -ne 0 ] || [ -n "$said" ]; then
        printf 'verify %s failed (%s):\n%s\n' "$unit" "$code" "$said"
        bad=1
    else
        printf 'verify %s: no fault\n' "$unit"
    fi
done

# The threshold of systemd-analyze is in tenths, and one equal to it passes.
exposure() {
    said=$(cd "$units" && systemd-analyze security --offline=yes --no-pager --threshold="$2" "./$1" 2>&1) && code=0 || code=$?
    figure=$(printf '%s\n' "$said" | sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p')
    if [ "$code" -ne 0 ] || [ -z "$figure" ]; then
        printf 'exposure %s: %s, limit %s: too much, or not computed\n' "$1" "${figure:-?}" "$3"
        printf '%s\n' "$said" | grep '✗' || true
        bad=1
    else
        printf 'exposure %s: %s, limit %s\n' "$1" "$figure" "$3"
    fi
}
exposure socle-gateway.service 15 1.5
exposure socle-worker@.service 10 1.0
exposure socle-updater.service 5 0.5
exit "$bad"
