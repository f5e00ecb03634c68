"""Work that goes on on a server after the task has ended, in plain POSIX sh.

Each job has a directory of its own (mode 0700) with these files:

| file | holds |
|---|---|
| `cmd` | the script that was given |
| `title` | what it does, in one line for people; jobs of older versions have none |
| `run` | the recorder: runs `cmd`, then writes `rc` |
| `started` | when, in seconds since 1970 |
| `pid` | process, its start time and the boot id: a number alone may belong to somebody else by now |
| `log` | standard output and standard error |
| `rc` | the exit code; written last and by rename, so that it is the one sign of the end |

A job survives the end of the SSH connection because it has a session of its own
(setsid(1)) and holds none of the connection's descriptors; otherwise sshd would wait for it.

The functions give shell text for a section of a batch, and read what that section prints.
"""

from __future__ import annotations

import re
import shlex
from typing import Literal, NamedTuple

from axon_tasks.errors import UsageError

State = Literal["running", "done", "lost"]

#: Exit code of a script that was given the id of a job that is not there (sysexits.h: EX_NOINPUT).
NO_SUCH_JOB = 66
#: Exit code of `start_script` when the id is taken (sysexits.h: EX_CANTCREAT).
ID_TAKEN = 73

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
#: Id, state, exit code, start, end, and what time it is on the server.
_HEAD = re.compile(
    r"job (\S{1,255}) (running|done|lost) (\d{1,3}|-) (\d{1,18}|-)(?: (\d{1,18}|-) (\d{1,18}|-))?", re.ASCII
)
_LINES = 20


class Job(NamedTuple):
    """What is known of a background job.

    Args:
        id: Its id.
        state: `lost` means that it ended without an exit code: it was killed, or the server was restarted.
        exit_code: Its exit code, once it is done.
        started: When it was started, in seconds since 1970 by the clock of the server.
        log_tail: The last lines of its log.
        title: What it does, in one line; empty if nobody said.
        ended: When it ended, by the same clock.
        now: What time it was when the server answered, by the same clock.
    """

    id: str
    state: State
    exit_code: int | None
    started: int | None
    log_tail: str
    title: str = ""
    ended: int | None = None
    now: int | None = None

    @property
    def age(self) -> int | None:
        """Seconds since it was started; two clocks that differ do not matter."""
        return None if self.started is None or self.now is None else max(0, self.now - self.started)


#: `$1` is the directory of the job. The child gets its signals back before it becomes the command.
_RECORDER = r"""
trap '' HUP PIPE
cd / || exit 1
read -r stat </proc/self/stat
pid=${stat%% *}
dir=$1
set -- ${stat##*) }
read -r boot </proc/sys/kernel/random/boot_id
printf '%s %s %s\n' "$pid" "${20}" "$boot" >"$dir/pid.tmp" && mv "$dir/pid.tmp" "$dir/pid" || exit 1
( trap - HUP PIPE; exec sh "$dir/cmd" ) </dev/null >"$dir/log" 2>&1
printf '%s\n' "$?" >"$dir/rc.tmp"
sync "$dir/rc.tmp" 2>/dev/null
mv "$dir/rc.tmp" "$dir/rc"
"""

