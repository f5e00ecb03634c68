# shellcheck shell=sh disable=SC2034,SC2154  # set by the caller: state name nginx_directory kinds containers stop_time product environment,
# and what nginx.sh, switch.sh and cleanup.sh need

# delete_files: takes the environment's nginx files away, those of $kinds, tested and reloaded; they come back if nginx
# would not load its configuration without them. An nginx that does not run has nothing to reload.
delete_files() {
    lock_switch
    exec 7>>"${state%/*/*}/nginx.lock" || fail 52 "cannot write ${state%/*/*}/nginx.lock"
    flock 7 || fail 52 "cannot lock ${state%/*/*}/nginx.lock"
    site_text=''
    config_keep || fail 52 "cannot keep the previous configuration in $state"
    config_before=''
    if config_master=$(nginx_pid); then config_before=$(nginx_workers "$config_master"); fi
    for delete_kind in $kinds; do
        rm -f "$nginx_directory/$delete_kind/$name.conf"
    done
    if [ -z "$config_master" ] || { nginx -c "$nginx_config" -t -q && nginx_reload; }; then
        rm -rf "$kept"
        for delete_kind in $kinds; do tell removed "file $nginx_directory/$delete_kind/$name.conf"; done
        return
    fi
    if config_restore; then fail 53 'nginx does not load its configuration without these files; they are back'; fi
    fail 54 'nginx does not load its configuration without these files, nor with them'
}

# delete_containers: stops and removes these containers, and what a release command still runs in.
delete_containers() {
    for delete_id in $containers; do discard container "$delete_id" delete_container "$delete_id"; done
    for delete_id in $(docker ps -aq --no-trunc --filter "label=axon.command=$product/$environment"); do
        discard container "$delete_id" docker rm -f "$delete_id"
    done
}

# delete_container ID: one that is gone is no failure.
delete_container() {
    docker inspect --format '{{.Id}}' "$1" >/dev/null 2>&1 || return 0
    # Without this the daemon would start it again after its own restart, port and all (moby#11008).
    docker update --restart=no "$1" >/dev/null 2>&1
    docker stop -t "$stop_time" "$1" >/dev/null 2>&1
    docker rm -f "$1" >/dev/null || ! docker inspect --format '{{.Id}}' "$1" >/dev/null 2>&1
}

# delete_state: the state directory, in one rename, so that nobody sees a part of it; whoever waits for its lock notices.
# What a delete that was killed has renamed goes as well.
delete_state() {
    delete_gone=${state%/*}/.${state##*/}.deleted
    if [ -d "$state" ] && [ ! -L "$state" ]; then
        mv "$state" "$delete_gone.$$" || fail 30 "cannot remove $state"
        tell removed "state $state"
    fi
    for delete_old in "$delete_gone".*; do
        if [ ! -d "$delete_old" ] || [ -L "$delete_old" ]; then continue; fi
        # A job that was ended may write down how at this moment.
        rm -rf -- "$delete_old" 2>/dev/null || { sleep 1 && rm -rf -- "$delete_old"; } || fail 30 "cannot remove $delete_old"
    done
    rmdir "${state%/*}" 2>/dev/null || :
}
