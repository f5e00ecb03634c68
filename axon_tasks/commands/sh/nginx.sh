# shellcheck shell=sh disable=SC2154  # set by the caller: nginx_config nginx_directory name state

# nginx_pid: the pid of the running master, verified: a stale pid file may name somebody else's process, and
# `nginx -s reload` would send SIGHUP to that.
nginx_pid() {
    nginx_file=$(sed -n 's/^[[:space:]]*pid[[:space:]]\{1,\}\([^;]*\);.*/\1/p' "$nginx_config" | head -n 1)
    [ -n "$nginx_file" ] || nginx_file=$(nginx -V 2>&1 | tr ' ' '\n' | sed -n 's/^--pid-path=//p')
    read -r nginx_master <"${nginx_file:-/run/nginx.pid}" 2>/dev/null || return 1
    read -r nginx_comm <"/proc/$nginx_master/comm" 2>/dev/null || return 1
    [ "$nginx_comm" = nginx ] || return 1
    printf '%s\n' "$nginx_master"
}

# nginx_workers MASTER: the pids of its workers that still accept connections.
nginx_workers() {
    for nginx_dir in /proc/[0-9]*; do
        read -r nginx_child _ _ nginx_parent _ <"$nginx_dir/stat" || continue
        [ "$nginx_parent" = "$1" ] || continue
        case $(tr '\0' ' ' <"$nginx_dir/cmdline") in
            *'worker process is shutting down'*) ;;
            *'worker process'*) printf '%s\n' "$nginx_child" ;;
        esac
    done 2>/dev/null
}

# shadow_test: nginx -t on a copy of the whole configuration with the candidate in place: the live tree is never
# invalid, not even between two commands. nginx's message is told with the paths of the live tree.
shadow_test() {
    shadow=$(mktemp -d /tmp/axon-stage.XXXXXXXX) || fail 50 "cannot create a directory in /tmp"
    trap 'rm -rf "$shadow"' EXIT
    trap 'exit 1' HUP INT TERM PIPE
    shadow_home=${nginx_config%/*}
    # -L: what is a link in the live tree is a file of its own in the copy, or writing the candidate would reach the
    # live file. A dangling link cannot be copied; nginx -t judges whether it matters.
    cp -RLp "$shadow_home" "$shadow/nginx" 2>/dev/null
    [ -e "$shadow/nginx/${nginx_config##*/}" ] || fail 50 "cannot copy $shadow_home"
    case $nginx_directory in
        "$shadow_home"/*) shadow_axon=$shadow/nginx${nginx_directory#"$shadow_home"} ;;
        *)
            shadow_axon=$shadow/axon.d
            cp -RLp "$nginx_directory" "$shadow_axon" 2>/dev/null
            ;;
    esac
    mkdir -p "$shadow_axon/upstreams" "$shadow_axon/sites"
    printf '%s' "$upstream_text" >"$shadow_axon/upstreams/$name.conf"
    [ -z "$site_text" ] || printf '%s' "$site_text" >"$shadow_axon/sites/$name.conf"
    find "$shadow" -type f -exec sed -i \
        -e "s#\(include[[:space:]]\{1,\}[\"']\{0,1\}\)$nginx_directory/#\1$shadow_axon/#g" \
        -e "s#\(include[[:space:]]\{1,\}[\"']\{0,1\}\)$shadow_home/#\1$shadow/nginx/#g" \
        -e "s#^[[:space:]]*pid[[:space:]][^;]*;#pid $shadow/nginx.pid;#" {} +
    shadow_said=$(nginx -t -c "$shadow/nginx/${nginx_config##*/}" 2>&1)
    shadow_code=$?
    printf '%s\n' "$shadow_said" | sed -e "s#$shadow_axon#$nginx_directory#g" -e "s#$shadow/nginx#$shadow_home#g" >&2
    [ "$shadow_code" -eq 0 ] || exit 51
}

