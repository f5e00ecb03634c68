"""`fab exec` and `fab restart`: a command where the application runs, and the same release once more."""

from __future__ import annotations

import errno
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.tasks import usage
from axon_tasks.tasks.alone import FLAGS, Change, Flags, perform
from axon_tasks.tasks.base import Context, duration, ended_like_ctrl_c, one_environment, release_id, task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.config import Environment
    from axon_tasks.deploy.engine import Step
    from axon_tasks.deploy.executing import Ended, Place
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import Fleet


@task(
    name="exec",
    help={
        "env": FLAGS["env"],
        "only": "Only these servers, separated by commas.",
        "host": "On the servers themselves, system servers too, and not in containers.",
        "sudo": "With --host: as root.",
        "release": "In the containers of this release, instead of those that get traffic.",
        "interactive": "With this terminal: on one server, the first app server if --only names none.",
        "timeout": "End it after this time: 90s, 5m. Default: never.",
        "dry_run": "With --host: print what would be sent, and contact nothing.",
        "json": "Print JSON when all have ended, instead of the output as it comes.",
        "hosts_file": FLAGS["hosts_file"],
    },
)
def exec_(
    _c: Context,
    env: str = "",
    only: str = "",
    host: bool = False,
    sudo: bool = False,
    release: str = "",
    interactive: bool = False,
    timeout: str = "",
    dry_run: bool = False,
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Run a command in containers or on servers.

    In the containers that get traffic, on all app servers at the same time; what follows -- is the program with its
    arguments, to the letter. A single word is a line for the shell there, so that pipes and variables work. Each line of
    output begins with its server, unless there is only one. Nothing is read from standard input, but with --interactive.

    Ctrl-C ends it on servers; a program inside a container goes on, because Docker does not tell it (moby#9098).

    Exit code 0 if it ended with 0 everywhere, 1 if not (the message says where and with what), 4 if a server cannot
    be reached; with --interactive, that of the program. --json has the shape of axon_tasks/report/schemas/exec.json.

    Examples:
        fab exec --env=prod -- printenv HOSTNAME
        fab exec --env=prod -- 'ls /app | wc -l'
        fab exec --env=prod --host -- df -h /
        fab exec --env=prod --host --only=edge1 --sudo -- nginx -t
        fab exec --env=prod --only=app1 --interactive -- sh
    """
    project, environment = one_environment(env, hosts_file)
    words = usage.rest()
    limit = duration(timeout, "timeout") if timeout else None
    _must_be_command(words)
    given = {
        "host": host, "sudo": sudo, "release": bool(release), "interactive": interactive, "timeout": bool(timeout),
        "dry-run": dry_run, "json": json,
    }  # fmt: skip
    _must_fit({name for name, is_given in given.items() if is_given})
    release_id(release, "release")
    from axon_tasks.deploy import executing
    from axon_tasks.remote import Fleet

    on_hosts = executing.on_hosts(environment, words, only)
    servers = [place.server for place in on_hosts] if host else executing.app_servers(environment, only)
    if dry_run:
        _preview(on_hosts, sudo=sudo)
        return
    if interactive:
        servers = _one_server(servers, only)

    def places(fleet: Fleet) -> Sequence[Place]:
        if host:
            return [place for place in on_hosts if place.server in servers]
        return executing.in_containers(
            fleet, project, environment, words, only=",".join(servers), release=release, terminal=interactive
        )

    with ended_like_ctrl_c(), Fleet(project) as fleet:
        if interactive:
            _attach(fleet, places(fleet)[0])
            return
        where = places(fleet)
        voices = Voices(where, collect=json)
        ended = executing.run(fleet, where, voices.hear, sudo=sudo, timeout=limit)
    if any(isinstance(one.error, ReaderGoneError) for one in ended):
        return  # whoever reads has had enough, as `head` has
    voices.end()
    if json:
        _say_json(environment, ended, voices)
    _judge(environment, ended)


def _must_be_command(words: Sequence[str]) -> None:
    """Refuse what is no command.

    Raises:
        UsageError: It is none.
    """
    if not words:
        raise UsageError(
            "Which command? Nothing stands behind --.", hint="For example: fab exec --env=prod -- printenv"
        )
    if "-i" in sys.argv[: sys.argv.index("--")]:
        raise UsageError("-i is a flag of fab itself: a key for -H.", hint="For a terminal: --interactive.")
    if any("\0" in word for word in words):
        raise UsageError("The command contains a NUL byte, which no argument can hold.")


#: Flags that need another one, and pairs that do not go together; with the reason.
_NEEDS = {
    ("sudo", "host"): "In a container, its image decides who runs it.",
    ("dry-run", "host"): "Which container serves is asked first.",
}
_CLASHES = {
    ("release", "host"): "A release is that of a container.",
    ("interactive", "json"): "",
    ("interactive", "timeout"): "",
    ("interactive", "dry-run"): "",
    (
        "interactive",
        "sudo",
    ): "The rights that a deploy needs are not enough for it: call sudo in the shell there.",
    ("json", "dry-run"): "",
}


def _must_fit(given: set[str]) -> None:
    """Refuse flags that do not go together.

    Raises:
        UsageError: They do not.
    """
    for (flag, needed), reason in _NEEDS.items():
        if flag in given and needed not in given:
            raise UsageError(f"--{flag} goes with --{needed}.", hint=reason)
    for (one, other), reason in _CLASHES.items():
        if {one, other} <= given:
            raise UsageError(f"--{one} and --{other} do not go together.", hint=reason or None)
    if "interactive" in given:
        from axon_tasks.remote.terminal import must_be_terminal

        must_be_terminal()


def _one_server(servers: Sequence[str], only: str) -> list[str]:
    """Where there is a terminal: the one server that was named, or the first one.

    Raises:
        UsageError: Several were named.
    """
    if only and len(servers) != 1:
        raise UsageError(f"--only={only}: a terminal is on one server.", hint="Name one of them.")
    return [servers[0]]


def _preview(places: Sequence[Place], *, sudo: bool) -> None:
    from axon_tasks.deploy import executing
    from axon_tasks.report import console

    for place in places:
        script = executing.exec_batch(place, sudo=sudo).script(masked=True)
        console.write_line(sys.stdout, f"# {place.server}: would be sent; nothing was contacted\n{script}")


def _attach(fleet: Fleet, place: Place) -> None:
    """Run the command with this terminal, and end with its exit code.

    Raises:
        AxonError: It ended with another one than 0.
    """
    from axon_tasks.remote.terminal import attach

    code = attach(fleet[place.server], place.command)
    if code:
        raise AxonError(f"{place.server}: it ended with exit code {code}.", code=code)


_NOBODY = "Nobody reads the output any more."


class ReaderGoneError(AxonError):
    """Nobody reads what is said any more."""


class Voices:
    """What is said at several places at the same time, line by line, each with its place before it.

    Args:
        places: All of them; where there is only one, nothing stands before its output.
        collect: Whether it is kept instead of being shown.
    """

    def __init__(self, places: Sequence[Place], *, collect: bool) -> None:
        self._alone = len(places) == 1
        self._collect = collect
        self._width = max((len(place.server) for place in places), default=0)
        self._servers = [place.server for place in places]
        self._rest: dict[tuple[str, str], bytes] = {}
        self._guard = threading.Lock()
        self._is_heard = True
        self.said: dict[tuple[str, str], bytearray] = {}

    def hear(self, place: Place, stream: str, data: bytes) -> None:
        """Take what was said at one place.

        Raises:
            ReaderGoneError: Nobody reads it any more; each place hears of that by itself.
        """
        with self._guard:
            if not self._is_heard:
                raise ReaderGoneError(_NOBODY)
            if self._collect:
                self.said.setdefault((place.server, stream), bytearray()).extend(data)
            elif self._alone:
                self._raw(stream, data)
            else:
                *whole, rest = (self._rest.get((place.server, stream), b"") + data).split(b"\n")
                self._rest[place.server, stream] = rest
                for line in whole:
                    self._line(place.server, stream, line)

    def end(self) -> None:
        """Show last lines that have no end."""
        for (server, stream), rest in self._rest.items():
            if rest:
                self._line(server, stream, rest)

    def _raw(self, stream: str, data: bytes) -> None:
        """As it is, so that it can be piped; a terminal is not commanded by it."""
        from axon_tasks.remote import sanitize
        from axon_tasks.report import console

        target = sys.stdout if stream == "stdout" else sys.stderr
        if target.isatty():
            self._must_be_heard(
                target, console.write(target, sanitize(data.decode("utf-8", errors="replace")))
            )
            return
        try:
            target.buffer.write(data)
            target.flush()
        except OSError as error:
            # Not to be taken for a failure of the connection, which is one, too.
            if error.errno != errno.EPIPE:
                raise AxonError(f"The output cannot be written: {error.strerror}.") from None
            self._must_be_heard(target, False)

    def _line(self, server: str, stream: str, line: bytes) -> None:
        from axon_tasks.remote import sanitize
        from axon_tasks.report import console
        from axon_tasks.report.logs import COLOURS

        target = sys.stdout if stream == "stdout" else sys.stderr
        colour = COLOURS[self._servers.index(server) % len(COLOURS)]
        prefix = console.style(target, f"{server:<{self._width}} |", colour)
        text = f"{prefix} {sanitize(line.decode('utf-8', errors='replace'))}"
        self._must_be_heard(target, console.write_line(target, text))

    def _must_be_heard(self, stream: TextIO, is_heard: bool) -> None:
        """End what nobody listens to any more.

        Raises:
            ReaderGoneError: Nobody does.
        """
        from axon_tasks.report import console

        if not is_heard:
            self._is_heard = False
            console.forget(stream)
            raise ReaderGoneError(_NOBODY)


def _say_json(environment: Environment, ended: Sequence[Ended], voices: Voices) -> None:
    import json

    from axon_tasks.remote import sanitize
    from axon_tasks.report import console

    def said(one: Ended, stream: str) -> str:
        return bytes(voices.said.get((one.place.server, stream), b"")).decode("utf-8", errors="replace")

    results: list[dict[str, Any]] = [
        {
            "server": one.place.server,
            "release": one.place.release,
            "exit_code": one.exit_code,
            "stdout": said(one, "stdout"),
            "stderr": said(one, "stderr"),
            "error": None if one.error is None else sanitize(str(one.error)),
        }
        for one in ended
    ]
    console.write_line(
        sys.stdout, json.dumps({"environment": environment.name, "results": results}, indent=2)
    )


def _judge(environment: Environment, ended: Sequence[Ended]) -> None:
    """Raise where it did not end with 0.

    Raises:
        AxonError: Somewhere it did not.
    """
    from axon_tasks.deploy.problems import raise_all

    raise_all(one.error for one in ended if one.error is not None)
    failed = [f"{one.place.server} {one.exit_code}" for one in ended if one.exit_code != 0]
    if failed:
        raise AxonError(f"{environment.name}: the command did not end with 0: {', '.join(failed)}")


usage.takes_rest("exec")


@task(
    help=FLAGS
    | {
        "in_place": "Restart the containers that serve, one app server after the other. Requests may fail meanwhile.",
        "only": "With --in-place: only these app servers, separated by commas.",
    }
)
def restart(
    _c: Context,
    env: str = "",
    in_place: bool = False,
    only: str = "",
    now: bool = False,
    wait: bool = False,
    wait_lock: str = "",
    sequential: bool = False,
    dry_run: bool = False,
    hosts_file: str = "",
) -> None:
    """Replace what serves by new containers of its image.

    Without dropping a request, as a deploy of the digest that serves: started beside it with the settings of today and
    the env file as it is now, healthy before anything is switched, and the old containers are retired. So that is also
    how changed variables come into force.

    With --in-place the same containers are stopped and started again instead, one app server after the other, each
    healthy before the next: quicker, and nothing else runs meanwhile. With one app server the site is down for as long as
    that takes, and settings stay as they were.

    Examples:
        fab restart --env=prod
        fab restart --env=prod --wait
        fab restart --env=prod --in-place --only=app2

    Exit codes: as those of fab deploy.
    """
    project, environment = one_environment(env, hosts_file)
    flags = Flags.given(
        now=now, wait=wait, wait_lock=wait_lock, sequential=sequential, dry_run=dry_run, hosts_file=hosts_file
    )
    if only and not in_place:
        raise UsageError(
            "--only goes with --in-place.", hint="A new release serves on all app servers, or on none."
        )
    from axon_tasks.deploy import executing
    from axon_tasks.deploy import restart as restarting
    from axon_tasks.report import console

    servers = executing.app_servers(environment, only)

    def steps(run: Deployment) -> Sequence[Step]:
        return restarting.in_place(run, servers) if in_place else restarting.steps(run)

    done = perform(
        project, environment, flags, Change(f"restart {environment.name}", steps, restarting.unknown)
    )
    if not done:
        return
    run, took = done
    if in_place:
        console.write_line(sys.stdout, f"Done in {took:.2f} s: restarted in place on {', '.join(servers)}")
    else:
        console.write_line(sys.stdout, console.summary(run, took))
