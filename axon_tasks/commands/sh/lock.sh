# shellcheck shell=sh disable=SC2154  # set by the caller: state flag owner

# lock_hold: takes the lock of the environment and holds it until the connection ends. flock, because a `mkdir` lock cannot
# be taken over safely; the file is never deleted, and the owner stands beside it. The dots are how this script notices
# that the deployer has gone: writing to a closed channel ends it, and with it the lock.
lock_hold() {
    make_state
    exec 9>>"$state/lock" || fail 30 "cannot write $state/lock"
    lock_tries=0
    until flock -n 9; do
        lock_tries=$((lock_tries + 1))
        if [ "$lock_tries" -gt 5 ]; then
            cat "$state/lock.owner" 2>/dev/null
            exit 75
        fi
        sleep 0.3
    done
    printf '%s\n' "$owner" | replace_file "$state/lock.owner" 644
    trap 'rm -f "$state/lock.owner"' EXIT
    trap 'exit 1' TERM INT HUP PIPE
    # What serves now, seen under the lock: whoever inspected before it was free may have seen something else.
    if [ -e "$flag" ]; then tell slot b; else tell slot a; fi
    lock_current=''
    [ ! -e "$state/current" ] || read -r lock_current <"$state/current"
    tell current "$lock_current"
    tell locked yes
    while :; do
        sleep 1 9>&-
        printf '.' || exit 1
    done
}
