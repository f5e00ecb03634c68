# shellcheck shell=sh disable=SC2154  # set by the caller: product environment state container command_time, and what environment_now of
# start.sh needs

# wait_for_commands: that of a deploy whose deployer has died goes on, and two at the same time could spoil what they
# work on. Whoever waits here for a dead deployer ends as soon as it says something; only one waits at a time.
wait_for_commands() {
    make_state
    exec 9>>"$state/command.lock" || fail 30 "cannot write $state/command.lock"
    if ! flock -n 9; then
        tell waiting "another deploy runs its release command, or waits for its turn"
        flock 9
    fi
    for command_other in $(docker ps -q --filter "label=axon.command=$product/$environment"); do
        tell waiting "the release command of an earlier deploy still runs here (container $command_other)"
        # It may be gone before it can be waited for.
        timeout "$command_time" docker wait "$command_other" >/dev/null 2>&1 ||
            [ -z "$(docker ps -q --filter "id=$command_other")" ] ||
            fail 70 "the release command of an earlier deploy still runs after $command_time s: docker stop $command_other"
        tell waiting "it has ended"
    done
}

# release_command "$@": runs a command once, in a container that is gone afterwards; the arguments are docker's, after
# `docker run`.
release_command() {
    command_env=$(environment_now) || exit
    wait_for_commands
    clock
    command_end=$((now + command_time * 100))
    # KILL: the client would pass another signal on to a program that need not heed it, and go on waiting.
    printf '%s\n' "$command_env" | timeout -s KILL "$command_time" docker run "$@" 2>&1
    command_code=$?
    # Its last line may have no end, and would not be shown.
    echo
    [ "$command_code" != 0 ] || return 0
    clock
    if [ "$now" -ge "$command_end" ]; then
        docker rm -f "$container" >/dev/null 2>&1
        fail 71 "it had not ended after $command_time s, and was stopped"
    fi
    fail 72 "it ended with exit code $command_code"
}

# remove_command: what is left of one that was interrupted.
remove_command() {
    docker rm -f "$container" >/dev/null 2>&1 || :
}
