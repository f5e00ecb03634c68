# shellcheck shell=sh disable=SC2154  # set by the caller: program

# until_gone: a program in a session of its own, ended with all that it has started once standard input ends.
until_gone() {
    exec 3<&0
    # From a pipe: arguments can be seen by everybody.
    printf '%s\n' "$program" | setsid sh -s 3<&- &
    gone_program=$!
    {
        cat <&3 >/dev/null
        # Its session may not be there yet, if nobody was left to read from the beginning.
        until kill -s TERM -- "-$gone_program" || ! kill -0 "$gone_program"; do sleep 0.1 || sleep 1; done
    } 2>/dev/null &
    wait "$gone_program"
}
