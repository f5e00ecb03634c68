# shellcheck shell=sh disable=SC2154  # set by the caller: state name nginx_config nginx_directory

# inspect_nginx: its version.
inspect_nginx() {
    command -v nginx >/dev/null 2>&1 || fail 127 'nginx is not installed'
    tell version "$(nginx -v 2>&1 | sed 's/.*nginx\///; s/[^0-9.].*//')"
}

# inspect_running: whether it runs.
inspect_running() {
    [ -r "$nginx_config" ] || fail 32 "cannot read $nginx_config"
    if nginx_pid >/dev/null; then tell running yes; else tell running no; fi
}

# include_line: what such a line looks like, for grep -E.
include_line() {
    printf '%s' "^[^#]*include[[:space:]]+[\"']?$nginx_directory/sites/\*"
}

# nginx_includes: whether nginx itself, asked for all of its configuration, includes ours.
nginx_includes() {
    nginx -T -c "$nginx_config" 2>/dev/null | grep -qE "$(include_line)"
}

# inspect_included: whether its configuration includes ours.
inspect_included() {
    inspect_line=$(include_line)
    # The usual places first: printing the whole configuration takes long where there are many sites.
    if grep -qsE "$inspect_line" "$nginx_config" "${nginx_config%/*}"/conf.d/*.conf "${nginx_config%/*}"/sites-enabled/* ||
        nginx_includes; then
        tell included yes
    else
        tell included no
    fi
}

# inspect_valid: whether nginx would load its configuration again as it stands; whose fault it is stands in the message.
inspect_valid() {
    inspect_said=$(nginx -t -q -c "$nginx_config" 2>&1) ||
        tell broken "$(printf '%s\n' "$inspect_said" | grep -F '[emerg]' | head -n 1)"
}

# inspect_file FILE: its content; nothing if there is none.
inspect_file() {
    [ ! -e "$1" ] || cat "$1"
}

# inspect_state: which slot serves by the flag, and the record of the current release.
inspect_state() {
    if [ -e "$flag" ]; then tell slot b; else tell slot a; fi
    # A run that was killed between writing nginx's files and the confirmed reload left this behind.
    [ ! -d "$state/nginx-before" ] || tell unfinished yes
    # And one that was killed between its switch and its record left this.
    if [ -e "$state/journal" ]; then
        read -r inspect_journal <"$state/journal"
        tell journal "$inspect_journal"
    fi
    [ ! -e "$state/maintenance" ] || tell_note maintenance "$state/maintenance"
    [ ! -e "$state/current" ] || read -r inspect_current <"$state/current"
    tell current "${inspect_current:-}"
    case ${inspect_current:-} in
        *[!0-9]* | '') ;;
        *) [ ! -e "$state/releases/$inspect_current.json" ] || tell record "$(cat "$state/releases/$inspect_current.json")" ;;
    esac
}
