# shellcheck shell=sh disable=SC2034,SC2154  # variables go from one of these files to the others

# What a step reports to the deployer: one `key=value` line each.
tell() {
    printf '%s=%s\n' "$1" "$2"
}

# A failure: the kind of it for the program, and a sentence for people, on stderr; then exit $1.
fail() {
    printf '%s\n' "$2" >&2
    exit "$1"
}

# clock: sets `now` to centiseconds of uptime, without a process and independent of the wall clock.
clock() {
    read -r clock_up clock_rest </proc/uptime
    now=${clock_up%.*}${clock_up#*.}
}

# replace_file FILE MODE: stdin becomes FILE, by rename in the same directory after fsync, so that a reader or
# a crash sees the old content or the new, never a part (rename(2); busybox and coreutils `sync FILE` are fsync).
replace_file() {
    replace_temp=${1%/*}/.${1##*/}.$$
    [ ! -d "$1" ] || return 1 # mv would put the file into it
    (umask 077 && cat >"$replace_temp") &&
        chmod "$2" "$replace_temp" &&
        { sync "$replace_temp" 2>/dev/null || sync; } &&
        mv -f "$replace_temp" "$1" && return 0
    rm -f "$replace_temp"
    return 1
}

# read_note FILE: its first line as plain ASCII, whatever stands in it; it is JSON, where that is enough. Of what is no
# plain file, nothing.
read_note() {
    if [ ! -f "$1" ] || [ -L "$1" ]; then return; fi
    head -c 4000 "$1" 2>/dev/null | head -n 1 | tr -cd ' -~'
}

# tell_note KEY FILE: that note, behind its age in seconds: by the clock of this server, the others may be wrong.
tell_note() {
    note_now=$(date +%s)
    tell "$1" "$((note_now - $(stat -c %Y "$2" 2>/dev/null || echo "$note_now"))) $(read_note "$2")"
}

# end_journal: what it speaks of has been completed, or taken back.
end_journal() {
    rm -f "$state/journal"
}

# make_state: the product's state directory; others may pass through it, because nginx's workers look for the flag.
# A machine may be system and app server: what root creates then belongs to whoever owns the tree.
make_state() {
    [ ! -d "$state" ] || return 0
    (umask 022 && mkdir -p "$state") ||
        fail 30 "cannot create $state: this user may not write there"
    [ "$(id -u)" != 0 ] || chown "$(stat -c %u:%g "${state%/*/*}")" "${state%/*}" "$state"
}
