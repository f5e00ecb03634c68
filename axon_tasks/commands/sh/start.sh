# shellcheck shell=sh disable=SC2154  # set by the caller: product environment release slot port container

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
}

# clear_slot: the release before the last one may still drain in the slot that is needed now.
clear_slot() {
    for clear_id in $(own_in_slot); do
        clear_name=$(docker inspect --format '{{.Name}}' "$clear_id" 2>/dev/null | tr -d /)
        tell waiting "$clear_name still drains in the slot that is needed (at most $((drain_time / 100)) s; --now cuts it short)"
        retire "$clear_id" >&2 || fail 41 "the container in slot $slot cannot be removed"
    done
}

# refuse_foreign_port: says who holds the port, instead of leaving that to an error of the daemon.
refuse_foreign_port() {
    start_holder=$(docker ps --filter "publish=$port" --format '{{.Names}}' | head -n 1)
    [ -z "$start_holder" ] || fail 42 "port $port is taken by the container $start_holder, which is not ours"
    start_hex=$(printf ':%04X' "$port")
    if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$start_hex" \
        '$4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }'; then
        fail 42 "port $port is taken by a process that is no container"
    fi
}

# start "$@": clears the slot and runs the container; the arguments are docker's, after `docker run`.
start() {
    clear_slot
    refuse_foreign_port
    if ! start_id=$(docker run -d "$@" 2>&1); then
        printf '%s\n' "$start_id" >&2
        # A run that fails at the port leaves a container in state `created` behind.
        remove_release >/dev/null
        exit 43
    fi
    tell container "$container"
    tell id "$(printf '%s\n' "$start_id" | tail -n 1)"
}
