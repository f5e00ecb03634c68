#!/usr/bin/env bash
# The floor: the remote work of a redeploy, driven by plain ssh and nothing else.
#
#   floor.sh DIRECTORY SYSTEM APP...
#
# DIRECTORY holds `config` for ssh, and what is run where: `open@HOST` on each server as soon as its connection
# stands, `start@APP`, `switch@SYSTEM`, then `record@SYSTEM` and `retire@APP` at the same time. The connections are
# opened at the same time, one per server (ControlMaster); what does not depend on each other runs at the same time.
set -u
cd "$1" || exit 2
edge=$2
shift 2

die() {
    printf 'the floor failed at %s:\n' "$1" >&2
    cat ./*.err >&2
    exit 1
}

# on STEP HOST: runs the step's script there and keeps what it says.
on() {
    ssh -F config "$2" sh -s <"$1@$2" >"$1@$2.out" 2>"$1@$2.err"
}

leave() {
    for host in "$edge" "$@"; do
        ssh -F config -O exit "$host" 2>/dev/null
    done
}
trap 'leave "$@"' EXIT

# The lock is held as long as this session has an input, so that it is the one that is read while it goes on.
coproc lock { exec ssh -F config "$edge" sh -s 2>"open@$edge.err"; }
# shellcheck disable=SC2154  # lock is set by coproc
exec 3<&"${lock[0]}" 4>&"${lock[1]}"
printf '%s\n' "$(<"open@$edge")" >&4
pids=()
for app in "$@"; do
    on open "$app" &
    pids+=($!)
done
ready=0
while [ "$ready" -lt 2 ] && read -r line <&3; do
    case $line in locked=yes | inspected=yes) ready=$((ready + 1)) ;; esac
done
[ "$ready" = 2 ] || die "open@$edge"
for pid in "${pids[@]}"; do
    wait "$pid" || die open
done

pids=()
for app in "$@"; do
    on start "$app" &
    pids+=($!)
done
for pid in "${pids[@]}"; do
    wait "$pid" || die start
done

on switch "$edge" || die "switch@$edge"

pids=()
on record "$edge" &
pids+=($!)
for app in "$@"; do
    on retire "$app" &
    pids+=($!)
done
for pid in "${pids[@]}"; do
    wait "$pid" || die 'record or retire'
done
