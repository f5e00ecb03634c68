# shellcheck shell=sh disable=SC2154  # set by the caller: state release record line

# write_release: the record of a release.
write_release() {
    make_state
    mkdir -p "$state/releases" || fail 30 "cannot create $state/releases"
    printf '%s\n' "$record" | replace_file "$state/releases/$release.json" 644 || fail 30 "cannot write $state/releases"
}

# audit: a line of the audit log.
audit() {
    make_state
    printf '%s\n' "$line" >>"$state/audit.log"
}
