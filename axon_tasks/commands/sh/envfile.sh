# shellcheck shell=sh disable=SC2154  # set by the caller: file expected

# read_env: the env file as it is; exit 39 if there is none.
read_env() {
    [ -e "$file" ] || exit 39
    [ -f "$file" ] || fail 35 "$file is no file"
    cat "$file" || fail 35 "cannot read $file"
}

# write_env: the env file becomes standard input, at once, for its owner alone, unless somebody else was faster.
write_env() {
    env_place=$(readlink -f "$file") || fail 30 "there is no directory for $file"
    env_sum=missing
    [ ! -e "$env_place" ] || env_sum=$(sha256sum <"$env_place")
    [ "${env_sum%% *}" = "$expected" ] || fail 38 "$file was changed by somebody else meanwhile; nothing was written"
    env_temp=${env_place%/*}/.${env_place##*/}.$$
    trap 'exit 1' HUP INT TERM PIPE
    trap 'rm -f "$env_temp"' EXIT
    (umask 077 && cat >"$env_temp") || fail 30 "cannot write to ${env_place%/*}"
    if [ "$(id -u)" = 0 ] && [ -e "$env_place" ]; then chown "$(stat -c %u:%g "$env_place")" "$env_temp"; fi
    chmod 600 "$env_temp" && { sync "$env_temp" 2>/dev/null || sync; } && mv -f "$env_temp" "$env_place" && return 0
    fail 30 "cannot write $file"
}
