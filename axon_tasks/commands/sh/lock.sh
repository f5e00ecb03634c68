# shellcheck shell=sh disable=SC2154,SC3013  # set by the caller: state flag owner lock_wait lock_expiry heeds token note line;
# dash, bash and busybox know -ef

# The lock of an environment is flock(2) on $state/lock, because a `mkdir` lock cannot be taken over safely. The file is
# never deleted but with all of its directory; who has the lock stands beside it in lock.owner. Whoever gives the lock back
# removes that note. So a note beside a lock that is free says that somebody has not finished: the deployer or its
# connection died, or this machine did.
#
# Somebody may also hold the environment for longer than a command lives. That is no lock but a file, $state/held, which is
# written and removed under the lock; whoever takes the lock looks for it, unless heeds=0.

# lock_owner: that note.
lock_owner() {
    read_note "$state/lock.owner"
}

# tell_owner KEY: the note, behind its age.
tell_owner() {
    tell_note "$1" "$state/lock.owner"
}

# tell_lock: whether somebody works on the environment now, and who; or who has not finished. Looks only: the lock is
# shared and let go at once. And who holds the environment.
tell_lock() {
    [ ! -e "$state/held" ] || tell_note held "$state/held"
    [ -e "$state/lock" ] || return 0
    if ! (flock -n -s 9) 9<"$state/lock"; then
        tell_owner locked
    elif [ -e "$state/lock.owner" ]; then
        tell_owner stale
    fi
}

# lock_try: takes the lock if it is free and nobody holds the environment. Its directory may have been deleted since it was
# opened: then it is not the lock any more.
lock_try() {
    flock -n 9 || return 1
    until [ /dev/fd/9 -ef "$state/lock" ]; do
        make_state
        open_lock
        flock -n 9 || return 1
    done
    [ "$heeds" = 0 ] || [ ! -e "$state/held" ] || { flock -u 9 && return 1; }
}

# lock_take: waits for the lock, for lock_wait centiseconds and a moment more, which is for those who are just giving it
# back. After that moment it says for whom. The empty lines are how this script notices that nobody wants the lock any more:
# writing to a closed channel ends it.
lock_take() {
    if lock_try; then return; fi
    tell waited yes
    if [ "$heeds$lock_wait" = 10 ] && [ -e "$state/held" ]; then return 1; fi
    clock
    lock_moment=$((now + 50)) lock_nap=0.1
    lock_end=$((lock_moment + lock_wait))
    until lock_try; do
        clock
        [ "$now" -lt "$lock_end" ] || return 1
        if [ "$lock_nap" = 0.1 ] && [ "$now" -ge "$lock_moment" ]; then
            if [ -e "$state/held" ]; then tell_note waiting_held "$state/held"; else tell_owner waiting; fi
            lock_nap=0.3
        fi
        sleep "$lock_nap" 2>/dev/null 9>&- || sleep 1 9>&-
        echo || exit 1
    done
    echo || exit 1
}

# lock_sign: writes the note. The fencing number is the length of the lock file: one byte more for each owner, so that it
# only grows, whatever crashes when. The holder is this process: its number, start time and boot, as a number alone may
# belong to somebody else one day.
lock_sign() {
    printf . >&9 || fail 30 "cannot write $state/lock"
    lock_fence=$(($(wc -c <"$state/lock")))
    read -r lock_boot </proc/sys/kernel/random/boot_id
    read -r lock_stat </proc/self/stat
    lock_pid=${lock_stat%% *}
    # shellcheck disable=SC2086  # the fields behind the name are words, proc(5)
    set -- ${lock_stat##*) }
    printf '%s, "fence": %s, "holder": "%s %s %s"}\n' "${owner%\}}" "$lock_fence" "$lock_pid" "${20}" "$lock_boot" |
        replace_file "$state/lock.owner" 644 || fail 30 "cannot write $state/lock.owner"
    tell fence "$lock_fence"
}

# lock_keep: holds the lock as long as signs of life come in on standard input: a line each, which is sent back. `bye`
# gives the lock back, also where nobody reads the answer to a line before it any more. When the input ends or is silent
# for too long, the deployer has gone, and its note stays.
lock_keep() {
    while :; do
        # shellcheck disable=SC2016  # for the shell that reads
        timeout "$lock_expiry" sh -c 'trap "" PIPE
            read -r line || exit 1
            [ "$line" != bye ] || exit 3
            printf "alive=%s\n" "$line" 2>/dev/null || :' 9>&-
        case $? in
            0) ;;
            3) rm -f "$state/lock.owner" && exit 0 ;;
            124 | 143) fail 76 "nothing was heard for $lock_expiry s" ;;
            *) exit 1 ;;
        esac
    done
}

