#!/bin/sh
# Inspects two builds of the package: `packaging/deb/check.sh FIRST.deb SECOND.deb`.
#
# Holds that both are the same byte for byte, that the package owns launcher and factory and nothing
# of the state, that the factory's digest is that of the agent inside, that the launcher needs no
# library, that scripts parse, and that lintian, where it is installed, has no error and no warning.
# It installs nothing. `cargo xtask check --only package` builds both and calls it.
set -eu

if [ $# -ne 2 ]; then
    echo "packaging/deb/check.sh: wants two packages; run: cargo xtask check --only package" >&2
    exit 2
fi
first=$1
second=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
holds() { # holds NAME STATUS
    if [ "$2" -eq 0 ]; then
        printf 'deb: %s: holds\n' "$1"
    else
        printf 'deb: %s: DOES NOT HOLD\n' "$1"
        bad=1
    fi
}

cmp -s "$first" "$second" && same=0 || same=$?
holds "two builds give the same bytes" "$same"

dpkg-deb -c "$first" >"$work/contents"
awk '$2 != "root/root" && $2 != "0/0"' "$work/contents" | grep . && owned=1 || owned=0
holds "every file belongs to root" "$owned"
awk '$1 ~ /^-/ && ($1 ~ /[sStT]/ || substr($1, 9, 1) == "w" || substr($1, 6, 1) == "w")' "$work/contents" | grep . && modes=1 || modes=0
holds "no file is setuid or writable by others" "$modes"
# Slots, store and identity are the machine's own: no upgrade and no removal may touch them.
awk '{ print $6 }' "$work/contents" | grep -E '^\./(var|run|etc|tmp|home|srv|opt)/' && foreign=1 || foreign=0
holds "nothing under /var, /run or /etc" "$foreign"
awk '$1 ~ /^-/ && $6 ~ /^\.\/usr\/lib\/socle\// { print $6 }' "$work/contents" | sort >"$work/own"
printf './usr/lib/socle/%s\n' factory/bin/socle-agent factory/factory.json socle-launch >"$work/expected"
cmp -s "$work/own" "$work/expected" && own=0 || own=1
holds "launcher and factory, and nothing else of ours" "$own"

dpkg-deb -x "$first" "$work/tree"
dpkg-deb -e "$first" "$work/control"
stated=$(sed -n 's/.*"sha256":"\([0-9a-f]*\)".*/\1/p' "$work/tree/usr/lib/socle/factory/factory.json")
actual=$(sha256sum <"$work/tree/usr/lib/socle/factory/bin/socle-agent" | cut -d' ' -f1)
[ "$stated" = "$actual" ] && digest=0 || digest=1
holds "factory.json names the agent inside" "$digest"
ldd "$work/tree/usr/lib/socle/socle-launch" 2>&1 | grep -qE 'statically linked|not a dynamic executable' && static=0 || static=1
holds "the launcher needs no library" "$static"
grep -q '^Depends:.*libc6' "$work/control/control" && depends=0 || depends=1
holds "the agent's libraries are depended upon" "$depends"

parses=0
for script in "$work"/control/p* "$work/tree/usr/sbin/socle-enrol"; do
    sh -n "$script" || parses=1
done
holds "scripts parse" "$parses"
# Each unit that a script names must be in the package, as itself or as a template's instance.
named=0
for unit in $(grep -ohE 'socle-[a-z-]+(@[ab])?\.(service|socket|path|timer)' "$work"/control/p* | sort -u); do
    template=$(printf '%s' "$unit" | sed 's/@[ab]\./@./')
    [ -e "$work/tree/usr/lib/systemd/system/$template" ] || { echo "no unit $unit"; named=1; }
done
holds "every unit that a script names is packed" "$named"

if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error,warning "$first" && lint=0 || lint=1
    holds "lintian has nothing to say" "$lint"
else
    echo "deb: lintian is not installed, not asked (apt-get install -y lintian)"
fi
printf 'deb: %s, %s bytes\n' "${first##*/}" "$(stat -c %s "$first")"
exit "$bad"
