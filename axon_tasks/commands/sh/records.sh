# shellcheck shell=sh disable=SC2154  # set by the caller: state release record line

# tell_state DIRECTORY: slot, current release and records of the environment whose state directory this is.
tell_state() {
    state_product=${1%/*}
    tell state "${state_product##*/}/${1##*/}"
    if [ -e "$1/slot_b" ]; then tell slot b; else tell slot a; fi
    state_current=''
    [ ! -e "$1/current" ] || read -r state_current <"$1/current"
    tell current "$state_current"
    for state_file in "$1"/releases/*.json; do
        [ -f "$state_file" ] || continue
        state_record=''
        IFS= read -r state_record <"$state_file"
        state_file=${state_file##*/}
        tell release "${state_file%.json} $state_record"
    done
}

# tell_audit: the last lines of the audit log.
tell_audit() {
    [ ! -f "$state/audit.log" ] || tail -n "$audit_lines" "$state/audit.log" | while IFS= read -r audit_line; do
        tell audit "$audit_line"
    done
}

# note_release: the record of a release.
note_release() {
    make_state
    mkdir -p "$state/releases" || fail 30 "cannot create $state/releases"
    printf '%s\n' "$record" | replace_file "$state/releases/$release.json" 644 || fail 30 "cannot write $state/releases"
}

# write_current: which release serves; its switch writes the same.
write_current() {
    make_state
    printf '%s\n' "$release" | replace_file "$state/current" 644 || fail 30 "cannot write $state/current"
}

# write_release: the record of the release that serves; what its switch had written down is done with it.
write_release() {
    note_release
    end_journal
}

# settle_journal: what a run that did not come back had begun. Which release serves is known by now; if it is the one
# that was being switched to, its record is still to be written.
settle_journal() {
    make_state
    [ -e "$state/journal" ] || return 0
    { read -r journal_run release _ && read -r record; } <"$state/journal"
    journal_current=''
    [ ! -e "$state/current" ] || read -r journal_current <"$state/current"
    case $release in
        '' | *[!0-9]*) ;;
        "$journal_current")
            if [ -n "$record" ]; then write_release; fi
            ;;
    esac
    end_journal
    tell settled "$journal_run"
}

# audit: a line of the audit log.
audit() {
    make_state
    [ ! -L "$state/audit.log" ] || fail 30 "$state/audit.log is a link: remove it"
    printf '%s\n' "$line" >>"$state/audit.log"
}