# open_lock: what is appended to it must not reach a file of somebody else.
open_lock() {
    [ ! -L "$state/lock" ] || fail 30 "$state/lock is a link: remove it"
    exec 9>>"$state/lock" || fail 30 "cannot write $state/lock"
}

# lock_had: takes the lock, or exits with 75 and says who has it, or with 79 and says who holds the environment.
lock_had() {
    make_state
    open_lock
    if lock_take; then return; fi
    if [ "$heeds" = 1 ] && [ -e "$state/held" ]; then
        tell_note held "$state/held"
        exit 79
    fi
    tell_owner owner
    exit 75
}

# lock_settled: a switch goes on without its deployer, and so without the lock; it has its own while it lasts.
lock_settled() {
    [ ! -e "$state/switch.lock" ] || (flock 8) 8<"$state/switch.lock" || fail 30 "cannot lock $state/switch.lock"
}

# lock_acquire: holds the environment, for longer than this lives; exits with 79 if somebody holds it already.
lock_acquire() {
    lock_had
    lock_settled
    if [ -e "$state/lock.owner" ]; then tell_owner stale; fi
    printf '%s\n' "$note" | replace_file "$state/held" 644 || fail 30 "cannot write $state/held"
}

# lock_release: holds it no longer, and says who did; exits with 80 if nobody did.
lock_release() {
    [ -e "$state/held" ] || exit 80
    lock_had
    [ -e "$state/held" ] || exit 80
    tell_note held "$state/held"
    rm -f "$state/held" || fail 30 "cannot remove $state/held"
}

# lock_hold: takes the lock of the environment, and holds it as long as the deployer lives.
lock_hold() {
    lock_had
    if [ -e "$state/lock.owner" ]; then tell_owner stale; fi
    lock_sign
    lock_settled
    # What serves now, seen under the lock: whoever inspected before it was free may have seen something else.
    if [ -e "$flag" ]; then tell slot b; else tell slot a; fi
    lock_current=''
    [ ! -e "$state/current" ] || read -r lock_current <"$state/current"
    tell current "$lock_current"
    tell locked yes
    lock_keep
}

# lock_is_ours NOTE: whether it is the note of the owner with the token that was given.
lock_is_ours() {
    case $1 in
        *"\"token\": \"$token\""*) ;;
        *) return 1 ;;
    esac
}

# lock_lives PID START BOOT: whether that process is still there, and not another one of the same number.
lock_lives() {
    if [ $# != 3 ] || ! read -r lock_boot </proc/sys/kernel/random/boot_id || [ "$3" != "$lock_boot" ]; then return 1; fi
    { read -r lock_stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    lock_start=$2
    # shellcheck disable=SC2086  # the fields behind the name are words, proc(5)
    set -- ${lock_stat##*) }
    [ "${20}" = "$lock_start" ]
}

# lock_end NOTE: ends the process that has signed it, and waits for the lock, which a waiting deploy may have got before.
lock_end() {
    lock_holder=$(printf '%s\n' "$1" | sed -n 's/.*, "holder": "\([0-9]\{1,10\} [0-9]\{1,20\} [0-9a-f-]\{1,40\}\)"}$/\1/p')
    # shellcheck disable=SC2086  # three words, or none
    lock_lives $lock_holder || fail 78 "$state/lock is held, but not by the process that stands in lock.owner"
    kill -KILL "${lock_holder%% *}" || exit 1
    tell ended "${lock_holder%% *}"
    lock_tries=0
    until flock -n 9; do
        lock_is_ours "$(lock_owner)" || return 0
        lock_tries=$((lock_tries + 1))
        [ "$lock_tries" -lt 50 ] || fail 78 "process ${lock_holder%% *} has ended, and $state/lock is held all the same"
        sleep 0.1 2>/dev/null || sleep 1
    done
}

# lock_break: takes the lock from the owner with this token, whether it lives or not; exits with 77 if that is not the owner.
lock_break() {
    lock_note=$(lock_owner)
    if ! lock_is_ours "$lock_note"; then
        tell_lock
        exit 77
    fi
    tell_owner owner
    open_lock
    flock -n 9 || lock_end "$lock_note"
    if lock_is_ours "$(lock_owner)"; then rm -f "$state/lock.owner" || exit 1; fi
    # For the audit log.
    line="$line $lock_note"
}