#: `_axon_look DIR` sets `_axon_state`, `_axon_code`, `_axon_pid`. rc is read again at the end,
#: because the job may have ended between the two looks; /proc/PID/stat: proc(5), Z and X are dead.
_LOOK = r"""
_axon_is_alive() {
{ read -r _axon_pid _axon_start _axon_boot <"$1/pid" && read -r _axon_now </proc/sys/kernel/random/boot_id; } 2>/dev/null || return 1
[ "$_axon_boot" = "$_axon_now" ] || return 1
{ read -r _axon_stat <"/proc/$_axon_pid/stat"; } 2>/dev/null || return 1
set -- ${_axon_stat##*) }
[ "${20}" = "$_axon_start" ] && [ "$1" != Z ] && [ "$1" != X ]
}
_axon_look() {
_axon_state=lost _axon_code=- _axon_pid=
if [ ! -f "$1/rc" ] && _axon_is_alive "$1"; then _axon_state=running; return; fi
{ read -r _axon_code <"$1/rc"; } 2>/dev/null && _axon_state=done
}
_axon_ended() {
_axon_end=$(stat -c %Y "$1/rc" 2>/dev/null || stat -c %Y "$1/log" 2>/dev/null || stat -c %Y "$1")
}
_axon_show() {
_axon_look "$1"
{ read -r _axon_started <"$1/started"; } 2>/dev/null || _axon_started=-
_axon_end=-
[ "$_axon_state" = running ] || _axon_ended "$1"
printf 'job %s %s %s %s %s %s\n' "${1##*/}" "$_axon_state" "${_axon_code:--}" "${_axon_started:--}" "${_axon_end:--}" "$(date +%s)"
{ read -r _axon_title <"$1/title"; } 2>/dev/null && printf 'title %s\n' "$_axon_title"
[ ! -f "$1/log" ] || { tail -n "$2" "$1/log" | sed 's/^/| /'; printf '\n'; }
}
"""


def start_script(directory: str, job_id: str, body: str, *, title: str = "") -> str:
    """Give the text that starts a job.

    It exits 0 as soon as the job runs and has written its pid, ID_TAKEN if there is such a
    job already, and otherwise as the command that failed.

    Args:
        directory: Where the jobs are; made if needed.
        job_id: Letters, digits, dots, underscores and hyphens, at most 100.
        body: What the job does: a POSIX shell script.
        title: What it does, in a few words for the list of jobs.

    Raises:
        UsageError: If the directory, the id or the title cannot be one.
    """
    where = _quoted(directory, job_id)
    if not title.isprintable():
        raise UsageError(f"not a title of a background job: {title!r}", hint="a title is one line of text")
    named = f" && printf '%s\\n' {shlex.quote(title)} >{where}/title" if title else ""
    # What the job inherits would be held for as long as it runs: descriptors of a lock, of this connection.
    closed = " ".join(f"{number}>&-" for number in range(3, 10))
    return f"""\
( umask 022; mkdir -p {_quoted(directory)} ) || exit
umask 077
mkdir {where} || {{ [ -d {where} ] && exit {ID_TAKEN}; exit 1; }}
printf %s {shlex.quote(body)} >{where}/cmd && printf %s {shlex.quote(_RECORDER)} >{where}/run{named} && date +%s >{where}/started || exit
setsid sh {where}/run {where} </dev/null >/dev/null 2>&1 {closed} &
for _axon_nap in .01 .01 .02 .02 .05 .05 .1 .1 .2 .2 .5 .5 1 1 1; do
[ ! -f {where}/pid ] || exit 0
sleep "$_axon_nap" 2>/dev/null || sleep 1
done
[ ! -f {where}/pid ] || exit 0
echo 'the job did not start within 5 s' >&2
exit 1"""


def list_script(directory: str, *, lines: int = 0) -> str:
    """Give the text that lists all jobs, oldest name first; `parse` reads what it prints.

    Args:
        directory: Where the jobs are; if it is not there, there are none.
        lines: How many lines of each log to add.

    Raises:
        UsageError: If the directory cannot be one.
    """
    return f"""\
{_LOOK}for _axon_dir in {_quoted(directory)}/*/; do
[ ! -f "$_axon_dir/cmd" ] || _axon_show "${{_axon_dir%/}}" {int(lines)}
done"""


def bodies_script(directory: str) -> str:
    """Give the text that prints what the jobs that run now were given to do.

    Args:
        directory: Where the jobs are; if it is not there, there are none.

    Raises:
        UsageError: If the directory cannot be one.
    """
    return f"""\
{_LOOK}for _axon_dir in {_quoted(directory)}/*/; do
_axon_look "${{_axon_dir%/}}"
[ "$_axon_state" != running ] || cat "$_axon_dir/cmd"
done"""


