# shellcheck shell=sh disable=SC2154  # set by the caller: state run maintenance_note maintenance_text maintenance_page, and what
# http.sh, nginx.sh and switch.sh need

# Maintenance is on while $state/maintenance exists: nginx looks for it at each request, as for the slot's flag. It holds
# who turned it on; the page is a file of its own, which stays when it is turned off, so that a request that has just seen
# the flag still finds it.

# install_files: what nginx serves stays; the files are written, tested, loaded and confirmed, or put back.
install_files() {
    lock_switch
    config_install
    rm -rf "$state/nginx-before"
}

# maintain: turns maintenance on, or off where there is no note, and proves it from the outside; else it is as before. What
# was before is kept until maintain_forget, because another system server may fail.
maintain() {
    make_state
    maintain_kept=$state/maintenance-before maintenance_word=off maintain_told=''
    [ -z "$maintenance_note" ] || maintenance_word=on
    rm -rf "$maintain_kept"
    maintain_keep || fail 61 "cannot write to $state; nothing was changed"
    if maintain_write && maintain_seen; then
        tell maintenance "$maintenance_word"
        return
    fi
    maintain_back
    fail 62 "nginx ${maintain_told:-cannot be told, because $state cannot be written}; everything is as it was before"
}

# maintain_keep: keeps what is there now; the page only where it is going to be another one.
maintain_keep() {
    (umask 077 && mkdir "$maintain_kept") &&
        keep_file "$state/maintenance" "$maintain_kept/note" &&
        { [ -z "$maintenance_note" ] || keep_file "$state/$maintenance_page" "$maintain_kept/page"; } &&
        printf '%s\n' "$run" >"$maintain_kept/run"
}

# maintain_write: the page first: whoever sees the flag finds it.
maintain_write() {
    if [ -n "$maintenance_note" ]; then
        printf '%s' "$maintenance_text" | replace_file "$state/$maintenance_page" 644 &&
            printf '%s\n' "$maintenance_note" | replace_file "$state/maintenance" 644
    else
        rm -f "$state/maintenance"
    fi
}

# maintain_seen: whether nginx sees it as it is now; the application is not asked, and may hang. A flag counts from the next request on; after somebody's reload,
# a worker of before may answer for a moment.
maintain_seen() {
    clock
    maintain_end=$((now + 500))
    while :; do
        http_get 127.0.0.1 "$http_port" "$probe_path" "$domain" "$probe_timeout"
        case ${maintenance_note:+on}$http_status in on200 | 404) return ;; esac
        maintain_told="does not see that maintenance is ${maintenance_word}: it answers $(http_told) on $probe_path"
        clock
        [ "$now" -lt "$maintain_end" ] || return 1
        sleep 0.1 2>/dev/null || sleep 1
    done
}

# maintain_back: what this run has kept is put back, byte for byte.
maintain_back() {
    maintain_kept=$state/maintenance-before maintain_run=''
    [ ! -f "$maintain_kept/run" ] || read -r maintain_run <"$maintain_kept/run"
    [ "$maintain_run" = "$run" ] || return 0
    [ ! -e "$maintain_kept/page" ] || put_back "$state/$maintenance_page" "$maintain_kept/page" || return 1
    put_back "$state/maintenance" "$maintain_kept/note" && rm -rf "$maintain_kept"
}

# maintain_forget: it is done on all system servers.
maintain_forget() {
    rm -rf "$state/maintenance-before"
}
