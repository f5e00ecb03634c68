# shellcheck shell=sh disable=SC2154  # environment_now of start.sh sets nothing; its caller sets env_file and env_checksum

# tell_environment: the checksum of the variables with which something would be started now; `start` tells the same one.
tell_environment() {
    compare_env=$(environment_now) || exit
    compare_sum=$(printf '%s\n' "$compare_env" | sha256sum)
    tell environment "${compare_sum%% *}"
}