def show_script(directory: str, job_id: str, *, lines: int = _LINES) -> str:
    """Give the text that shows one job and the end of its log; it exits NO_SUCH_JOB if there is none.

    Args:
        directory: Where the jobs are.
        job_id: Which one.
        lines: How many lines of the log.

    Raises:
        UsageError: If the directory or the id cannot be one.
    """
    where = _quoted(directory, job_id)
    return f"{_LOOK}[ -d {where} ] || exit {NO_SUCH_JOB}\n_axon_show {where} {int(lines)}"


def wait_script(directory: str, job_id: str, timeout: float, *, lines: int = _LINES) -> str:
    """Give the text that waits until a job has ended, on the server, and then shows it.

    Args:
        directory: Where the jobs are.
        job_id: Which one.
        timeout: Seconds to wait at most; the job goes on after that and is shown as running.
        lines: How many lines of the log.

    Raises:
        UsageError: If the directory or the id cannot be one.
    """
    where = _quoted(directory, job_id)
    return f"""\
{_LOOK}[ -d {where} ] || exit {NO_SUCH_JOB}
read -r _axon_up _axon_rest </proc/uptime
_axon_end=$(( ${{_axon_up%.*}} + {max(1, int(timeout + 0.999))} ))
while _axon_look {where}; [ "$_axon_state" = running ]; do
read -r _axon_up _axon_rest </proc/uptime
[ "${{_axon_up%.*}}" -lt "$_axon_end" ] || break
sleep 0.1 2>/dev/null || sleep 1
done
_axon_show {where} {int(lines)}"""


def cancel_script(directory: str, job_id: str, *, grace: float = 10.0, lines: int = _LINES) -> str:
    """Give the text that ends a job and shows it; its exit code is then 143 or 137, recorded as any other.

    Args:
        directory: Where the jobs are.
        job_id: Which one; one that has ended is only shown.
        grace: Seconds between TERM and KILL.
        lines: How many lines of the log.

    Raises:
        UsageError: If the directory or the id cannot be one.
    """
    where = _quoted(directory, job_id)
    return f"""\
{_LOOK}{_cancel(grace)}[ -d {where} ] || exit {NO_SUCH_JOB}
_axon_look {where}
[ "$_axon_state" != running ] || _axon_cancel {where}
_axon_show {where} {int(lines)}"""


def cancel_all_script(directory: str, prefix: str, *, grace: float = 10.0) -> str:
    """Give the text that ends every job that runs now and whose id begins with a prefix, and shows each of them.

    Args:
        directory: Where the jobs are; if it is not there, there are none.
        prefix: How their ids begin.
        grace: Seconds between TERM and KILL.

    Raises:
        UsageError: If the directory or the prefix cannot be one.
    """
    return f"""\
{_LOOK}{_cancel(grace)}for _axon_dir in {_quoted(directory, prefix)}*/; do
_axon_dir=${{_axon_dir%/}}
_axon_look "$_axon_dir"
[ "$_axon_state" != running ] || {{ _axon_cancel "$_axon_dir"; _axon_show "$_axon_dir" 0; }}
done"""


