# shellcheck shell=sh disable=SC2154  # set by the caller: state release record line

# write_release: the record of a release.
write_release() {
    make_state
    mkdir -p "$state/releases" || fail 30 "cannot create $state/releases"
    printf '%s\n' "$record" | replace_file "$state/releases/$release.json" 644 || fail 30 "cannot write $state/releases"
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
            if [ -n "$record" ] && [ ! -e "$state/releases/$release.json" ]; then write_release; fi
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
