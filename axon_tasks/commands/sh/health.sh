# shellcheck shell=sh disable=SC2154  # set by the caller: container address port path host_header and the limits

# look: state, exit code and Docker's own health of the container.
look() {
    look_answer=$(docker inspect --format \
        '{{.State.Status}} {{.State.ExitCode}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}' \
        "$container" 2>/dev/null) || look_answer='gone 0 none'
    look_state=${look_answer%% *}
    look_health=${look_answer##* }
    [ "$honour_docker" = 1 ] || look_health=none
}

# told STATE: what the last probe saw; the body comes last because it may have several lines.
told() {
    clock
    tell result "$1"
    tell attempts "$health_attempts"
    tell elapsed_ms "$(((now - health_start) * 10))"
    tell url "http://$address:$port$path"
    tell host "$host_header"
    tell answer "$(http_told)"
    tell docker "$look_health"
    tell body "$(printf '%s' "$http_body" | head -c 400)"
}

# health: waits, here on the server, until the release answers as expected; every probe is over http to the
# address that nginx will use. Exit 20: not healthy in time. Exit 21: the container has ended.
health() {
    clock
    health_start=$now
    health_deadline=$((now + health_time)) health_attempts=0 health_good=0 health_look=$((now + 50)) health_news=$((now + 300))
    while :; do
        health_attempts=$((health_attempts + 1))
        http_get "$address" "$port" "$path" "$host_header" "$probe_timeout"
        if http_expected; then health_good=$((health_good + 1)); else health_good=0; fi
        clock
        if [ "$health_good" -ge "$successes" ] || [ "$now" -ge "$health_look" ]; then
            health_look=$((now + 50))
            look
            case $look_state in
                running) ;;
                created) ;;
                *) told ended && exit 21 ;;
            esac
            [ "$look_health" = unhealthy ] && told unhealthy && exit 20
            if [ "$health_good" -ge "$successes" ]; then
                case $look_health in none | healthy)
                    told healthy
                    return 0
                    ;;
                esac
            fi
        fi
        clock
        if [ "$now" -ge "$health_news" ]; then
            health_news=$((now + 500))
            tell waiting "not healthy after $(((now - health_start) / 100)) s: $(http_told)"
        fi
        [ "$now" -lt "$health_deadline" ] || { told timeout && exit 20; }
        # Most applications listen within a moment: the first looks come quickly, whatever the interval.
        case $health_attempts in
            1 | 2) sleep 0.03 ;;
            *) sleep "$interval" ;;
        esac
    done
}

# restart_policy: with what the container comes back after a restart of the daemon.
restart_policy() {
    docker update --restart="$restart" "$container" >/dev/null
}