def _cancel(grace: float) -> str:
    """Give the function `_axon_cancel DIR`, which ends a job that runs; it comes after `_LOOK`."""
    # The session is everything that the job has started; the recorder leads it and must live to write rc. The last
    # KILL is for what was started while the first signals went round: a shell goes on when its child has been hit.
    return f"""\
_axon_signal() {{
for _axon_entry in /proc/[0-9]*; do
{{ read -r _axon_stat <"$_axon_entry/stat"; }} 2>/dev/null || continue
set -- "$1" ${{_axon_stat##*) }}
[ "$5" != "$_axon_leader" ] || [ "${{_axon_entry#/proc/}}" = "$_axon_leader" ] || kill -s "$1" "${{_axon_entry#/proc/}}" 2>/dev/null
done
}}
_axon_cancel() {{
_axon_leader=$_axon_pid
_axon_signal TERM
_axon_tries={max(1, int(grace * 10))}
while [ "$_axon_tries" -gt 0 ] && _axon_look "$1" && [ "$_axon_state" = running ]; do
_axon_tries=$(( _axon_tries - 1 ))
sleep 0.1 2>/dev/null || {{ sleep 1; _axon_tries=$(( _axon_tries - 9 )); }}
done
_axon_look "$1"
[ "$_axon_state" != running ] || _axon_signal KILL
for _axon_try in 1 2 3 4 5 6 7 8 9 10; do
_axon_look "$1"
[ "$_axon_state" = running ] || break
_axon_signal KILL
sleep 0.1 2>/dev/null || sleep 1
done
_axon_signal KILL
}}
"""


def prune_script(directory: str, days: float, *, dry_run: bool = False) -> str:
    """Give the text that removes the jobs that ended long ago; those that run stay, however old.

    It prints a line `pruned ID` for each.

    Args:
        directory: Where the jobs are.
        days: Remove those that ended at least so many days ago; what never got as far as to start counts, too.
        dry_run: Only print them.

    Raises:
        UsageError: If the directory cannot be one.
    """
    remove = "" if dry_run else 'rm -rf -- "$_axon_dir" || { _axon_failed=1; continue; }\n'
    return f"""\
{_LOOK}_axon_limit=$(( $(date +%s) - {int(days * 86400)} )) _axon_failed=0
for _axon_dir in {_quoted(directory)}/*/; do
_axon_dir=${{_axon_dir%/}}
[ -d "$_axon_dir" ] && [ ! -L "$_axon_dir" ] || continue
_axon_look "$_axon_dir"
[ "$_axon_state" != running ] || continue
_axon_ended "$_axon_dir"
[ "$_axon_end" -le "$_axon_limit" ] 2>/dev/null || continue
{remove}printf 'pruned %s\\n' "${{_axon_dir##*/}}"
done
exit $_axon_failed"""


def parse(text: str) -> list[Job]:
    """Read what the list, show, wait and cancel scripts print.

    Args:
        text: Standard output of the section.
    """
    jobs: list[Job] = []
    for line in text.split("\n"):
        head = _HEAD.fullmatch(line)
        if head is not None:
            name, state, code, started, ended, now = head.groups()
            jobs.append(
                Job(
                    name, _state(state), _number(code), _number(started), "",
                    ended=_number(ended), now=_number(now),
                )
            )  # fmt: skip
        elif line.startswith("title ") and jobs and not jobs[-1].log_tail:
            jobs[-1] = jobs[-1]._replace(title=line.removeprefix("title "))
        elif line.startswith("| ") and jobs:
            jobs[-1] = jobs[-1]._replace(log_tail=f"{jobs[-1].log_tail}{line[2:]}\n")
    return jobs


def _quoted(directory: str, job_id: str | None = None) -> str:
    if not directory.startswith("/") or not directory.isprintable() or ".." in directory.split("/"):
        raise UsageError(f"not an absolute path for background jobs: {directory!r}")
    if job_id is None:
        return shlex.quote(directory.rstrip("/"))
    if not _ID.fullmatch(job_id):
        raise UsageError(
            f"not the id of a background job: {job_id!r}",
            hint="an id is made of letters, digits, dots, underscores and hyphens",
        )
    return shlex.quote(f"{directory.rstrip('/')}/{job_id}")


def _state(word: str) -> State:
    return "running" if word == "running" else "done" if word == "done" else "lost"


def _number(word: str | None) -> int | None:
    return int(word) if word and word != "-" else None
