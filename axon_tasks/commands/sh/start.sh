# shellcheck shell=sh disable=SC2154  # set by the caller: product environment release slot port container state
# and, to start something, env_file env_checksum kept

# own_in_slot: the containers of this product and environment in $slot, by exact labels.
own_in_slot() {
    docker ps -aq --no-trunc --filter "label=axon.product=$product" --filter "label=axon.environment=$environment" \
        --filter "label=axon.slot=$slot"
}

# remove_release: removes what this release has started here, and nothing else. Where a switch was tried, clients may
# be on it: then it drains first.
remove_release() {
    for remove_id in $(docker ps -aq --no-trunc --filter "label=axon.product=$product" \
        --filter "label=axon.environment=$environment" --filter "label=axon.release=$release"); do
        if [ "${drain_first:-0}" = 1 ]; then
            retire "$remove_id"
        else
            docker rm -f "$remove_id" >/dev/null && tell removed "$remove_id"
        fi
    done
    rm -f "$state/started/$release.run" "$state/started/$release.env"
}

# clear_slot: the release before the last one may still drain in the slot that is needed now. A newer one than ours is
# of somebody who has taken the lock from this run: it may serve by now. Ids only grow.
clear_slot() {
    for clear_id in $(own_in_slot); do
        clear_told=$(docker inspect --format '{{.Name}} {{index .Config.Labels "axon.release"}}' "$clear_id" 2>/dev/null)
        clear_name=${clear_told%% *} clear_release=${clear_told##* }
        case $clear_release in
            '' | *[!0-9]*) ;;
            *)
                [ "$clear_release" -le "$release" ] ||
                    fail 45 "somebody else has deployed in the meantime: ${clear_name#/} is newer than release $release"
                ;;
        esac
        tell waiting "${clear_name#/} still drains in the slot that is needed (at most $((drain_time / 100)) s; --now cuts it short)"
        retire "$clear_id" >&2 || fail 41 "the container in slot $slot cannot be removed"
    done
}

# port_holder: who has the port, in words; nothing if nobody is found.
port_holder() {
    holder_name=$(docker ps --filter "publish=$port" --format '{{.Names}}' | head -n 1)
    if [ -n "$holder_name" ]; then
        printf 'the container %s, which is not ours' "$holder_name"
        return
    fi
    holder_hex=$(printf ':%04X' "$port")
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$holder_hex" \
        '$4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }' || return 0
    for holder_process in /proc/[0-9]*/cmdline; do
        # Docker can forget the proxy of a container that it has lost track of, and then never ends it (moby#25981).
        case $(tr '\0' ' ' <"$holder_process" 2>/dev/null) in
            *docker-proxy*" -host-port $port "*)
                printf 'a docker-proxy that Docker has left behind'
                return
                ;;
        esac
    done
    printf 'a process that is no container'
}

# have_network: the container's network, made if it is not there, with the labels by which cleaning up knows it.
have_network() {
    docker network inspect --format '{{.Id}}' "$network" >/dev/null 2>&1 && return
    docker network create --label "axon.product=$product" --label "axon.environment=$environment" "$network" >/dev/null ||
        exit 44
    tell network "$network"
}

# environment_now: the container's variables, those of the file first; of two with one name the last one counts. What was
# kept of an earlier release must be what it was.
environment_now() {
    if [ -n "$env_file" ]; then
        cat "$env_file" || fail 35 "cannot read $env_file"
        if [ -n "$env_checksum" ]; then
            environment_sum=$(sha256sum <"$env_file")
            [ "${environment_sum%% *}" = "$env_checksum" ] || fail 36 "$env_file is not what was kept there"
        fi
        echo
    fi
    cat
}

# keep_start: what was started and with which variables, readable by nobody else: a rollback starts exactly this again.
# Under the lock nobody else writes there: what a killed start has left half-written goes.
keep_start() {
    rm -f "$state/started"/.[0-9]*
    (umask 077 && mkdir -p "$state/started") &&
        printf '%s\n' "$start_env" | replace_file "$state/started/$release.env" 600 &&
        printf '%s\n' "$kept" | replace_file "$state/started/$release.run" 600
}

# tell_started: what is kept of the releases that can be started again.
tell_started() {
    for started_run in "$state"/started/*.run; do
        if [ ! -r "$started_run" ] || [ ! -r "${started_run%.run}.env" ]; then continue; fi
        started_line=''
        IFS= read -r started_line <"$started_run"
        started_id=${started_run##*/}
        tell started "${started_id%.run} $started_line"
    done
}

# run_it "$@": docker run, with the variables on stdin; sets `start_id` to what it said.
run_it() {
    start_id=$(printf '%s\n' "$start_env" | docker run -d "$@" 2>&1)
}

# start_again "$@": a run that did not come back may have started something in this slot after the inspection.
start_again() {
    case $start_id in
        *'already allocated'* | *'already in use'*) ;;
        *) return 1 ;;
    esac
    start_said=$start_id
    remove_release >/dev/null
    if [ -z "$(own_in_slot)" ]; then
        start_id=$start_said
        return 1
    fi
    clear_slot
    run_it "$@"
}

# start "$@": runs the container; the arguments are docker's, after `docker run`.
start() {
    start_env=$(environment_now) || exit
    if ! run_it "$@" && ! start_again "$@"; then
        # Looked for when it is needed: a start of docker for every deploy would be too dear.
        case $start_id in
            *'already allocated'* | *'already in use'*) start_holder=$(port_holder) ;;
            *) start_holder='' ;;
        esac
        # A run that fails at the port leaves a container in state `created` behind. By its labels: the name may be
        # taken by somebody else's.
        remove_release >/dev/null
        printf '%s\n' "$start_id" >&2
        [ -z "$start_holder" ] || fail 42 "port $port is taken by $start_holder"
        exit 43
    fi
    if ! keep_start; then
        remove_release >/dev/null
        fail 30 "cannot write to $state/started what a rollback to this release would need"
    fi
    tell container "$container"
    tell id "$(printf '%s\n' "$start_id" | tail -n 1)"
    start_sum=$(printf '%s\n' "$start_env" | sha256sum)
    tell environment "${start_sum%% *}"
}
