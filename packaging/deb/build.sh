#!/bin/sh
# Builds the Debian package `socle-agent` from finished binaries, byte for byte the same each time.
#
#   packaging/deb/build.sh [--bin-dir DIR] [--launch FILE] [--out DIR]
#
# --bin-dir  where socle-agent and socle-launch lie (default: target/release)
# --launch   another socle-launch, for instance one that is linked statically
# --out      where the package goes (default: target/deb); its path is the last line printed
#
# Needs dpkg-dev. The time in the package is SOURCE_DATE_EPOCH, else that of the last commit.
set -eu

fail() {
    printf 'packaging/deb/build.sh: %s\n' "$1" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
bin=$repo/target/release
out=$repo/target/deb
launch=
while [ $# -gt 0 ]; do
    case $1 in
        --bin-dir | --out | --launch)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case $1 in
                --bin-dir) bin=$2 ;;
                --out) out=$2 ;;
                --launch) launch=$2 ;;
            esac
            shift 2
            ;;
        *) fail "\`$1\` is not known; the comment at the top of the script lists the options" ;;
    esac
done
launch=${launch:-$bin/socle-launch}
agent=$bin/socle-agent

for tool in dpkg-deb dpkg-shlibdeps gzip sha256sum; do
    command -v "$tool" >/dev/null || fail "$tool is missing; install it: apt-get install -y dpkg-dev"
done
for program in "$agent" "$launch"; do
    [ -x "$program" ] || fail "$program is missing; build it: cargo build --release -p agent -p slots"
done

version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' "$repo/Cargo.toml")
[ -n "$version" ] || fail "no version under [workspace.package] in Cargo.toml"
architecture=$(dpkg --print-architecture)
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git -C "$repo" log -1 --format=%ct) || fail "set SOURCE_DATE_EPOCH outside a git checkout"
fi
export SOURCE_DATE_EPOCH
# Modes and order must not depend on who builds.
umask 022
export LC_ALL=C

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/socle-agent
put() { # put MODE FROM TO
    install -D -m "$1" "$2" "$tree/$3"
}

put 755 "$launch" usr/lib/socle/socle-launch
put 755 "$agent" usr/lib/socle/factory/bin/socle-agent
digest=$(sha256sum <"$agent" | cut -d' ' -f1)
printf '{"version":"%s","sha256":"%s"}\n' "$version" "$digest" >"$work/factory.json"
put 644 "$work/factory.json" usr/lib/socle/factory/factory.json
put 755 "$here/socle-enrol" usr/sbin/socle-enrol

for unit in "$repo"/systemd/socle-*; do
    put 644 "$unit" "usr/lib/systemd/system/${unit##*/}"
done
put 644 "$repo/systemd/sysusers.d/socle.conf" usr/lib/sysusers.d/socle.conf
put 644 "$repo/systemd/tmpfiles.d/socle.conf" usr/lib/tmpfiles.d/socle.conf

doc=usr/share/doc/socle-agent
put 644 "$here/copyright" $doc/copyright
put 644 "$repo/systemd/README.md" $doc/units.md
maintainer=$(sed -n 's/^Maintainer: //p' "$here/control")
printf 'socle (%s) unstable; urgency=medium\n\n  * Changes are listed in CHANGELOG.md.\n\n -- %s  %s\n' \
    "$version" "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$work/changelog.gz"
gzip -9n <"$repo/CHANGELOG.md" >"$work/CHANGELOG.md.gz"
put 644 "$work/changelog.gz" $doc/changelog.gz
put 644 "$work/CHANGELOG.md.gz" $doc/CHANGELOG.md.gz
put 644 "$here/lintian-overrides" usr/share/lintian/overrides/socle-agent

for script in postinst prerm postrm; do
    install -D -m 755 "$here/scripts/$script" "$tree/DEBIAN/$script"
done
install -m 644 "$here/templates" "$tree/DEBIAN/templates"
(cd "$tree" && find usr -type f | sort | xargs md5sum) >"$tree/DEBIAN/md5sums"

mkdir -p "$work/debian"
printf 'Source: socle\n\nPackage: socle-agent\nArchitecture: any\nDepends: ${shlibs:Depends}\n' >"$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O "$tree/usr/lib/socle/factory/bin/socle-agent" \
    "$tree/usr/lib/socle/socle-launch") || fail "dpkg-shlibdeps could not read the binaries"
libraries=$(printf '%s\n' "$libraries" | sed -n 's/^shlibs:Depends=//p')
# Policy counts whole kibibytes of files, not the blocks they happen to fill.
installed=$(find "$tree/usr" -type f -printf '%s\n' | awk '{ k += int(($1 + 1023) / 1024) } END { print k }')
sed -e "s|@VERSION@|$version|" -e "s|@ARCHITECTURE@|$architecture|" -e "s|@INSTALLED@|$installed|" \
    -e "s|@LIBRARIES@|${libraries:-libc6}|" "$here/control" >"$tree/DEBIAN/control"

find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
package=$out/socle-agent_${version}_${architecture}.deb
# One thread: xz divides its work, and so its output, by how many there are.
dpkg-deb --build --root-owner-group --threads-max=1 -Zxz -z4 "$tree" "$package" >/dev/null
printf '%s\n' "$package"
