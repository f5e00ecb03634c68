# shellcheck shell=sh disable=SC2154  # set by the caller: targets slot previous flag probe_path run record, and what
# nginx.sh needs

# lock_switch: whoever changes what nginx does waits for whoever is at it.
lock_switch() {
    make_state
    exec 8>>"$state/switch.lock" || fail 61 "cannot write $state/switch.lock; nothing was switched"
    flock 8 || fail 61 "cannot lock $state/switch.lock; nothing was switched"
}

# begin_switch: one switch at a time, also when the run that began one has lost its lock meanwhile: this script goes on
# without its run, and whoever takes the lock waits for its end. The journal says what is being done, so that the next
# run knows it if this one does not come back.
begin_switch() {
    lock_switch
    still_ours
    printf '%s\n' "$run $release $slot ${previous:--}" "$record" | replace_file "$state/journal" 644 ||
        fail 61 "cannot write $state/journal; nothing was switched"
    keep_journal=''
    # 54 and 64 are the failures that need somebody: until then it is not known what serves.
    trap 'case $? in 54 | 64) ;; *) [ -n "$keep_journal" ] || end_journal ;; esac' EXIT
}

# reach_targets: the new release must answer from here, over the addresses that nginx will use, before anything changes.
reach_targets() {
    for switch_target in $targets; do
        http_get "${switch_target%:*}" "${switch_target##*:}" "$path" "$host_header" "$probe_timeout"
        http_expected ||
            fail 60 "the new release does not answer on $switch_target from this server: $(http_told)"
    done
}

# still_ours: nobody else has switched since this run looked; a deployer that has lost its lock is stopped here.
still_ours() {
    ours_current=''
    [ ! -e "$state/current" ] || read -r ours_current <"$state/current"
    [ "$expected_current" = any ] || [ "$ours_current" = "$expected_current" ] ||
        fail 60 "somebody else has deployed in the meantime: $state/current says $ours_current"
}

# flip SLOT: nginx looks for the flag at each request, so this is the switch: one rename or one unlink.
flip() {
    if [ "$1" = b ]; then
        printf '%s\n' "$release" | replace_file "$flag" 644
    else
        rm -f "$flag"
    fi
}

# serves_once: whether requests through nginx are answered by one of the targets, several times in a row.
serves_once() {
    serves_count=0
    while [ "$serves_count" -lt 3 ]; do
        http_get 127.0.0.1 "$http_port" "$probe_path" "$domain" "$probe_timeout"
        serves_by=$(http_header x-axon-upstream)
        case " $targets " in
            *" $serves_by "*) ;;
            *)
                serves_told="$(http_told)${serves_by:+ from $serves_by}"
                return 1
                ;;
        esac
        http_expected || { serves_told="$(http_told) from $serves_by" && return 1; }
        serves_count=$((serves_count + 1))
    done
}

# serves: the proof from the outside. A flip is effective at once. After a reload it may take a moment: somebody
# else's reload can have been under way, and then the workers that were new when ours was confirmed are theirs.
serves() {
    clock
    serves_deadline=$((now + ${1:-0}))
    until serves_once; do
        clock
        [ "$now" -lt "$serves_deadline" ] || return 1
        sleep 0.1
    done
}

# switch_slots: configuration first where it changes, then the flip, then the proof from the outside, else back.
switch_slots() {
    begin_switch
    if [ "$install" = 1 ]; then config_install; fi
    if ! flip "$slot"; then
        if [ "$install" = 1 ]; then config_restore; fi
        fail 61 "cannot write $flag; nothing was switched"
    fi
    if serves "$((install * 500))"; then
        finish_switch
        return
    fi
    flip "${previous:-a}" || fail 64 "after the switch nginx answered $serves_told, and $flag cannot be written to switch back"
    if [ "$install" = 1 ]; then
        config_restore || fail 64 "after the switch nginx answered $serves_told, and the previous configuration could not be loaded again"
    fi
    fail 62 "after the switch nginx answered $serves_told; everything is as it was before"
}

# switch_reload: the classic way. The upstream is replaced, tested, reloaded and confirmed, or put back.
switch_reload() {
    begin_switch
    config_install
    if [ "$site_ours" = 1 ] && ! serves 500; then
        config_restore && fail 62 "after the switch nginx answered $serves_told; everything is as it was before"
        fail 64 "after the switch nginx answered $serves_told, and the previous upstream could not be loaded again"
    fi
    finish_switch
}

# finish_switch: `current` is for people and for the next run; the truth is the flag (or the upstream file). The journal
# stays until the release's record is written; without a record, as on the way back, it has done its duty.
finish_switch() {
    rm -rf "$state/nginx-before"
    printf '%s\n' "$release" | replace_file "$state/current" 644 ||
        fail 64 "the release serves, but $state/current cannot be written"
    keep_journal=$record
    sync "$state" 2>/dev/null || :
    tell serves "$release"
}
