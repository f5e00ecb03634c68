#!/app/busybox sh
# shellcheck shell=dash  # busybox sh is closest to it
# The first process: listens, and on SIGTERM accepts nothing more, finishes what it has, and exits 0.

case $VARIANT in
crash)
    echo "shop $VERSION: cannot start: DATABASE_URL is not set" >&2
    exit 3
    ;;
slowstart) warm_up=3 ;;
*) warm_up=0 ;;
esac

read -r now _ </proc/uptime
export READY_AT=$((${now%.*} + warm_up))
CR=$(printf '\r') && export CR  # made once: a handler that forks for it would take a third longer

stop() {
    echo "shop $VERSION: SIGTERM: finishing requests" >&2
    kill "$listener"
    # Each request is a process of its own; this one is the last to go.
    while set -- /proc/[0-9]* && [ $# -gt 1 ]; do
        sleep 0.05
    done
    echo "shop $VERSION: stopped" >&2
    exit 0
}
trap stop TERM INT

# netcat's backlog is the number of its -l: with httpd's fixed 9, bursts of connections wait a second for SYN retries.
l=llllllll
l=$l$l$l$l$l$l$l$l
l=$l$l$l$l$l$l$l$l
/app/busybox nc "-$l" -p 3000 -e /app/busybox sh /app/handler.sh &
listener=$!
echo "shop $VERSION: listening on port 3000" >&2
wait "$listener"
