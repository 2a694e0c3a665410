#!/bin/bash
# The steps of machine-test.sh, inside the container; /rig holds binaries, package, model and FAQ.
set -euo pipefail

work=/srv/fleet
export PATH=/rig:$PATH SOCLE_CONTROLLER=https://localhost:8443
export SOCLE_CA=$work/controller/pki/ca.crt.pem SOCLE_TOKEN_FILE=$work/controller/admin-token

holds() { # holds NAME COMMAND…
    if "${@:2}" >/tmp/said 2>&1; then
        echo "machine-test: $1: holds"
    else
        echo "machine-test: $1: DOES NOT HOLD" >&2
        cat /tmp/said >&2
        journalctl --no-pager -o cat -u 'socle*' -n 40 >&2
        tail -n 20 "$work/controller.log" >&2 || true
        exit 1
    fi
}
# Tries for a minute.
soon() {
    for _ in $(seq 300); do
        "$@" && return
        sleep 0.2
    done
    return 1
}
api() {
    curl -sS --fail-with-body -m 20 --unix-socket /run/socle/api.sock "http://localhost$1" "${@:2}"
}
not() { ! "$@"; }
committed() { /usr/lib/socle/socle-launch status | grep "^committed   $1 "; }
answers() { socle ask "How do I reset my password?" | grep password-reset; }

install() {
    echo "127.0.0.1 localhost" >/etc/hosts
    systemctl disable --now mosquitto.service 2>/dev/null
    holds "the package installs" dpkg -i /rig/socle-agent.deb
    holds "no unit fails" test "$(systemctl is-system-running)" = running
    holds "the factory agent is alive" soon api /livez
    holds "and not ready, having no model" not api /readyz
    holds "a stranger cannot use the Unix socket" not runuser -u nobody -- curl -sS --unix-socket /run/socle/api.sock http://localhost/v1/status
    holds "nor TCP without a token" not curl -sS -f http://127.0.0.1:7411/v1/status
}

release() { # release NAME COUNTER AGENT MODEL [PREVIOUS]
    socle release build --name "$1" --counter "$2" --agent "/rig/$3" --model "$4/it-faq" --out "$1" ${5:+--previous "$5/targets.json"}
    socle release sign --release "$1" --key keys/targets-1.pk8 --key keys/targets-2.pk8 --root keys/metadata/1.root.json
    socle release publish --release "$1" --root keys/metadata/1.root.json
}
# Asks one question after the other until the file `stop` is there; prints what failed and the sum.
traffic() {
    local token good=0 bad=0 code
    token=$(cat /var/lib/socle/identity/api-token)
    while [ ! -e stop ]; do
        code=$(curl -s -m 20 -o answer -w '%{http_code}' -H "Authorization: Bearer $token" -H 'content-type: application/json' \
            -d '{"question":"How do I reset my password?"}' http://127.0.0.1:7411/v1/ask) || true
        if [ "$code" = 200 ]; then good=$((good + 1)); else bad=$((bad + 1)) && echo "$code $(cat answer)"; fi
    done
    echo "$good answered, $bad failed"
    [ "$bad" -eq 0 ] && [ "$good" -gt 0 ]
}
# rollout RELEASE NUMBER: starts it under traffic and waits for its end; succeeds if it completed.
rollout() {
    rm -f stop
    traffic >traffic.log &
    local asking=$! code=0
    socle rollout start "$1" || code=1
    timeout 180 socle rollout watch "$2" || code=1
    # The gateway that came last answers a while too.
    sleep 1
    touch stop
    wait "$asking" && traffic=0 || traffic=1
    return "$code"
}

releases() {
    mkdir -p "$work" && cd "$work"
    {
        socle keys init --out keys
        socle-controller init --state controller --fleet test --name localhost
        socle-controller pki broker --state "$work/controller" --out "$work/broker" --name localhost --port 8883
        echo "user root" >>broker/mosquitto.conf
        mosquitto -d -c broker/mosquitto.conf
        for version in 1 2; do
            mkdir "v$version"
            socle model pack --from /rig/model --faq "/rig/faq/faq-v$version.jsonl" --calibration /rig/faq/calibration.jsonl \
                --name it-faq --version "$version" --out "v$version/it-faq"
        done
    } >setup.log 2>&1 || { cat setup.log >&2; exit 1; }
    socle-controller serve --state controller --listen 127.0.0.1:8443 --broker mqtts://localhost:8883 --ready-file "$work/ready" >controller.log 2>&1 &
    holds "the controller is up" soon test -e ready

    holds "release 1 is published" release r1 1 socle-agent v1
    socle --json device enrol >token.json
    holds "the machine enrols" socle-enrol --controller "$SOCLE_CONTROLLER" \
        --token "$(sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' token.json)"
    holds "and is seen online" soon eval "socle device list | grep -q yes"
    holds "release 1 is rolled out" eval "socle rollout start r1 && timeout 180 socle rollout watch 1"
    holds "and is committed" committed r1
    holds "and answers" answers

    holds "release 2 is published" release r2 2 socle-agent v2 r1
    holds "release 2 is rolled out" rollout r2 2
    holds "with no request failing ($(tail -1 traffic.log))" test "$traffic" -eq 0
    holds "and is committed" committed r2

    holds "release 3, whose agent crashes, is published" release r3 3 socle-crash-agent v2 r2
    holds "its rollout halts" not rollout r3 3
    holds "with no request failing ($(tail -1 traffic.log))" test "$traffic" -eq 0
    holds "and release 2 is what runs" committed r2
    holds "release 3 is quarantined" eval "/usr/lib/socle/socle-launch status | grep -q '^quarantined .*did not stay up'"
}

after_power_cut() {
    holds "release 2 is still committed" committed r2
    holds "and answers" soon answers
    holds "release 3 is still quarantined" eval "/usr/lib/socle/socle-launch status | grep -q ^quarantined"
}

purge() {
    export DEBIAN_FRONTEND=noninteractive
    holds "removing stops everything" eval "dpkg -r socle-agent && ! pgrep -u socle"
    holds "and leaves the state" test -e /var/lib/socle/identity/fleet.json
    holds "purging with nobody there leaves it too" eval "dpkg --purge socle-agent && test -e /var/lib/socle/identity/fleet.json"
    dpkg -i /rig/socle-agent.deb >/dev/null 2>&1
    holds "installing again goes on where it was" committed r2
    echo 'socle-agent socle-agent/purge-state boolean true' | debconf-set-selections
    holds "purging after a yes deletes it" eval "dpkg --purge socle-agent && ! test -e /var/lib/socle"
}

"$1"
