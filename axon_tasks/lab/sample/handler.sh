#!/app/busybox sh
# shellcheck shell=dash  # busybox sh is closest to it
# shellcheck disable=SC3028  # HOSTNAME comes from Docker
# Answers one request: standard input and output are the connection, standard error is the container's log.
# The request is always read whole: closing a socket with unread input would reset the connection.

IFS=' ' read -r method target _
length=0
while IFS= read -r header && header=${header%"$CR"} && [ -n "$header" ]; do
    case $header in
    [Cc]ontent-[Ll]ength:*) length=${header#*:} && length=${length# } ;;
    esac
done
case $length in '' | *[!0-9]*) length=0 ;; esac
received=0
[ "$length" -gt 0 ] && received=$(head -c "$length" | wc -c)

# answer STATUS BODY
answer() {
    printf 'HTTP/1.1 %s\r\nX-Version: %s\r\nX-Served-By: %s\r\nContent-Type: text/plain\r\n' "$1" "$VERSION" "$HOSTNAME"
    printf 'Content-Length: %s\r\nConnection: close\r\n\r\n' $((${#2} + 1))
    [ "$method" = HEAD ] || printf '%s\n' "$2"
    [ "$target" = /api/health ] || echo "$method $target ${1%% *}" >&2
}

# The number in `?seconds=`, or 1; between 0 and 99.
seconds() {
    number=${target#*seconds=}
    case $number in [0-9] | [0-9][0-9] | [0-9].[0-9] | [0-9].[0-9][0-9]) ;; *) number=1 ;; esac
}

health() {
    if [ "$VARIANT" = sick ]; then
        echo "health: no connection to the database" >&2
        answer "500 Internal Server Error" "database: connection refused"
        return
    fi
    read -r now _ </proc/uptime
    if [ "${now%.*}" -lt "${READY_AT:-0}" ]; then
        answer "503 Service Unavailable" "warming up"
    else
        answer "200 OK" "ok"
    fi
}

# An event each second: a response that is long on purpose. Without the last header nginx would collect the events.
events() {
    seconds
    printf 'HTTP/1.1 200 OK\r\nX-Version: %s\r\nContent-Type: text/event-stream\r\n' "$VERSION"
    printf 'X-Accel-Buffering: no\r\nConnection: close\r\n\r\n'
    i=0
    while [ "$i" -lt "${number%.*}" ]; do
        i=$((i + 1))
        printf 'data: %s %s\n\n' "$VERSION" "$i"
        sleep 1
    done
    printf 'data: end\n\n'
}

# 20 MB that come no faster than they are read: more than all buffers on the way hold, and nginx is told to keep none back.
large() {
    size=20000000
    printf 'HTTP/1.1 200 OK\r\nX-Version: %s\r\nContent-Type: application/octet-stream\r\n' "$VERSION"
    printf 'Content-Length: %s\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n' "$size"
    head -c "$size" /dev/zero
}

case $target in
/ | /\?*) answer "200 OK" "shop $VERSION at $HOSTNAME: ${GREETING:-hello}" ;;
/version) answer "200 OK" "$VERSION" ;;
/api/health | /api/health\?*) health ;;
/echo | /echo\?*) answer "200 OK" "$received bytes" ;;
/slow | /slow\?*)
    seconds
    sleep "$number"
    answer "200 OK" "shop $VERSION took $number seconds"
    ;;
/events | /events\?*) events ;;
/large) large ;;
/socket)
    # What a WebSocket is to a proxy: after this answer the connection belongs to both ends (RFC 9110, section 7.8).
    printf 'HTTP/1.1 101 Switching Protocols\r\nX-Version: %s\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n' "$VERSION"
    cat
    ;;
*) answer "404 Not Found" "shop $VERSION has no $target" ;;
esac
