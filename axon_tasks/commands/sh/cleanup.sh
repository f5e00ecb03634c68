# shellcheck shell=sh disable=SC2154  # set by the caller: axon_root state nginx_directory name temporary product dry_run

# is_old PATH: nothing has changed it for a day. What is younger may still be in use.
is_old() {
    [ -n "$(find "$1" -prune -mtime +0 2>/dev/null)" ]
}

# tell_states: slot, current release and records of every environment that has state here, also of other products:
# which images must stay depends on all of them.
tell_states() {
    for states_directory in "$axon_root"/*/*/; do
        [ ! -d "$states_directory" ] || tell_state "${states_directory%/}"
    done
}

# tell_free DIRECTORY...: free KiB of the file systems that hold them, each counted once.
tell_free() {
    tell free "$(df -Pk "$@" 2>/dev/null | awk 'NR > 1 && !seen[$1 " " $2]++ { sum += $4 } END { printf "%.0f", sum }')"
}

# tell_containers: every container with what `docker ps` does not say. One that goes away meanwhile is no failure.
tell_containers() {
    date '+now=%s'
    containers_ids=$(docker ps -aq --no-trunc) || exit 1
    # shellcheck disable=SC2086  # ids are words
    [ -z "$containers_ids" ] || docker inspect --type container --format \
        '[{{json .Id}},{{json .State.Status}},{{json .Created}},{{json .Image}},{{json .HostConfig.RestartPolicy.Name}},[{{range .NetworkSettings.Networks}}{{json .NetworkID}},{{end}}""]]' \
        $containers_ids 2>/dev/null
    return 0
}

# tell_images: every image with all its names.
tell_images() {
    images_ids=$(docker image ls -q --no-trunc) || exit 1
    images_ids=$(printf '%s\n' "$images_ids" | sort -u)
    # shellcheck disable=SC2086  # ids are words
    [ -z "$images_ids" ] || docker image inspect --format \
        '[{{json .Id}},{{json .RepoTags}},{{json .RepoDigests}},{{json .Created}},{{json .Metadata.LastTagTime}},{{json .Size}}]' \
        $images_ids 2>/dev/null
    return 0
}

# tell_networks: the networks with our labels, and how many running containers each has.
tell_networks() {
    networks_ids=$(docker network ls -q --no-trunc --filter "label=axon.product=$product" --filter label=axon.environment) || exit 1
    # shellcheck disable=SC2086  # ids are words
    [ -z "$networks_ids" ] || docker network inspect --format \
        '[{{json .Id}},{{json .Name}},{{json (index .Labels "axon.product")}},{{json (index .Labels "axon.environment")}},{{len .Containers}}]' \
        $networks_ids 2>/dev/null
    return 0
}

# discard KIND NAME COMMAND...: runs the command, and tells what became of NAME. One failure stops nothing else.
discard() {
    discard_what="$1 $2"
    shift 2
    if discard_said=$("$@" 2>&1); then
        tell removed "$discard_what"
    else
        tell failed "$discard_what $(printf '%s' "$discard_said" | tr '\n' ' ' | head -c 300)"
    fi
}

# sweep KIND PATH: removes it, or only tells it in a dry run.
sweep() {
    if [ "$dry_run" = 1 ]; then tell found "$1 $2"; else discard "$1" "$2" rm -rf -- "$2"; fi
}

