# shellcheck shell=sh disable=SC2154  # set by the caller: product environment address host_header path probe_path and what
# http.sh needs

# answered WHO: what the last request came to, and how long it took since `answer_start`.
answered() {
    clock
    tell answer "$1"
    tell took_ms "$(((now - answer_start) * 10))"
    tell status "$http_status"
    if http_expected; then tell good yes; else tell good no; fi
    tell told "$(http_told)"
    tell upstream "$(http_header x-axon-upstream)"
    tell said "$(printf '%s' "$http_body" | head -c 400 | tr '\r\n' '  ')"
}

# look_containers: each container of the environment as Docker describes it, and what it answers to a health check.
look_containers() {
    tell now "$(date +%s)"
    look_ids=$(docker ps -aq --no-trunc --filter "label=axon.product=$product" --filter "label=axon.environment=$environment") || exit 41
    [ -n "$look_ids" ] || return 0
    # A container that is removed meanwhile is none.
    # shellcheck disable=SC2086  # container ids are words
    docker inspect --format "$look_format" $look_ids 2>/dev/null |
        while read -r look_state look_port look_id look_rest; do
            tell container "$look_rest"
            [ "$look_state" = running ] || continue
            case $look_port in '' | *[!0-9]*) continue ;; esac
            clock
            answer_start=$now
            http_get "$address" "$look_port" "$path" "$host_header" "$probe_timeout" </dev/null
            answered "$look_id"
        done
}

# look_through: health checks through nginx, which says by whom each was answered; several, to see all app servers.
look_through() {
    look_count=0
    while [ "$look_count" -lt "$look_times" ]; do
        clock
        answer_start=$now
        http_get 127.0.0.1 "$http_port" "$probe_path" "$domain" "$probe_timeout"
        answered nginx
        look_count=$((look_count + 1))
    done
}

# look_stats: what each running container of the environment uses, and how often it was started again.
look_stats() {
    look_ids=$(docker ps -q --no-trunc --filter "label=axon.product=$product" --filter "label=axon.environment=$environment") || exit 41
    [ -n "$look_ids" ] || return 0
    # Both tell what is left where a container is removed meanwhile.
    # shellcheck disable=SC2086  # container ids are words
    docker inspect --format "restarts={{.Id}} {{.RestartCount}}" $look_ids 2>/dev/null
    # shellcheck disable=SC2086
    docker stats --no-stream --no-trunc --format 'stats={"id":{{json .ID}},"cpu":{{json .CPUPerc}},"memory":{{json .MemUsage}},"processes":{{json .PIDs}},"network":{{json .NetIO}},"disk":{{json .BlockIO}}}' $look_ids 2>/dev/null || :
}
