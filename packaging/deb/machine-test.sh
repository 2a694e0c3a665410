#!/bin/bash
# The package on a machine: a Debian container with systemd as its first process takes three releases
# from a real controller through a real broker, loses power, and is purged.
#
#   packaging/deb/machine-test.sh [--bin-dir DIR] [--model DIR]
#
# As root, on a machine that may make namespaces; not part of `cargo xtask test`. Needs the packages
# systemd-container and mmdebstrap, built binaries, and the model that `cargo xtask fetch` puts into
# the cache. The first run fetches a Debian root (about a minute), which the cache keeps.
# Memory and processor limits of the units are not enforced in such a container.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/socle
bin=$repo/target/release
model=$cache/models/minilm-int8

fail() {
    echo "machine-test: $1" >&2
    exit 1
}
while [ $# -gt 0 ]; do
    case $1 in
        --bin-dir) bin=$(cd "$2" && pwd) ;;
        --model) model=$(cd "$2" && pwd) ;;
        *) fail "\`$1\` is not known" ;;
    esac
    shift 2
done
[ "$(id -u)" -eq 0 ] || fail "only root can boot a container; run it with sudo"
for tool in systemd-nspawn mmdebstrap dpkg-shlibdeps; do
    command -v "$tool" >/dev/null ||
        fail "$tool is missing: apt-get install -y --no-install-recommends systemd-container mmdebstrap dpkg-dev"
done
[ -e "$model/model.onnx" ] || fail "no model in $model: cargo xtask fetch"

base=$cache/machine-test/bookworm-1
if [ ! -d "$base" ]; then
    echo "machine-test: making a Debian root in $base"
    mkdir -p "$base.new"
    mmdebstrap --quiet --variant=minbase bookworm "$base.new" --include=systemd,systemd-sysv,dbus,udev,debconf,init-system-helpers,iproute2,procps,curl,mosquitto,libvulkan1,mesa-vulkan-drivers
    mv "$base.new" "$base"
fi

work=$(mktemp -d)
leader=
finish() {
    [ -z "$leader" ] || kill -9 "$leader" 2>/dev/null || true
    wait 2>/dev/null || true
    ip netns del "$name" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
name=socle-$$
mkdir "$work/rig" "$work/up" "$work/scratch" "$work/root"
cp "$bin"/{socle,socle-agent,socle-launch,socle-controller,socle-crash-agent} "$work/rig/"
cp -rL "$model" "$work/rig/model"
cp -r "$repo/workbench/data/faq" "$work/rig/faq"
cp "$here/machine-test-inside.sh" "$work/rig/inside"
package=$(cd "$repo" && cargo xtask package --bin-dir "$work/rig" --out "$work/rig" | tail -1)
mv "$package" "$work/rig/socle-agent.deb"
ip netns add "$name"
ip -n "$name" link set lo up

boot() {
    # cgroup v2 and a writable /run/systemd of its own, whatever the host has.
    unshare -m -C --propagation private bash -c "
        umount -R /sys/fs/cgroup 2>/dev/null
        mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/$name
        echo \$\$ >/sys/fs/cgroup/$name/cgroup.procs
        mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd
        mount -t overlay overlay -o lowerdir='$base',upperdir='$work/up',workdir='$work/scratch' '$work/root'
        exec systemd-nspawn -q -M $name -D '$work/root' --register=no --keep-unit --boot --console=read-only \
            --network-namespace-path=/run/netns/$name --bind-ro='$work/rig':/rig </dev/null" >"$work/console" 2>&1 &
    local nspawn=$!
    for _ in $(seq 300); do
        leader=$(pgrep -P "$nspawn" | head -1 || true)
        if [ -n "$leader" ] && state=$(nsenter -t "$leader" -a systemctl is-system-running 2>/dev/null); then
            return
        fi
        case ${state:-} in degraded) return ;; esac
        kill -0 "$nspawn" 2>/dev/null || break
        sleep 0.2
    done
    cat "$work/console" >&2
    fail "the container did not boot"
}
inside() {
    nsenter -t "$leader" -a bash /rig/inside "$@"
}

boot
inside install
inside releases
echo "machine-test: the power fails"
kill -9 "$leader"
wait 2>/dev/null || true
boot
inside after_power_cut
inside purge
echo "machine-test: all holds"
