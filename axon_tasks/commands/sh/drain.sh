# shellcheck shell=sh disable=SC2154  # drain_time, stop_time, containers, jobs, restart are set by the caller

# connections CONTAINER: how many connections its published port has, seen inside its network namespace, where both
# ways into a container (DNAT and docker-proxy) end: established ones, and those whose last bytes are still on their
# way (tcp_states.h: 1 ESTABLISHED, 4 FIN_WAIT1, 9 LAST_ACK). Prints nothing if that cannot be read.
connections() {
    drain_pid=$(docker inspect --format '{{.State.Pid}}' "$1" 2>/dev/null) || return 1
    [ "${drain_pid:-0}" -gt 0 ] || { echo 0 && return; }
    drain_port=$(docker inspect --format '{{index .Config.Labels "axon.container_port"}}' "$1" 2>/dev/null)
    [ "${drain_port:-0}" -gt 0 ] 2>/dev/null || return 1
    [ -r "/proc/$drain_pid/net/tcp" ] || return 1
    cat "/proc/$drain_pid/net/tcp" "/proc/$drain_pid/net/tcp6" 2>/dev/null |
        awk -v port="$(printf ':%04X' "$drain_port")" \
            '($4 == "01" || $4 == "04" || $4 == "09") && substr($2, length($2) - 4) == port { n++ } END { print n + 0 }'
}

# retire CONTAINER: waits until no connection is left (three looks in a row) or the drain time is over, then
# SIGTERM, a grace time, SIGKILL (docker-stop(1)), and removes it. A container that is gone is no error.
retire() {
    docker inspect --format '{{.Id}}' "$1" >/dev/null 2>&1 || return 0
    # Without this the daemon would start it again after its own restart, port and all (moby#11008).
    docker update --restart=no "$1" >/dev/null 2>&1
    clock
    retire_deadline=$((now + drain_time)) retire_quiet=0 retire_left=''
    while [ "$now" -lt "$retire_deadline" ]; do
        # Somebody else may have removed it meanwhile: then there is nothing to wait for, and nothing to count.
        if ! retire_left=$(connections "$1") && ! docker inspect --format '{{.Id}}' "$1" >/dev/null 2>&1; then
            printf '%s: removed meanwhile\n' "$1"
            return 0
        fi
        if [ "$retire_left" = 0 ]; then
            retire_quiet=$((retire_quiet + 1))
            [ "$retire_quiet" -ge 3 ] && break
        else
            retire_quiet=0
        fi
        sleep 0.1
        clock
    done
    if [ "$retire_quiet" -lt 3 ]; then
        printf '%s: drain time is over, cutting %s connection(s)\n' "$1" "${retire_left:-an unknown number of}"
    else
        printf '%s: drained\n' "$1"
    fi
    docker stop -t "$stop_time" "$1" >/dev/null 2>&1
    docker rm -f "$1" >/dev/null 2>&1
    # Somebody else may be removing it at this moment: then our own removal is refused and theirs takes a while.
    clock
    retire_deadline=$((now + 1000))
    while docker inspect --format '{{.Id}}' "$1" >/dev/null 2>&1; do
        clock
        if [ "$now" -ge "$retire_deadline" ]; then
            printf '%s: cannot be removed\n' "$1" >&2
            return 1
        fi
        sleep 0.2
        docker rm -f "$1" >/dev/null 2>&1
    done
    printf '%s: removed\n' "$1"
}

# retire_all: every one of $containers, whatever becomes of the others.
retire_all() {
    retire_failed=0
    for retire_one in $containers; do
        retire "$retire_one" || retire_failed=1
    done
    return "$retire_failed"
}

# hold_back: of what the jobs that were ended were to retire, whatever has not been stopped yet goes on, and comes back
# after a restart as before. A job tells of a container as soon as it begins to stop it.
hold_back() {
    for hold_job in "$jobs"/retire-*/; do
        hold_code=1
        [ ! -f "$hold_job/rc" ] || read -r hold_code <"$hold_job/rc"
        if [ "$hold_code" = 0 ] || [ ! -f "$hold_job/cmd" ]; then continue; fi
        for hold_id in $(sed -n 's/^containers=//p' "$hold_job/cmd" | tr -d "'"); do
            case $hold_id in *[!0-9a-f]*) continue ;; esac
            if grep -qs "^$hold_id: " "$hold_job/log"; then
                tell ending "$hold_id"
            elif [ "$(docker inspect --format '{{.State.Running}}' "$hold_id" 2>/dev/null)" = true ]; then
                docker update --restart="$restart" "$hold_id" >/dev/null && tell held "$hold_id"
            fi
        done
    done
    return 0
}
