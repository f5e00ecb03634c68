"""The text of a batch: labelled commands in, one POSIX shell script out.

The script is written to the standard input of `sh -s`. These are its rules, and why:

* The whole body is a function, called by the last word of the text. A shell runs a
  command only after it has read it completely, so a cut upload runs nothing.
* The call takes its standard input from `/dev/null`: no command can eat the script.
* The body stands in a subshell of its own: `kill -9 $$` in a command hits the outer
  shell, and the rest still runs and still reports.
* Each section is `( eval '...' )`: a syntax error, `exit`, `exec`, `cd`, `set -e` or a
  trap ends with the section.
* Begin and end of a section are marked on both streams with a nonce that nobody can
  guess, in one `printf` each (the shell's own, so that it costs no process; less than
  PIPE_BUF, so that it arrives in one piece).
* A script that must not stop half-way ignores HUP and writes through a sink that goes
  on reading when the connection is gone; otherwise the first line that is written after
  that kills it with SIGPIPE.
* A section that is talked to while it runs is alone in its script. Its shell reads it
  from a pipe, and after it what else comes in; an `exit` stands behind the calls, so that
  no shell takes for a command what nobody has read.

This module does no I/O, so that its text can be asserted.
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

#: First byte of every marker: the ASCII record separator, which text does not contain.
SEPARATOR = b"\x1e"
#: What stands in the place of a secret in text that is shown.
MASK = "********"

_SHELL = re.compile(r"[A-Za-z0-9_./-]+( [A-Za-z0-9_./-]+)*", re.ASCII)
_PRINTABLE = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*")

#: Variables of the login that change what a shell, nginx or Docker do (see `man 1 sh`
#: for ENV, `man 1 bash` for BASH_ENV, `man 8 nginx` for NGINX, `docker help` for DOCKER_*).
_SURPRISES = (
    "ENV BASH_ENV CDPATH GLOBIGNORE GREP_OPTIONS POSIXLY_CORRECT LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT NGINX"
    " DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG DOCKER_API_VERSION DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH"
    " DOCKER_DEFAULT_PLATFORM DOCKER_CONTENT_TRUST"
)
#: Who may read what a script writes is decided here, and not by the login that happens to be used.
_PROLOGUE = f"""\
umask 022
PATH="${{PATH:-/usr/local/bin:/usr/bin:/bin}}:/usr/local/sbin:/usr/sbin:/sbin" LC_ALL=C
export PATH LC_ALL
unset {_SURPRISES}
"""


@runtime_checkable
class Revealable(Protocol):
    """A value that is masked unless it is asked for by name, such as `axon_tasks.config.Secret`."""

    def reveal(self) -> str:
        """Give the value itself."""


class Command(NamedTuple):
    """One section of a script, as it was asked for.

    Args:
        label: The name under which its result is found.
        text: Shell text; it may have any number of lines.
        timeout: Seconds until the command is terminated on the server (exit code 124).
        stdin: What the command reads; it travels inside the script and never in argv.
        sudo: Run it as root: directly when the login is root, with `sudo -n` otherwise.
        listens: Its standard input stays open for what is sent while it runs.
    """

    label: str
    text: str
    timeout: float | None = None
    stdin: str | bytes | Revealable | None = None
    sudo: bool = False
    listens: bool = False


@dataclass(frozen=True)
class Options:
    """What applies to a script as a whole.

    Args:
        shell: The shell that runs the sections with `sudo` or `timeout`; one or more plain words.
        uninterruptible: Complete the script even if the connection breaks.
        fail_fast: Skip the sections after the first one that failed.
    """

    shell: str = "sh"
    uninterruptible: bool = False
    fail_fast: bool = False

    def __post_init__(self) -> None:
        if not _SHELL.fullmatch(self.shell):
            msg = f"shell must be plain words like 'sh' or 'busybox sh', not {self.shell!r}"
            raise ValueError(msg)


def render(commands: Sequence[Command], options: Options, nonce: str, *, masked: bool = False) -> str:
    """Write the script for some commands.

    Args:
        commands: The sections, in the order in which they run.
        options: What applies to all of them.
        nonce: 32 hexadecimal digits that no output can contain by chance.
        masked: Write `********` where a secret would stand, for showing the script.

    Returns:
        The script. It has no newline at its end on purpose: without its last character it runs nothing. Where the input
        stays open, a shell waits for the newline; without the brace before it, that one runs nothing either.
    """
    if any(command.listens for command in commands):
        return _listening(commands[0], options, nonce)
    sections = "".join(
        _section(index, command, options, masked=masked) for index, command in enumerate(commands)
    )
    body = f"{_head(commands, nonce)}{sections}_axon_mark F\n"
    return f"_axon_main() {{\n{_enclosed(body, options)}}}\n</dev/null _axon_main"


def single(command: str) -> str:
    """The command line that runs one command by itself, so that its input is whatever the session is sent.

    It is read by the login shell, which need be none of POSIX: all that it has to know are single quotes.

    Args:
        command: Shell text without secrets.
    """
    return f"exec sh -c {shlex.quote(_PROLOGUE + command)}"


def _listening(command: Command, options: Options, nonce: str) -> str:
    """Write the script for one command whose input stays open.

    The last part of the pipeline marks the end: what comes behind it would have to wait for `cat`, which goes on until
    the input ends.
    """
    program = f"$_axon_root {options.shell} -s" if command.sudo else f"{options.shell} -s"
    inner = f"{_PROLOGUE}_axon_inner() {{\n( eval {shlex.quote(command.text)} ) <&3 3<&-\n}}\n{_called('_axon_inner')}"
    body = f"""\
{_head([command], nonce)}_axon_mark B 0
{{ printf %s {shlex.quote(inner)}; exec cat <&3; }} 2>/dev/null | {{
exec 3<&-
{program}
_axon_mark E 0 $?
_axon_mark F
}}
"""
    return f"_axon_main() {{\n(\n{body})\n}}\n{_called('_axon_main')}"


def _called(function: str) -> str:
    """The call of a function that finds what comes in later on descriptor 3."""
    return f"{{ 3<&0 </dev/null {function}; exit; }}\n"


def _enclosed(body: str, options: Options) -> str:
    """Put the body into its own subshell, with sinks behind it if it must not stop half-way."""
    if not options.uninterruptible:
        return f"(\n{body})\n"
    # `cat` ends when the connection is gone; the second one then swallows what is still written.
    sink = "{ cat; exec cat >/dev/null; }"
    quiet = "2>/dev/null"
    return f"trap '' HUP PIPE\n{{ (\ntrap - PIPE\n{body}) 2>&1 >&3 3>&- | {sink} >&2 {quiet} 3>&-; }} 3>&1 | {sink} {quiet}\n"


def _head(commands: Sequence[Command], nonce: str) -> str:
    privileged = "[ \"$(id -u)\" = 0 ] || _axon_root='sudo -n'\n" if any(one.sudo for one in commands) else ""
    # /proc/self/stat of the reading shell: "pid (name) state parent group session ...".
    return f"""\
{_PROLOGUE}_axon_root=
{privileged}_axon_mark() {{
{{ read -r _axon_time _axon_rest </proc/uptime; }} 2>/dev/null || _axon_time=-
printf '\\036%s %s %s\\n' {nonce} "$*" "$_axon_time"
printf '\\036%s %s %s\\n' {nonce} "$*" "$_axon_time" >&2
}}
{{ read -r _axon_stat </proc/self/stat; }} 2>/dev/null || _axon_stat=
_axon_pid=${{_axon_stat%% *}}
set -- ${{_axon_stat##*) }}
_axon_mark H "${{_axon_pid:--}}" "${{4:--}}"
set --
"""


def _section(index: int, command: Command, options: Options, *, masked: bool) -> str:
    after = f"_axon_mark E {index} $_axon_code\n"
    if options.fail_fast:
        after += '[ "$_axon_code" = 0 ] || { _axon_mark F; exit; }\n'
    return f"_axon_mark B {index}\n{_invocation(command, options, masked=masked)}\n_axon_code=$?\n{after}"


def _invocation(command: Command, options: Options, *, masked: bool) -> str:
    """Wrap a command from the inside out: its input, its time limit, its privileges."""
    text = f"( eval {shlex.quote(command.text)} )"
    text = (
        f"{text} </dev/null" if command.stdin is None else f"{_feed(command.stdin, masked=masked)} | {text}"
    )
    if command.timeout is not None:
        # Whole seconds, because busybox knows no others.
        seconds = max(1, math.ceil(command.timeout))
        text = _through(text, f"timeout -k 5 {seconds} {options.shell} -s")
    if command.sudo:
        text = _through(text, f"$_axon_root {options.shell} -s")
    return text


def _through(text: str, program: str) -> str:
    """Have another shell run the text; it reads it from a pipe, because argv can be seen by everybody."""
    inner = f"{_PROLOGUE}_axon_inner() {{\n{text}\n}}\n</dev/null _axon_inner"
    return f"printf %s {shlex.quote(inner)} 2>/dev/null | {program}"


def _feed(data: str | bytes | Revealable, *, masked: bool) -> str:
    """Print the data with the shell's own printf; octal where the shell could not hold the byte."""
    if isinstance(data, Revealable):
        data = MASK if masked else data.reveal()
    raw = data.encode() if isinstance(data, str) else data
    if _PRINTABLE.fullmatch(raw):
        try:
            return f"printf %s {shlex.quote(raw.decode())} 2>/dev/null"
        except UnicodeDecodeError:
            pass
    octal = "".join(f"\\{byte:03o}" for byte in raw)
    return f"printf '{octal}' 2>/dev/null"