# nginx_reload: reloads and waits until the workers that were there accept no more and new ones do. The exit status
# of `nginx -s reload` proves nothing: bind and shared memory errors appear in the error log alone.
nginx_reload() {
    reload_master=$(nginx_pid) || { echo 'nginx is not running' >&2 && return 1; }
    reload_old=" $(nginx_workers "$reload_master" | tr '\n' ' ') "
    reload_log=$(sed -n 's/^[[:space:]]*error_log[[:space:]]\{1,\}\([^ ;]*\).*/\1/p' "$nginx_config" | head -n 1)
    reload_size=$(wc -c 2>/dev/null <"${reload_log:-/var/log/nginx/error.log}" || echo 0)
    nginx -c "$nginx_config" -s reload || return 1
    clock
    reload_deadline=$((now + 1500))
    while [ "$now" -lt "$reload_deadline" ]; do
        reload_new=0 reload_stale=0
        for reload_pid in $(nginx_workers "$reload_master"); do
            case $reload_old in
                *" $reload_pid "*) reload_stale=1 ;;
                *) reload_new=1 ;;
            esac
        done
        [ "$reload_new" = 1 ] && [ "$reload_stale" = 0 ] && return 0
        sleep 0.02
        clock
    done
    echo 'nginx did not take over the new configuration within 15 s; its error log says:' >&2
    tail -c "+$((reload_size + 1))" "${reload_log:-/var/log/nginx/error.log}" 2>/dev/null | grep -E '\[(emerg|alert)\]' | tail -n 3 >&2
    return 1
}

# keep_file / put_back: the file as it was before, byte for byte, or its absence.
keep_file() {
    rm -f "$2"
    [ ! -e "$1" ] || cp -pL "$1" "$2"
}
put_back() {
    if [ -e "$2" ]; then
        replace_file "$1" 644 <"$2"
    else
        rm -f "$1"
    fi
}

# config_keep: what a run that was killed half-way had kept is older, and therefore what counts.
config_keep() {
    kept=$state/nginx-before
    [ ! -d "$kept" ] || return 0
    (umask 077 && rm -rf "$kept.new" && mkdir -p "$kept.new") || return 1
    keep_file "$nginx_directory/upstreams/$name.conf" "$kept.new/upstream" || return 1
    keep_file "$nginx_directory/sites/$name.conf" "$kept.new/site" || return 1
    # A site that this tool did not write stays beside the new one for ever; the name is not included by nginx.
    if [ -n "$site_text" ] && [ -e "$kept.new/site" ] && ! grep -q '^# axon-tasks:' "$kept.new/site"; then
        cp -p "$kept.new/site" "$nginx_directory/sites/$name.conf.before-axon-tasks" || return 1
    fi
    mv "$kept.new" "$kept"
}

# config_restore: the previous files, and a reload only if some worker may have taken the new ones.
config_restore() {
    put_back "$nginx_directory/upstreams/$name.conf" "$kept/upstream"
    put_back "$nginx_directory/sites/$name.conf" "$kept/site"
    config_now=$(nginx_pid) && config_now=$(nginx_workers "$config_now")
    if [ "$config_now" != "$config_before" ]; then
        nginx -c "$nginx_config" -t -q && nginx_reload || return 1
    fi
    rm -rf "$kept"
}

# config_write: the site first: it names its upstream in a variable, so that it is valid without it.
config_write() {
    if [ -n "$site_text" ]; then
        printf '%s' "$site_text" | replace_file "$nginx_directory/sites/$name.conf" 644 || return 1
    fi
    printf '%s' "$upstream_text" | replace_file "$nginx_directory/upstreams/$name.conf" 644
}

# config_install: writes both files by rename, tests, reloads, confirms; puts the previous files back if one of these
# fails. One at a time on this server, until this script has ended and with it the time in which the files may be put
# back: another environment's test must not see files that are half there.
config_install() {
    exec 7>>"${state%/*/*}/nginx.lock" || fail 52 "cannot write ${state%/*/*}/nginx.lock"
    flock 7 || fail 52 "cannot lock ${state%/*/*}/nginx.lock"
    config_keep || fail 52 "cannot keep the previous configuration in $state"
    config_master=$(nginx_pid) || fail 52 'nginx is not running'
    config_before=$(nginx_workers "$config_master")
    if config_write && nginx -c "$nginx_config" -t -q && nginx_reload; then return 0; fi
    if config_restore; then
        fail 53 'the new nginx configuration was not adopted; the previous files are back'
    fi
    fail 54 'the new nginx configuration was not adopted, and the previous one could not be loaded again'
}