# sweep_temporaries DIRECTORY NAME: what replace_file left there when it was killed, .NAME.PID, and nothing that only
# begins like it.
sweep_temporaries() {
    for sweep_file in "$1/.$2".*; do
        case ${sweep_file#"$1/.$2."} in '' | *[!0-9]*) continue ;; esac
        [ -f "$sweep_file" ] && [ ! -L "$sweep_file" ] && is_old "$sweep_file" && sweep staging "$sweep_file"
    done
}

# sweep_state: abandoned temporary files of this environment's state directory.
sweep_state() {
    for sweep_name in current ports slot_b lock.owner held maintenance maintenance.html journal audit.log; do
        sweep_temporaries "$state" "$sweep_name"
    done
    sweep_of_releases "$state/releases" json
}

# sweep_of_releases DIRECTORY KIND: the same beside files that are named by a release, .RELEASE.KIND.PID.
sweep_of_releases() {
    for sweep_file in "$1"/.*."$2".*; do
        sweep_name=${sweep_file##*/.}
        sweep_id=${sweep_name%%.*} sweep_pid=${sweep_name##*.}
        case $sweep_id$sweep_pid in '' | *[!0-9]*) continue ;; esac
        [ "$sweep_name" = "$sweep_id.$2.$sweep_pid" ] || continue
        [ -f "$sweep_file" ] && [ ! -L "$sweep_file" ] && is_old "$sweep_file" && sweep staging "$sweep_file"
    done
    return 0
}

# sweep_started: how releases were started, and with which variables, beyond the newest ones.
sweep_started() {
    for sweep_id in $(find "$state/started" -name '*.run' 2>/dev/null | sed -n 's/.*\/\([0-9][0-9]*\)\.run$/\1/p' | sort -rn | tail -n "+$((started_keep + 1))"); do
        for sweep_file in "$state/started/$sweep_id.run" "$state/started/$sweep_id.env"; do
            [ ! -f "$sweep_file" ] || sweep start "$sweep_file"
        done
    done
    for sweep_kind in run env; do
        sweep_of_releases "$state/started" "$sweep_kind"
    done
}

# sweep_nginx: the same beside this environment's nginx files, and the copy that was not finished.
sweep_nginx() {
    sweep_temporaries "$nginx_directory/upstreams" "$name.conf"
    sweep_temporaries "$nginx_directory/sites" "$name.conf"
    for sweep_file in "$state/nginx-before.new" "$state/maintenance-before"; do
        [ -d "$sweep_file" ] && [ ! -L "$sweep_file" ] && is_old "$sweep_file" && sweep staging "$sweep_file"
    done
    return 0
}

# sweep_abandoned: shadow copies of nginx's configuration, and logins to a registry, that a killed run has left. /tmp
# belongs to everybody: only directories of this user.
sweep_abandoned() {
    for sweep_file in "$temporary"/axon-stage.???????? "$temporary"/axon-login.????????; do
        if [ ! -d "$sweep_file" ] || [ -L "$sweep_file" ]; then continue; fi
        [ "$(stat -c %u "$sweep_file" 2>/dev/null)" = "$(id -u)" ] || continue
        is_old "$sweep_file" && sweep staging "$sweep_file"
    done
    return 0
}

# shorten_audit: of an audit log that has become too large, the last lines stay.
shorten_audit() {
    [ -f "$state/audit.log" ] || return 0
    [ "$(wc -c <"$state/audit.log")" -gt "$audit_limit" ] || return 0
    if [ "$dry_run" = 1 ]; then
        tell found "audit $state/audit.log"
    elif tail -c "$audit_keep" "$state/audit.log" | sed 1d | replace_file "$state/audit.log" 644; then
        tell removed "audit $state/audit.log"
    else
        tell failed "audit $state/audit.log cannot be written"
    fi
}

# discard_image ID REFERENCE...: takes the references away, the last of which takes the image with it. A reference that
# names another image by now stays; so does an image that a container uses: docker refuses, and nothing is forced.
discard_image() {
    image_id=$1
    shift
    for image_reference; do
        image_now=$(docker image inspect --format '{{.Id}}' "$image_reference" 2>/dev/null) || continue
        [ "$image_now" = "$image_id" ] || continue
        if ! image_said=$(docker image rm "$image_reference" 2>&1); then
            tell failed "image $image_id $(printf '%s' "$image_said" | tr '\n' ' ' | head -c 300)"
            return
        fi
    done
    tell removed "image $image_id"
}
