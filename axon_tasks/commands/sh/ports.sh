# shellcheck shell=sh disable=SC2154  # state, axon_root, first_port and last_port are set by the caller

# ports_taken: every port that is listened on, published by a container (running or not) or reserved by an environment.
ports_taken() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r _ ports_local _ ports_state _; do
        [ "$ports_state" = 0A ] && printf '%d\n' "$((0x${ports_local##*:}))"
    done
    ports_ids=$(docker ps -aq)
    # shellcheck disable=SC2086  # container ids are words
    [ -z "$ports_ids" ] ||
        docker inspect --format '{{range .HostConfig.PortBindings}}{{range .}}{{println .HostPort}}{{end}}{{end}}' $ports_ids
    cat "$axon_root"/*/*/ports 2>/dev/null | tr ' ' '\n'
}

# reserve_ports: the two host ports of this environment on this server, chosen once, under a lock, and kept.
reserve_ports() {
    make_state
    exec 8>>"$axon_root/ports.lock" || fail 30 "cannot write $axon_root/ports.lock"
    flock 8 || fail 30 "cannot lock $axon_root/ports.lock"
    if [ -s "$state/ports" ]; then
        cat "$state/ports"
        return
    fi
    ports_used=" $(ports_taken | tr '\n' ' ') "
    ports_found='' ports_next=$first_port
    while [ "$ports_next" -le "$last_port" ]; do
        case $ports_used in
            *" $ports_next "*) ;;
            *)
                ports_found="$ports_found $ports_next"
                # shellcheck disable=SC2086  # two words on purpose
                set -- $ports_found
                if [ $# -eq 2 ]; then
                    printf '%s %s\n' "$1" "$2" | replace_file "$state/ports" 644 || fail 30 "cannot write $state/ports"
                    cat "$state/ports"
                    return
                fi
                ;;
        esac
        ports_next=$((ports_next + 1))
    done
    fail 31 "no two free ports left between $first_port and $last_port"
}
