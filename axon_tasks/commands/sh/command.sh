# shellcheck shell=sh disable=SC2154  # set by the caller: product environment container command_time, and what environment_now of
# start.sh needs

# wait_for_commands: that of a deploy whose deployer has died goes on, and two at the same time could spoil what they
# work on.
wait_for_commands() {
    for command_other in $(docker ps -q --filter "label=axon.command=$product/$environment"); do
        tell waiting "the release command of an earlier deploy still runs here (container $command_other)"
        timeout "$command_time" docker wait "$command_other" >/dev/null ||
            fail 70 "the release command of an earlier deploy still runs after $command_time s: docker stop $command_other"
    done
}

# release_command "$@": runs a command once, in a container that is gone afterwards; the arguments are docker's, after
# `docker run`.
release_command() {
    command_env=$(environment_now) || exit
    wait_for_commands
    clock
    command_end=$((now + command_time * 100))
    printf '%s\n' "$command_env" | timeout "$command_time" docker run "$@" 2>&1
    command_code=$?
    clock
    # timeout(1) ends the client; what it has started would go on.
    docker rm -f "$container" >/dev/null 2>&1
    [ "$command_code" != 0 ] || return 0
    [ "$now" -lt "$command_end" ] || fail 71 "it had not ended after $command_time s, and was stopped"
    fail 72 "it ended with exit code $command_code"
}

# remove_command: what is left of one that was interrupted.
remove_command() {
    docker rm -f "$container" >/dev/null 2>&1 || :
}
